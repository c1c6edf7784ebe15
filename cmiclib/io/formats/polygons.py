"""Polygons to triangles inside their border; trimesh makes fans, which leave a concave one (its issue 2519)."""

from collections.abc import Sequence

import numpy as np


def is_concave(points: np.ndarray) -> np.ndarray:
    """Tell for polygons of K corners each, (N, K, 3), whether a fan around the first corner may leave the border."""
    edges = np.roll(points, -1, axis=1) - points
    turns = np.cross(edges, np.roll(edges, -1, axis=1))  # (N, K, 3)
    normal = np.cross(points - points[:, :1], np.roll(points, -1, axis=1) - points[:, :1]).sum(axis=1)  # (N, 3)
    along = np.einsum("nkc,nc->nk", turns, normal)
    return np.asarray((along < -1e-9 * (normal**2).sum(axis=1)[:, None]).any(axis=1))


def cut_ears(polygon: np.ndarray) -> np.ndarray:
    """Return triangles (T, 3) of a polygon (K, 3), as numbers of its corners, that face where it faces."""
    import mapbox_earcut  # a machine that only trains may lack it

    normal = np.cross(polygon - polygon[0], np.roll(polygon, -1, axis=0) - polygon[0]).sum(axis=0)
    away = int(np.abs(normal).argmax())
    flat = np.ascontiguousarray(np.delete(polygon, away, axis=1))
    triangles = mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], np.uint32)).reshape(-1, 3).astype(int)
    if not len(triangles):  # it has no area
        return fan(len(polygon))
    one, two = (flat[triangles[:, k]] - flat[triangles[:, 0]] for k in (1, 2))
    turned = np.sign((one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sum()) != np.sign(normal[away]) * (-1) ** (
        away == 1
    )
    return triangles[:, ::-1] if turned else triangles


def fan(corners: int) -> np.ndarray:
    """Return the triangles (K - 2, 3) of a convex polygon of K corners, as numbers of its corners."""
    first = np.zeros(corners - 2, int)
    return np.stack([first, np.arange(1, corners - 1), np.arange(2, corners)], axis=1)


def triangulate(vertices: np.ndarray, corners: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons of any lengths into triangles; those with fewer than three corners are left out.

    Args:
        vertices: (V, 3).
        corners: indices of all polygons' corners, one after the other, all of them below V.
        lengths: (N,) corners of each polygon.

    Returns:
        The triangles (T, 3), in the polygons' order, and which polygon each is of, (T,).
    """
    starts = np.cumsum(lengths) - lengths
    faces, owner = [np.zeros((0, 3), int)], [np.zeros(0, int)]
    for length in np.unique(lengths[lengths >= 3]):
        own = np.flatnonzero(lengths == length)
        polygons = corners[starts[own, None] + np.arange(length)]  # (N, K)
        bad = is_concave(vertices[polygons]) if length > 3 else np.zeros(len(own), bool)
        faces.append(polygons[~bad][:, fan(length)].reshape(-1, 3))
        owner.append(np.repeat(own[~bad], length - 2))
        for number, polygon in zip(own[bad], polygons[bad], strict=True):
            faces.append(polygon[cut_ears(vertices[polygon])])
            owner.append(np.full(len(faces[-1]), number))
    order = np.argsort(np.concatenate(owner), kind="stable")
    return np.concatenate(faces)[order], np.concatenate(owner)[order]


def strips(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Return the triangles (T, 3) of strips; -1 ends one and begins the next."""
    faces = [np.zeros((0, 3), int)]
    for joined in lists:
        for strip in np.split(joined, np.flatnonzero(joined == -1)):
            strip = strip[strip >= 0]
            if len(strip) >= 3:
                triangles = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
                triangles[1::2] = triangles[1::2, ::-1]
                faces.append(triangles)
    return np.concatenate(faces)
