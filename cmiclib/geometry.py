"""Meshes: read, normalise, sample, voxelise, compare, simplify."""

from pathlib import Path

import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree

from .errors import MeshError

VOXELS = 128
_AXES = {
    "+x": (1, 0, 0), "-x": (-1, 0, 0), "+y": (0, 1, 0), "-y": (0, -1, 0), "+z": (0, 0, 1), "-z": (0, 0, -1),
}  # fmt: skip


def load_mesh(path: str | Path, up: str = "+y", front: str = "+z") -> trimesh.Trimesh:
    """Read OBJ, GLB, PLY, STL or OFF; the parts of a scene are joined with their transforms applied.

    Args:
        path: the file.
        up: the axis of the file's frame that points up: `+x`, `-x`, … `-z`.
        front: the axis that the object's front looks along.

    Returns:
        The mesh, turned so that +y is up and the front looks along +z; materials are kept where there are any.

    Raises:
        MeshError: unreadable, without faces, or with coordinates that are not finite.
    """
    path = Path(path)
    rotation = frame_rotation(up, front)
    if not path.is_file():
        raise MeshError("no such file", path=path, fix="correct the path")
    try:
        scene = trimesh.load_scene(path, process=False)
        mesh = scene.to_mesh() if scene.geometry else trimesh.Trimesh()
    except Exception as error:  # each of trimesh's readers fails in its own way
        raise MeshError(
            f"cannot be read as a mesh ({type(error).__name__}: {error})",
            path=path,
            fix="convert it to OBJ, GLB, PLY, STL or OFF",
        ) from None
    check_mesh(mesh, path)
    turn = np.eye(4)
    turn[:3, :3] = rotation
    mesh.apply_transform(turn)
    return mesh


def frame_rotation(up: str, front: str) -> np.ndarray:
    """Return the 3×3 rotation that takes axis `up` to +y and axis `front` to +z.

    Raises:
        MeshError: an unknown axis, or two parallel ones.
    """
    for axis in (up, front):
        if axis not in _AXES:
            raise MeshError(f"unknown axis '{axis}'", fix=f"use one of: {', '.join(_AXES)}")
    y, z = np.array(_AXES[up]), np.array(_AXES[front])
    if y @ z:
        raise MeshError(f"up '{up}' and front '{front}' are parallel", fix="name two different axes")
    return np.stack([np.cross(y, z), y, z]).astype(float)


def check_mesh(mesh: trimesh.Trimesh, path: str | Path | None = None) -> None:
    """Refuse a mesh that has no faces, no extent or coordinates that are not finite.

    Raises:
        MeshError: what is wrong.
    """
    if len(mesh.faces) == 0:
        raise MeshError("the mesh has no faces", path=path, fix="export it with triangles or polygons")
    used = mesh.vertices[np.unique(mesh.faces)]
    if not np.isfinite(used).all():
        raise MeshError("the mesh holds coordinates that are not finite", path=path, fix="export it again")
    if np.ptp(used, axis=0).max() == 0:
        raise MeshError("all vertices of the mesh coincide", path=path, fix="export it again")


def normalise(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return a copy with the bounding box's centre at the origin and the farthest vertex at distance 1.

    Vertices that no face uses are left out first, so that they move nothing.

    Raises:
        MeshError: as `check_mesh`.
    """
    check_mesh(mesh)
    mesh = mesh.copy()
    mesh.remove_unreferenced_vertices()
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    mesh.apply_scale(1 / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def sample_points(mesh: trimesh.Trimesh, n: int = 10_000, seed: int = 0) -> np.ndarray:
    """Return `n` points spread evenly over the surface, float32 (n, 3); the same seed gives the same points.

    Raises:
        MeshError: the surface has no area.
    """
    corners = mesh.vertices[mesh.faces]  # (F, 3, 3)
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    cumulated = np.cumsum(np.linalg.norm(np.cross(edge_a, edge_b), axis=1))
    if not cumulated[-1] > 0:
        raise MeshError("the mesh's surface has no area", fix="export it again")
    random = np.random.default_rng(seed).random((n, 3))
    face = np.searchsorted(cumulated, random[:, 0] * cumulated[-1], side="right").clip(max=len(corners) - 1)
    u, v = random[:, 1:2], random[:, 2:3]
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)  # fold the square into the triangle
    return (corners[face, 0] + u * edge_a[face] + v * edge_b[face]).astype(np.float32)


def voxelise(mesh: trimesh.Trimesh, size: int = VOXELS) -> np.ndarray:
    """Return the solid grid of a normalised mesh, bool (size, size, size) over the cube [-1, 1]³, axes x, y, z.

    A voxel is solid if the surface passes through it or if the outside cannot reach it over voxel faces. This
    asks nothing of the mesh: holes narrower than a voxel are closed, an open box stays a thin shell.
    """
    points = _cover(mesh.vertices[mesh.faces], spacing=1 / size)  # half a voxel's side
    index = np.floor((points + 1) * (size / 2)).astype(np.int64).clip(0, size - 1)
    surface = np.zeros((size, size, size), bool)
    surface[tuple(index.T)] = True
    return ndimage.binary_fill_holes(surface)


def _cover(corners: np.ndarray, spacing: float) -> np.ndarray:
    """Points on triangles (F, 3, 3), corners and edges too, none farther than `spacing` from its neighbours."""
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)  # (F,) longest edge
    steps = np.maximum(1, np.ceil(edges / spacing)).astype(int)
    points = []
    for n in np.unique(steps):
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        i, j = i[i + j <= n], j[i + j <= n]
        weights = np.stack([n - i - j, i, j], axis=1) / n  # (K, 3) barycentric lattice
        chunk = max(1, 4_000_000 // len(weights))
        same = corners[steps == n]
        for start in range(0, len(same), chunk):
            points.append(np.einsum("kc,fcd->fkd", weights, same[start : start + chunk]).reshape(-1, 3))
    return np.concatenate(points)


def pack_voxels(grid: np.ndarray) -> np.ndarray:
    """Pack a bool grid (size, size, size) into bits, uint8 (size³ / 8,)."""
    return np.packbits(grid)


def unpack_voxels(packed: np.ndarray, size: int = VOXELS) -> np.ndarray:
    """Undo `pack_voxels`: uint8 (size³ / 8,) to bool (size, size, size)."""
    return np.unpackbits(packed, count=size**3).reshape(size, size, size).astype(bool)


def voxel_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return intersection over union of two solid grids of one shape, in [0, 1]; two empty grids give 1.

    Raises:
        MeshError: grids of different shapes.
    """
    if a.shape != b.shape:
        raise MeshError(f"grids of different shapes: {a.shape} and {b.shape}", fix="voxelise both at one size")
    a, b = a.astype(bool), b.astype(bool)
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def modified_hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    """Return the modified Hausdorff distance of two point sets (n, 3) and (m, 3), as given.

    (Σ_i min_j |a_i − b_j| + Σ_j min_i |a_i − b_j|) / (n + m): the released code's d_HAU, which halves the
    coordinates of normalised shapes before.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    to_b, to_a = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    return float((to_b.sum() + to_a.sum()) / (len(a) + len(b)))


def simplify(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """Return the geometry with at most about `faces` triangles (quadric edge collapse), without materials.

    A mesh that has no more than that comes back as it is, vertices at one place merged.
    """
    plain = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    plain.merge_vertices()
    if len(plain.faces) <= faces:
        return plain
    return plain.simplify_quadric_decimation(face_count=faces)
