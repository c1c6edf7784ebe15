"""Practice photos of a mesh by ray casting: random materials, light, surroundings and camera quality.

They are for galleries whose shapes nobody has photographed. Nothing is path-traced: light is a dome with ambient
occlusion and up to three lamps with hard shadows, which takes about a fifth of a second and needs no renderer. What a
photo shows is random, but a function of the generator that it is given.
"""

import io
from typing import NamedTuple

import numpy as np
import trimesh
from PIL import Image, ImageFilter
from scipy import ndimage

from ...errors import MeshError
from ...geometry import GAMMA
from ...geometry.rays import Rays
from ...geometry.render import camera_axes
from ...io.images import square_crop
from .materials import draw_material, texture

SUBPIXELS = 2
DOME_RAYS = 8
FLOOR = 30.0  # half its side; the shape's farthest vertex is at distance 1
SURROUNDINGS = 0.25  # of the silhouette's sides, how much beyond it a photo can show
CUT_SHARE, MOST_CUT = 1 / 10, 0.2
MOST_THINGS = 30
_OFFSET = 1e-3  # of a secondary ray's start from its surface


class Pose(NamedTuple):
    """Where a photo is taken from; angles in degrees."""

    azimuth: float  # 0 looks at the front (+z), 90 at the side that faces +x, as in cmiclib.geometry.render
    elevation: float  # above the horizon
    roll: float = 0.0  # of the camera about its line of sight
    distance: float = 3.0  # from the origin, where the shape's farthest vertex is at distance 1


def render_photo(
    mesh: trimesh.Trimesh, pose: Pose, rng: np.random.Generator, size: int = 224, margin: float = 0.1
) -> np.ndarray:
    """Render a normalised mesh as a query, uint8 (4, S, S): RGB, and the mask of the whole shape.

    It is cut out as `cmiclib.io.images.square_crop` does, ``margin`` being the share of the silhouette's longer side
    that is added on each side. ``rng`` decides all but the pose. A MeshError says that nothing of the shape is seen, as
    of a flat one from the side.
    """
    scale = size * SUBPIXELS
    origin, directions = camera_rays(mesh, pose, scale, SURROUNDINGS)  # (3,), (R, 3)
    world, part = furnish(mesh, rng)
    scene, normals = Rays(world, seamless=False), world.face_normals
    face, distance = scene.hits(origin, directions)
    solid = face >= 0
    points = origin + directions * distance[:, None]
    normal = np.where(solid[:, None], normals[face], 0)
    normal *= np.where(np.einsum("rc,rc->r", normal, directions) > 0, -1, 1)[:, None]  # towards the camera

    base, gloss = _paint(part, face, points, rng)
    light, shine = _light(scene, points, normal, directions, solid, gloss, scale, rng)
    linear = np.where(solid[:, None], base * light + shine, _wall(directions, rng))
    whole = Rays(mesh, seamless=False).faces(origin, directions) >= 0  # what stands in front is in the mask as well
    picture = develop(linear.reshape(size, SUBPIXELS, size, SUBPIXELS, 3).mean(axis=(1, 3)), rng)
    mask = whole.reshape(size, SUBPIXELS, size, SUBPIXELS).mean(axis=(1, 3)) >= 0.5
    if not mask.any():
        raise MeshError("nothing of it is seen from there", fix="take another pose")
    left, top, right, bottom = draw_window(mask, rng)
    return square_crop(picture[top:bottom, left:right], mask[top:bottom, left:right], margin=margin, size=size)


