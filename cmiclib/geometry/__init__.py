"""Meshes: read, normalise, sample, voxelise, compare, simplify."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from ..errors import MeshError, PassingError
from ..io.formats.gltf import GAMMA
from ..io.meshes import read_scene
from ..io.protocol import frame_rotation

VOXELS = 128


def load_mesh(path: str | Path, up: str = "+y", front: str = "+z") -> trimesh.Trimesh:
    """Read a mesh of one of `cmiclib.io.meshes.FORMATS`; join its parts and put their colours on their faces.

    ``up`` and ``front`` (`+x`, `-x`, … `-z`) are the axes of the file that point up and to the front; they become +y
    and +z. A file that is unreadable, has no faces, or holds NaN or Inf is a MeshError.
    """
    path, turn = Path(path), np.eye(4)
    turn[:3, :3] = frame_rotation(up, front)
    scene = read_scene(path)
    try:
        mesh = _join(scene)
    except MemoryError:
        raise PassingError("the mesh is larger than the memory", path=path, fix="simplify it") from None
    except Exception as error:  # parts that do not fit together fail in many ways
        problem = "the parts of the mesh do not fit together"
        raise MeshError(problem, path=path, fix="convert it to OBJ, GLB, PLY, STL or OFF") from error
    check_mesh(mesh, path)
    mesh.apply_transform(turn)
    return mesh


def _join(scene: trimesh.Scene) -> trimesh.Trimesh:
    """Return one mesh of all parts, each placed by its transform."""
    vertices, faces, colors = [np.zeros((0, 3))], [np.zeros((0, 3), int)], [np.zeros((0, 4), np.uint8)]
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        part = scene.geometry[name]
        if not isinstance(part, trimesh.Trimesh):  # lines and point clouds show no surface
            continue
        faces.append(part.faces + sum(map(len, vertices)))
        vertices.append(trimesh.transform_points(part.vertices, transform))
        colors.append(face_colors(part))
    return trimesh.Trimesh(
        np.concatenate(vertices), np.concatenate(faces), face_colors=np.concatenate(colors), process=False
    )


def face_colors(part: trimesh.Trimesh) -> np.ndarray:
    """Return RGBA of each face, uint8 (F, 4): its own colour, its material's, or the mean of its material's texture."""
    visual: Any = part.visual
    material = getattr(visual, "material", None)
    if material is None:
        return np.asarray(visual.face_colors)
    color = np.asarray(material.main_color)[:3]
    if isinstance(material, trimesh.visual.material.PBRMaterial):  # glTF's factors are linear light
        color = np.rint(255 * (color / 255) ** (1 / GAMMA))
    if image := getattr(material, "image", None) or getattr(material, "baseColorTexture", None):
        with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            # A damaged texture spoils no geometry.
            color = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return np.tile(np.array([*color, 255], np.uint8), (len(part.faces), 1))


def check_mesh(mesh: trimesh.Trimesh, path: str | Path | None = None) -> None:
    """Refuse, with a MeshError, a mesh without faces or without extent, or with coordinates that are NaN or Inf."""
    if len(mesh.faces) == 0:
        raise MeshError("the mesh has no faces", path=path, fix="export it with triangles or polygons")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise MeshError("faces of the mesh name vertices that it does not have", path=path, fix="export it again")
    used = mesh.vertices[np.unique(mesh.faces)]
    if not np.isfinite(used).all():
        raise MeshError("some coordinates of the mesh are NaN or Inf", path=path, fix="export it again")
    if np.ptp(used, axis=0).max() == 0:
        raise MeshError("all vertices of the mesh coincide", path=path, fix="export it again")


def normalise(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return a copy with the bounding box's centre at the origin and the farthest vertex at distance 1.

    Vertices that no face uses are left out first, and faces without area where they would move the box, so that what
    nobody sees moves nothing. The mesh is checked by `check_mesh`.
    """
    check_mesh(mesh)
    mesh = mesh.copy()
    mesh.remove_unreferenced_vertices()
    seen = has_area(mesh.triangles)
    if seen.any() and (mesh.bounds != _bounds(mesh.vertices[np.unique(mesh.faces[seen])])).any():
        mesh.update_faces(seen)
        mesh.remove_unreferenced_vertices()
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    mesh.apply_scale(1 / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def has_area(triangles: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """Tell which triangles (F, 3, 3) are more than a line or a point: higher than ``least`` of their longest side."""
    sides = np.roll(triangles, -1, axis=1) - triangles
    longest = (sides**2).sum(axis=2).max(axis=1)
    return np.asarray(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) > least * longest)


def _bounds(points: np.ndarray) -> np.ndarray:
    return np.stack([points.min(axis=0), points.max(axis=0)])


def sample_points(mesh: trimesh.Trimesh, n: int = 10_000, seed: int = 0) -> np.ndarray:
    """Return `n` points spread evenly over the surface, float32 (n, 3); MeshError: it has no area."""
    if not mesh.area > 0:
        raise MeshError("the mesh's surface has no area", fix="export it again")
    return np.asarray(trimesh.sample.sample_surface(mesh, n, seed=seed)[0], np.float32)


def voxelise(mesh: trimesh.Trimesh, size: int = VOXELS) -> np.ndarray:
    """Return the solid grid of a normalised mesh, bool (size, size, size) over the cube [-1, 1]³, axes x, y, z.

    A voxel is solid if the surface passes through it, or if one cannot walk to it from outside over the faces of empty
    voxels. Any mesh will do: holes narrower than a voxel are closed, and an open box stays a thin shell.
    """
    surface = np.zeros((size, size, size), bool)
    for points in _cover(mesh.vertices[mesh.faces], spacing=1 / size):  # half a voxel's side
        surface[tuple(np.floor((points + 1) * (size / 2)).astype(np.int32).clip(0, size - 1).T)] = True
    return ndimage.binary_fill_holes(surface)


def _cover(corners: np.ndarray, spacing: float) -> Iterator[np.ndarray]:
    """Yield points (n, 3) on triangles (F, 3, 3) and their borders, none farther than `spacing` from the next."""
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)  # (F,)
    steps = np.maximum(1, np.ceil(longest / spacing)).astype(int)
    for n in np.unique(steps):
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        i, j = i[i + j <= n], j[i + j <= n]
        weights = np.stack([n - i - j, i, j], axis=1) / n  # (K, 3) lattice of barycentric coordinates
        alike = corners[steps == n]
        for part in np.array_split(alike, math.ceil(len(alike) * len(weights) / 1_000_000)):
            yield np.einsum("kc,fcd->fkd", weights, part).reshape(-1, 3)


