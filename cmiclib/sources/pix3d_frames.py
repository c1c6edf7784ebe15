"""Pix3D's two frames: the camera of a photo, and the voxel files, whose axes are not the meshes'."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ..errors import SourceError

SENSOR = 32.0  # mm; the annotated focal lengths belong to a sensor of this width
SAMPLES = 2  # rays a pixel and axis


def silhouette(
    mesh: trimesh.Trimesh, rotation: np.ndarray, translation: np.ndarray, focal: float, size: tuple[int, int]
) -> np.ndarray:
    """Return what a model covers in its photo, bool (H, W).

    A vertex v is seen at ``X = R v + t``, ``x = W/2 − f X₀/X₂``, ``y = H/2 − f X₁/X₂``, with ``f`` in pixels.

    Args:
        mesh: in the frame of its file: +x left, +y up, +z inward.
        rotation: R (3, 3), ``rot_mat``.
        translation: t (3,), ``trans_mat``.
        focal: in mm, ``focal_length``.
        size: W and H in pixels, ``img_size``.
    """
    width, height = size
    pixels = focal / SENSOR * width
    x = width / 2 - (np.arange(width * SAMPLES) + 0.5) / SAMPLES
    y = height / 2 - (np.arange(height * SAMPLES) + 0.5) / SAMPLES
    across, along = np.meshgrid(x / pixels, y / pixels)
    camera = np.stack([across, along, np.ones_like(across)], axis=-1).reshape(-1, 3)
    rotation, translation = np.asarray(rotation, float), np.asarray(translation, float)
    directions = np.ascontiguousarray(camera @ rotation, np.float32)  # rows: Rᵀ d
    origin = -rotation.T @ translation
    scene = EmbreeScene()
    TriangleMesh(scene, mesh.triangles.astype(np.float32))
    hit = scene.run(np.broadcast_to(origin.astype(np.float32), directions.shape).copy(), directions) >= 0
    return hit.reshape(height, SAMPLES, width, SAMPLES).mean(axis=(1, 3)) >= 0.5


def record_silhouette(mesh: trimesh.Trimesh, entry: dict[str, Any]) -> np.ndarray:
    """Return `silhouette` for an entry of ``pix3d.json`` that holds a pose."""
    return silhouette(mesh, entry["rot_mat"], entry["trans_mat"], entry["focal_length"], tuple(entry["img_size"]))


def read_voxels(path: Path) -> np.ndarray:
    """Read ``voxel.mat`` into the library's frame, bool (128, 128, 128) over axes x to the right, y up, z to the front.

    The file's axes are x to the left, y to the front and z up. Its grid is fitted to the shape in its own way, so
    compare it with a grid of ours over the same box (`fitted`).

    Raises:
        SourceError: no such file, or it holds no grid.
    """
    try:
        grid = np.asarray(loadmat(path)["voxel"]).astype(bool)
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MatReadError) as error:
        raise SourceError(f"no voxels can be read ({error})", path=path, fix="unpack Pix3D again") from None
    if grid.ndim != 3 or len(set(grid.shape)) != 1:
        raise SourceError(f"a grid of {grid.shape} is no cube", path=path, fix="unpack Pix3D again")
    return grid.transpose(0, 2, 1)[::-1]