def draw_window(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw what the photo's frame holds, x0, y0, x1, y1, of a mask bool (H, W) of what the shape covers.

    Each side lies somewhere beyond the shape; one in ten cuts off up to a fifth.
    """
    edges = []
    for axis in (0, 1):
        covered = np.flatnonzero(mask.any(axis=axis))  # columns first
        low, high, length = covered[0], covered[-1] + 1, mask.shape[1 - axis]
        out = np.where(rng.random(2) < CUT_SHARE, -rng.uniform(0, MOST_CUT, 2), rng.uniform(0, SURROUNDINGS, 2))
        out = np.rint(out * (high - low)).astype(int)
        edges.append((max(low - out[0], 0), min(max(high + out[1], low - out[0] + 1), length)))
    (x0, x1), (y0, y1) = edges
    return (x0, y0, x1, y1) if mask[y0:y1, x0:x1].any() else (0, 0, mask.shape[1], mask.shape[0])


def furnish(mesh: trimesh.Trimesh, rng: np.random.Generator) -> tuple[trimesh.Trimesh, np.ndarray]:
    """Put a mesh on a floor, and in two thirds of the cases put things on whatever it has that faces upwards.

    Return the scene, and for each of its faces (F,) a number: 0 is the floor, -1, -2, … are the things, and the mesh's
    loose parts are counted from 1.
    """
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)  # so that no colours need to fit together
    merged = bare.copy()
    merged.merge_vertices()
    loose = trimesh.graph.connected_component_labels(merged.face_adjacency, node_count=len(mesh.faces))
    height = mesh.bounds[0, 1] - 1e-3
    corners = np.array([(x, height, z) for x in (-FLOOR, FLOOR) for z in (-FLOOR, FLOOR)])
    ground = trimesh.Trimesh(corners, [(0, 1, 2), (1, 3, 2)], process=False)
    things = [_thing(place, rng) for place in _places(mesh, rng)]
    parts = [1 + loose, np.zeros(2, int), *(np.full(len(thing.faces), -1 - i) for i, thing in enumerate(things))]
    pieces = [bare, ground, *things]
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts[:-1], strict=True)])
    scene = trimesh.Trimesh(np.concatenate([piece.vertices for piece in pieces]), faces, process=False)
    return scene, np.concatenate(parts)


def _places(mesh: trimesh.Trimesh, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 3) on faces that look upwards; none in a third of the cases."""
    upward = np.flatnonzero(np.abs(mesh.face_normals[:, 1]) > 0.8)
    if rng.random() < 1 / 3 or len(upward) == 0:
        return np.zeros((0, 3))
    area = mesh.area_faces[upward]
    chosen = upward[rng.choice(len(upward), size=rng.integers(1, MOST_THINGS), p=area / area.sum())]
    weights = rng.dirichlet((1, 1, 1), len(chosen))
    return np.einsum("nk,nkc->nc", weights, mesh.triangles[chosen])


def _thing(place: np.ndarray, rng: np.random.Generator) -> trimesh.Trimesh:
    """A box like a book or a ball like a cushion that stands on a place."""
    extents = np.exp(rng.uniform(np.log(0.03), np.log(0.3), 3))
    ball = rng.random() < 0.25
    thing = trimesh.creation.icosphere(2).apply_scale(extents) if ball else trimesh.creation.box(extents)
    thing.apply_transform(trimesh.transformations.rotation_matrix(rng.uniform(0, np.pi), (0, 1, 0)))
    thing.apply_translation(place - (0, thing.bounds[0, 1], 0))
    return thing


def camera_rays(mesh: trimesh.Trimesh, pose: Pose, side: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera's place (3,) and unit directions (side², 3) of a square that just holds the mesh."""
    (right, up, back), r = camera_axes(pose.azimuth, pose.elevation), np.radians(pose.roll)
    right, up = np.cos(r) * right + np.sin(r) * up, np.cos(r) * up - np.sin(r) * right
    origin = back * pose.distance
    local = (mesh.vertices - origin) @ np.stack([right, up, -back]).T  # (n, 3)
    flat = local[:, :2] / np.maximum(local[:, 2:], 0.05)
    low, high = flat.min(axis=0), flat.max(axis=0)
    half = (high - low).max() * (0.5 + margin)
    steps = ((np.arange(side) + 0.5) / side * 2 - 1) * half
    x, y = np.meshgrid((low[0] + high[0]) / 2 + steps, (low[1] + high[1]) / 2 - steps)
    directions = x.reshape(-1, 1) * right + y.reshape(-1, 1) * up - back
    return origin, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _paint(
    part: np.ndarray, face: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour (R, 3) and gloss (R,) of each hit; loose parts of the shape share one to three materials.

    ``part`` (F,) counts the parts of faces as `furnish` does, ``face`` (R,) is the face of each hit, -1 where there is
    none, and ``points`` (R, 3) are the hits.
    """
    own, others = rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]), 4  # materials of the shape, of the things
    materials = [draw_material(rng) for _ in range(own + others + 1)]  # the last one is the floor's
    of_part, of_thing = rng.integers(own, size=part.max() + 1), rng.integers(others, size=1 - part.min())
    chosen = np.where(part > 0, of_part[part.clip(0)], own + of_thing[(-part).clip(0)])  # (F,)
    chosen[part == 0] = own + others
    color, gloss = np.zeros_like(points), np.zeros(len(points))
    for i, material in enumerate(materials):
        rows = np.flatnonzero((face >= 0) & (chosen[face] == i))
        mix = texture(points[rows], material, rng)[:, None]
        color[rows] = (1 - mix) * material.color + mix * material.second
        gloss[rows] = material.gloss
    return color, gloss


def _light(
    scene: Rays, points: np.ndarray, normal: np.ndarray, directions: np.ndarray, solid: np.ndarray, gloss: np.ndarray,
    side: int, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return what multiplies a surface's colour (R, 3), and the highlights that are added (R, 3)."""
    rows = np.flatnonzero(solid)
    start = points[rows] + _OFFSET * normal[rows]
    dome = rng.uniform(0.35, 1.0)
    above, below = (_tint(rng) for _ in range(2))
    upward = (1 + normal[rows, 1:2]) / 2
    sky = dome * _open_sky(scene, start, normal[rows], solid, side, rng)[:, None]
    diffuse = sky * (upward * above + (1 - upward) * 0.5 * below)
    shine = np.zeros_like(diffuse)
    for _ in range(rng.integers(1, 4)):
        lamp = rng.normal(size=3)  # somewhere above
        lamp[1] = abs(lamp[1]) + 0.3
        lamp /= np.linalg.norm(lamp)
        lit = np.maximum(normal[rows] @ lamp, 0) * ~scene.blocked(start, np.broadcast_to(lamp, start.shape))
        strength = rng.uniform(0.2, 1.0) * _tint(rng)
        diffuse += lit[:, None] * strength
        half = lamp - directions[rows]
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        peak = np.maximum(np.einsum("rc,rc->r", normal[rows], half), 0) ** 30
        shine += (gloss[rows] * peak * (lit > 0))[:, None] * strength
    light, added = np.zeros((2, len(points), 3))
    light[rows], added[rows] = diffuse, shine
    return light, added


def _open_sky(
    scene: Rays, start: np.ndarray, normal: np.ndarray, solid: np.ndarray, side: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the share (n,) of the dome that each point sees; one subpixel of four asks, its neighbours smooth it."""
    asking = np.zeros((side, side), bool)
    asking[::SUBPIXELS, ::SUBPIXELS] = True
    rows = np.flatnonzero(asking.reshape(-1)[np.flatnonzero(solid)])
    towards = rng.normal(size=(DOME_RAYS, len(rows), 3))
    towards /= np.linalg.norm(towards, axis=2, keepdims=True)
    towards += normal[rows]  # cosine-weighted about the normal
    free = ~scene.blocked(np.tile(start[rows], (DOME_RAYS, 1)), towards.reshape(-1, 3))
    seen = np.zeros((2, side * side))
    seen[:, np.flatnonzero(solid)[rows]] = free.reshape(DOME_RAYS, -1).mean(axis=0), np.ones(len(rows))
    total, weight = (ndimage.gaussian_filter(part.reshape(side, side), SUBPIXELS).reshape(-1) for part in seen)
    return (total / np.maximum(weight, 1e-9))[solid]


def _tint(rng: np.random.Generator) -> np.ndarray:
    """A nearly white colour (3,)."""
    return 1 + 0.12 * rng.uniform(-1, 1) * np.array([1.0, 0.1, -1.0])


def _wall(directions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours (R, 3) behind everything: a wall with a pattern and a gradient, or nearly white."""
    if rng.random() < 0.25:
        return np.full_like(directions, rng.uniform(0.8, 1.2))
    material = draw_material(rng)
    mix = texture(directions * rng.uniform(1, 4), material, rng)[:, None]
    slope = 1 + rng.uniform(-0.6, 0.6) * directions[:, :1] + rng.uniform(-0.6, 0.6) * directions[:, 1:2]
    return ((1 - mix) * material.color + mix * material.second) * slope


def develop(linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn linear light (S, S, 3) into a photo uint8 (S, S, 3): exposure, contrast, blur, noise, JPEG."""
    exposed = linear * rng.uniform(0.7, 1.2) / max(float(np.quantile(linear, 0.9)), 1e-3)
    curve = np.clip(exposed, 0, 1) ** (rng.uniform(0.85, 1.2) / GAMMA)
    noisy = curve + rng.normal(0, rng.choice([0.0, 0.01, 0.02]), curve.shape)
    image = Image.fromarray(np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.choice([0.0, 0.5, 1.0], p=[0.5, 0.3, 0.2]))))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(50, 95)))
    return np.asarray(Image.open(file))  # noqa: TID251 (drawn here)
