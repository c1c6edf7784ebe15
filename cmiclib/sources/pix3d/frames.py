"""Pix3D's voxel files, whose axes are not the meshes', and the meshes that are rebuilt from them.

Some copies of the models were simplified until their surfaces fell apart, and legs and covers are gone. Their voxel
files still hold the whole shape.
"""

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import trimesh
from scipy import io as scipy_io
from scipy import ndimage
from skimage.measure import marching_cubes

from ...errors import SourceError
from ...geometry import load_mesh, voxelise
from ...io.files import check_inside, read_limited

MAT_LIMIT = 64 << 20  # bytes of a voxel file, packed and unpacked: 128³ numbers of eight bytes are a quarter of it
COMPRESSED = 15  # MATLAB's number for a part that zlib packed
TORN = 0.6  # of the voxel file's volume: a surface that encloses less has fallen apart
SMOOTHING = 0.7  # voxels, before the surface of a grid is taken
NOTE = "rebuilt from its voxels"


def read_voxels(path: Path) -> np.ndarray:
    """Read ``voxel.mat`` into the library's frame, bool (128, 128, 128) over axes x to the right, y up, z to the front.

    The file's axes are x to the left, y to the front and z up. Its grid is fitted to the shape in its own way, so
    compare it with a grid of ours over the same box (`fitted_grid`).
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
    """Refuse a file of MATLAB 5 whose parts unpack to more than `MAT_LIMIT` bytes."""
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

    ``up`` and ``front`` must lead to our frame, as the voxels do. A rebuilt mesh is the surface of the voxels, slightly
    smoothed, in voxels; its ``metadata["note"]`` says so.
    """
    mesh, voxels = load_mesh(path, up, front), voxel_file(path)
    if not voxels.is_file():
        return mesh
    check_inside(voxels, voxels.parent, SourceError)
    grid = read_voxels(voxels)
    if fitted_grid(mesh).sum() >= TORN * grid.sum():
        return mesh
    soft = ndimage.gaussian_filter(np.pad(grid, 3).astype(np.float32), SMOOTHING)
    vertices, faces, _, _ = marching_cubes(soft, 0.5)
    return trimesh.Trimesh(vertices, faces[:, ::-1], process=False, metadata={"note": NOTE})
