"""Twelve grayscale views of a mesh by ray casting on the CPU: no display, no OpenGL, same bytes every time."""

from functools import lru_cache

import numpy as np
import trimesh
from pydantic import BaseModel, ConfigDict

from ..errors import MeshError
from .rays import Rays

# The light moves with the camera, above its left shoulder: in camera axes (right, up, towards the camera).
# From there top, left and right side of a box differ by more than 40 grays at every azimuth of the protocol.
_LIGHT = np.array([-0.6, 1.0, 1.0]) / np.linalg.norm([-0.6, 1.0, 1.0])
_DARKEST, _LIGHTEST = 30, 215  # of a surface: never as white as the background


class ViewProtocol(BaseModel):
    """How views are made; written into `benchmark.json`, because scores across two protocols mean nothing.

    The image size is no part of it: a model resizes what it is given.

    Attributes:
        azimuths: degrees; 0 looks at the front (+z), 90 at the side that faces +x.
        elevation: degrees above the horizon.
        fov: field of view in degrees, the same across and down.
        background: gray value around the shape.
        samples: rays a pixel and axis, averaged.
        frame: how the mesh was normalised, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    azimuths: tuple[float, ...] = tuple(range(0, 360, 30))
    elevation: float = 20.0
    fov: float = 30.0
    background: int = 255
    samples: int = 2
    frame: str = "bounding box centred at the origin, farthest vertex at distance 1, +y up, front towards +z"

    @property
    def distance(self) -> float:
        """Distance of the camera from the origin: the unit sphere just touches the borders of the image."""
        return float(1 / np.sin(np.radians(self.fov) / 2))


def camera(azimuth: float, protocol: ViewProtocol | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera's place (3,) and its axes (3, 3) as rows: right, up, back (from the origin to it).

    Args:
        azimuth: degrees about +y; the camera stands at (sin, ·, cos), so 0 is in front and 90 at +x.
        protocol: gives elevation and distance.
    """
    protocol = protocol or ViewProtocol()
    a, e = np.radians(azimuth), np.radians(protocol.elevation)
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    return back * protocol.distance, np.stack([right, np.cross(back, right), back])


def project(points: np.ndarray, azimuth: float, size: int, protocol: ViewProtocol | None = None) -> np.ndarray:
    """Return where points (n, 3) fall in a view: pixel coordinates (n, 2), x to the right, y down.

    The image covers [0, size]², so the centre of the top left pixel is at (0.5, 0.5).
    """
    protocol = protocol or ViewProtocol()
    origin, axes = camera(azimuth, protocol)
    right, up, back = ((points - origin) @ axes.T).T
    scale = size / 2 / np.tan(np.radians(protocol.fov) / 2)
    return np.stack([size / 2 + scale * right / -back, size / 2 - scale * up / -back], axis=1)


def render_views(mesh: trimesh.Trimesh, size: int = 128, protocol: ViewProtocol | None = None) -> np.ndarray:
    """Render a normalised mesh from all azimuths of the protocol.

    Flat shading, seen from both sides: a face's gray is 30 + 185·((1 + c)/2)², c the cosine of its angle to the
    light, so that no side is so dark that its details drown; colours and textures are not used. What every ray
    misses has the background's gray.

    Args:
        mesh: as `geometry.normalise` returns it.
        size: side S in pixels.
        protocol: default: the protocol of this library's benchmarks.

    Returns:
        uint8 (12, S, S), the same bytes every time.

    Raises:
        MeshError: the mesh has no faces, or reaches beyond the unit sphere.
    """
    protocol = protocol or ViewProtocol()
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
        gray = np.append(_face_grays(normals, mesh.triangles_center, origin, axes), protocol.background)
        samples = gray[hit].reshape(size, protocol.samples, size, protocol.samples)  # -1 takes the last
        views[i] = np.rint(samples.mean(axis=(1, 3)))
    return views


def _face_grays(normals: np.ndarray, centres: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Whole-numbered gray of each face (F,), so that rounding errors of a ray cannot show."""
    towards = np.einsum("fc,fc->f", normals, origin - centres)
    lit = (normals @ (_LIGHT @ axes)) * np.where(towards < 0, -1, 1)  # the side that the camera sees
    return np.rint(_DARKEST + (_LIGHTEST - _DARKEST) * ((1 + lit) / 2) ** 2)


@lru_cache(maxsize=4)
def _camera_rays(size: int, samples: int, fov: float) -> np.ndarray:
    """Unit directions through the centres of all subpixels, camera axes, rows from top to bottom."""
    n = size * samples
    step = ((np.arange(n) + 0.5) / n * 2 - 1) * np.tan(np.radians(fov) / 2)
    x, y = np.meshgrid(step, -step)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
