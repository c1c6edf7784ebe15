"""Twelve grayscale views of a mesh by ray casting on the CPU: no display, no OpenGL, same bytes every time."""

from functools import lru_cache

import numpy as np
import trimesh

from ..errors import MeshError
from ..io.protocol import PROTOCOL, ViewProtocol
from .rays import Rays

# The light moves with the camera, above its left shoulder: in camera axes (right, up, towards the camera).
# From there top, left and right side of a box differ by more than 40 grays at every azimuth of the protocol.
_LIGHT = np.array([-0.6, 1.0, 1.0]) / np.linalg.norm([-0.6, 1.0, 1.0])
_DARKEST, _LIGHTEST = 30, 215  # of a surface: never as white as the background


def camera(azimuth: float, protocol: ViewProtocol = PROTOCOL) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera's place (3,) and its `camera_axes`."""
    axes = camera_axes(azimuth, protocol.elevation)
    return axes[2] * protocol.distance, axes


def camera_axes(azimuth: float, elevation: float) -> np.ndarray:
    """Return a camera's axes (3, 3) as rows: right, up, back (from the origin to it); angles are in degrees.

    The camera stands at (sin, ·, cos) of the azimuth, so 0 is in front and 90 at +x.
    """
    a, e = np.radians(azimuth), np.radians(elevation)
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    return np.stack([right, np.cross(back, right), back])


def project(points: np.ndarray, azimuth: float, size: int, protocol: ViewProtocol = PROTOCOL) -> np.ndarray:
    """Return where points (n, 3) fall in a view: pixel coordinates (n, 2), x to the right, y down.

    The image covers [0, size]², so the centre of the top left pixel is at (0.5, 0.5).
    """
    origin, axes = camera(azimuth, protocol)
    right, up, back = ((points - origin) @ axes.T).T
    scale = size / 2 / np.tan(np.radians(protocol.fov) / 2)
    return np.stack([size / 2 + scale * right / -back, size / 2 - scale * up / -back], axis=1)


def render_views(mesh: trimesh.Trimesh, size: int = 128, protocol: ViewProtocol = PROTOCOL) -> np.ndarray:
    """Render a normalised mesh from all azimuths of the protocol.

    Returns uint8 (12, S, S), the same bytes every time. Faces are flat and seen from both sides. A face's gray is
    30 + 185·((1 + c)/2)², with c the cosine of its angle to the light, so that details stay visible on the dark sides;
    colours and textures are not used. A mesh without faces, or beyond the unit sphere, is a MeshError.
    """
    if len(mesh.faces) == 0:
        raise MeshError("the mesh has no faces", fix="export it with triangles or polygons")
    if not np.linalg.norm(mesh.triangles, axis=-1).max() < 1.001:
        raise MeshError("the mesh reaches beyond the unit sphere", fix="call geometry.normalise first")
    scene, normals = Rays(mesh), mesh.face_normals  # (F, 3)
    pixels = _camera_rays(size, protocol.samples, protocol.fov)  # (S·S·k², 3)

    views = np.empty((len(protocol.azimuths), size, size), np.uint8)
    for i, azimuth in enumerate(protocol.azimuths):
        origin, axes = camera(azimuth, protocol)
        hit = scene.faces(origin, pixels @ axes)
        towards = np.einsum("fc,fc->f", normals, origin - mesh.triangles_center)
        lit = (normals @ (_LIGHT @ axes)) * np.where(towards < 0, -1, 1)  # (F,) of the side that the camera sees
        gray = np.rint(_DARKEST + (_LIGHTEST - _DARKEST) * ((1 + lit) / 2) ** 2)  # hides rounding errors of a ray
        gray = np.append(gray, protocol.background)
        samples = gray[hit].reshape(size, protocol.samples, size, protocol.samples)  # -1 takes the last
        views[i] = np.rint(samples.mean(axis=(1, 3)))
    return views


@lru_cache(maxsize=4)
def _camera_rays(size: int, samples: int, fov: float) -> np.ndarray:
    """Unit directions through the centres of all subpixels, camera axes, rows from top to bottom."""
    n = size * samples
    step = ((np.arange(n) + 0.5) / n * 2 - 1) * np.tan(np.radians(fov) / 2)
    x, y = np.meshgrid(step, -step)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