def pack_voxels(grid: np.ndarray) -> np.ndarray:
    """Pack a bool grid (size, size, size) into bits, uint8 (size³ / 8,)."""
    return np.packbits(grid)


def unpack_voxels(packed: np.ndarray, size: int = VOXELS) -> np.ndarray:
    """Undo `pack_voxels`: uint8 (size³ / 8,) to bool (size, size, size)."""
    return np.unpackbits(packed, count=size**3).reshape(size, size, size).astype(bool)


def voxel_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return intersection over union of two solid grids of one shape, in [0, 1]; two empty grids give 1."""
    if a.shape != b.shape:
        raise MeshError(f"grids of different shapes: {a.shape} and {b.shape}", fix="voxelise both at one size")
    a, b = a.astype(bool), b.astype(bool)
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def modified_hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    """Return ``(Σ_i min_j |a_i − b_j| + Σ_j min_i |a_i − b_j|) / (n + m)`` of point sets (n, 3) and (m, 3), as given.

    This is d_HAU of the released code, which first halves the coordinates of normalised shapes.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    to_b, to_a = cKDTree(b).query(a, workers=-1)[0], cKDTree(a).query(b, workers=-1)[0]
    return float((to_b.sum() + to_a.sum()) / (len(a) + len(b)))


def simplify(mesh: trimesh.Trimesh, faces: int, cell: float = 1 / 128) -> trimesh.Trimesh:
    """Return the mesh with about `faces` triangles, or its own if it has fewer; colours are carried over.

    Models from the web are heaps of loose parts, where edge collapse alone gets stuck or eats whole parts. So vertices
    that share a cube of side `cell` are merged first, then edges are collapsed (quadric error).
    """
    colors = face_colors(mesh)
    if len(mesh.faces) <= faces:
        return trimesh.Trimesh(mesh.vertices, mesh.faces, face_colors=colors, process=False)
    cube = np.unique(np.floor(mesh.vertices / cell), axis=0, return_inverse=True)[1].ravel()  # (V,)
    sums = [np.bincount(cube, weights=mesh.vertices[:, axis]) for axis in range(3)]
    corners = cube[mesh.faces]
    keep = np.flatnonzero((corners != np.roll(corners, 1, axis=1)).all(axis=1))  # the others became lines
    keep = keep[np.unique(np.sort(corners[keep], axis=1), axis=0, return_index=True)[1]]
    merged = trimesh.Trimesh(
        np.stack(sums, axis=1) / np.bincount(cube)[:, None], corners[keep], face_colors=colors[keep], process=False
    )
    if len(merged.faces) <= faces:
        return merged
    small = merged.simplify_quadric_decimation(face_count=faces, aggression=4)
    points, owner = trimesh.sample.sample_surface(merged, 20_000, seed=0)
    nearest = owner[cKDTree(points).query(small.triangles_center)[1]]
    return trimesh.Trimesh(small.vertices, small.faces, face_colors=colors[keep][nearest], process=False)


def export_glb(mesh: trimesh.Trimesh) -> bytes:
    """Return a normalised mesh as a small GLB: a part for each colour, no normals (viewers then shade faces flat).

    Coordinates are rounded to 1/2048 and colours to 16 levels, which compresses well and is hard to see.
    """
    levels = face_colors(mesh)[:, :3] // 16 * 17  # (F, 3)
    scene = trimesh.Scene()
    for i, color in enumerate(np.unique(levels, axis=0)):
        linear = np.rint(255 * (color / 255) ** GAMMA).astype(np.uint8)
        faces = mesh.faces[(levels == color).all(axis=1)]
        used, faces = np.unique(faces, return_inverse=True)
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=[*linear, 255], metallicFactor=0.0, roughnessFactor=0.8, doubleSided=True
        )
        part = trimesh.Trimesh(np.rint(mesh.vertices[used] * 2048) / 2048, faces.reshape(-1, 3), process=False)
        part.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(part, geom_name=str(i), node_name=str(i))
    return scene.export(file_type="glb", include_normals=False)
