"""Pix3D's two frames: the camera of a photo, and the voxel files, whose axes are not the meshes'.

And what a mesh is when its file is torn: some copies of the models were simplified until their surfaces fell apart,
legs and covers gone. Their voxel files still hold the whole shape.
"""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy import io as scipy_io
from scipy import ndimage
from skimage.measure import marching_cubes

from ...errors import SourceError
from ...geometry import load_mesh, voxelise
from ...geometry.rays import Rays
from ...io.files import check_inside, read_limited

MAT_LIMIT = 64 << 20
"""Bytes of a voxel file, packed and unpacked: 128³ numbers of eight bytes are a quarter of it."""
COMPRESSED = 15  # MATLAB's number for a part that zlib packed
SENSOR = 32.0  # mm; the annotated focal lengths belong to a sensor of this width
SAMPLES = 2  # rays a pixel and axis
TORN = 0.6  # of the voxel file's volume: a surface that encloses less has fallen apart
SMOOTHING = 0.7  # voxels, before the surface of a grid is taken
NOTE = "rebuilt from its voxels"


def silhouette(
    mesh: trimesh.Trimesh,  # in the frame of its file: +x left, +y up, +z inward
    rotation: np.ndarray,  # R (3, 3), rot_mat
    translation: np.ndarray,  # t (3,), trans_mat
    focal: float,  # in mm, focal_length
    size: tuple[int, int],  # W and H in pixels, img_size
) -> np.ndarray:
    """Return what a model covers in its photo, bool (H, W).

    A vertex v is seen at ``X = R v + t``, ``x = W/2 − f X₀/X₂``, ``y = H/2 − f X₁/X₂``, with ``f`` in pixels.
    """
    width, height = size
    pixels = focal / SENSOR * width
    x = width / 2 - (np.arange(width * SAMPLES) + 0.5) / SAMPLES
    y = height / 2 - (np.arange(height * SAMPLES) + 0.5) / SAMPLES
    across, along = np.meshgrid(x / pixels, y / pixels)
    camera = np.stack([across, along, np.ones_like(across)], axis=-1).reshape(-1, 3)
    rotation, translation = np.asarray(rotation, float), np.asarray(translation, float)
    directions = camera @ rotation  # rows: Rᵀ d
    origin = -rotation.T @ translation
    hit = Rays(mesh, seamless=False).faces(origin, directions) >= 0
    return hit.reshape(height, SAMPLES, width, SAMPLES).mean(axis=(1, 3)) >= 0.5


def record_silhouette(mesh: trimesh.Trimesh, entry: dict[str, Any]) -> np.ndarray:
    """Return `silhouette` for an entry of ``pix3d.json`` that holds a pose."""
    return silhouette(mesh, entry["rot_mat"], entry["trans_mat"], entry["focal_length"], tuple(entry["img_size"]))


def read_voxels(path: Path) -> np.ndarray:
    """Read ``voxel.mat`` into the library's frame, bool (128, 128, 128) over axes x to the right, y up, z to the front.

    The file's axes are x to the left, y to the front and z up. Its grid is fitted to the shape in its own way, so
    compare it with a grid of ours over the same box (`fitted_grid`).

    Raises:
        SourceError: no such file, or it holds no grid.
    """
    data = read_limited(path, MAT_LIMIT, SourceError)
    try:
        _check_mat(data)
        found = {name: (shape, kind) for name, shape, kind in scipy_io.whosmat(io.BytesIO(data))}
        shape, kind = found["voxel"]
        if math.prod(shape) > MAT_LIMIT or kind in ("cell", "struct", "object", "sparse", "function", "opaque"):
            raise ValueError(f"a {kind} of {shape}")
        held = scipy_io.loadmat(io.BytesIO(data), variable_names=["voxel"])  # noqa: TID251 (the one place)
        grid = np.asarray(held["voxel"]).astype(bool)
    except Exception as error:  # scipy's reader fails in many ways on damaged files
        raise SourceError(f"no voxels can be read ({error})", path=path, fix="unpack Pix3D again") from None
    if grid.ndim != 3 or len(set(grid.shape)) != 1:
        raise SourceError(f"a grid of {grid.shape} is not a cube", path=path, fix="unpack Pix3D again")
    return grid.transpose(0, 2, 1)[::-1]


def _check_mat(data: bytes) -> None:
    """Refuse a file of MATLAB 5 whose parts unpack to more than `MAT_LIMIT` bytes.

    Raises:
        ValueError, zlib.error, struct.error: it does, or is damaged.
    """
    order = "<" if data[126:128] == b"IM" else ">"
    place, left = 128, MAT_LIMIT
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind == COMPRESSED:
            left -= len(zlib.decompressobj().decompress(data[place + 8 : place + 8 + size], left))
            if left <= 0:
                raise ValueError(f"it unpacks to more than {MAT_LIMIT} bytes")
        place += 8 + size


def fitted_grid(mesh: trimesh.Trimesh) -> np.ndarray:
    """Return the solid grid of a mesh in our frame, bool (128, 128, 128), as long as the longest side of its box."""
    fitted = mesh.copy()
    fitted.apply_translation(-fitted.bounds.mean(axis=0))
    fitted.apply_scale(2 / np.ptp(fitted.bounds, axis=0).max())
    return voxelise(fitted)


def voxel_file(path: Path) -> Path:
    """Return where the voxels of ``model….obj`` lie: ``voxel….mat``."""
    return path.with_name(path.stem.replace("model", "voxel", 1) + ".mat")


def load_whole(path: Path, up: str, front: str) -> trimesh.Trimesh:
    """Read a model of Pix3D; where its surface is torn, and its voxel file is beside it, rebuild it from that.

    ``up`` and ``front`` must lead to our frame, as the voxels do. Where the mesh was rebuilt, its ``metadata["note"]``
    says so.

    Raises:
        MeshError, SourceError: mesh or voxels cannot be read.
    """
    mesh, voxels = load_mesh(path, up, front), voxel_file(path)
    if not voxels.is_file():
        return mesh
    check_inside(voxels, voxels.parent, SourceError)
    grid = read_voxels(voxels)
    return rebuild(grid) if fitted_grid(mesh).sum() < TORN * grid.sum() else mesh


def rebuild(grid: np.ndarray) -> trimesh.Trimesh:
    """Return the surface of a solid grid, slightly smoothed, in voxels; ``metadata["note"]`` says where it is from."""
    soft = ndimage.gaussian_filter(np.pad(grid, 3).astype(np.float32), SMOOTHING)
    vertices, faces, _, _ = marching_cubes(soft, 0.5)
    return trimesh.Trimesh(vertices, faces[:, ::-1], process=False, metadata={"note": NOTE})
