"""What a photo shows, decided from numbers alone: seeds, camera, truncation, place of an occluder.

Nothing here needs Blender. World frame: +z up, the floor at z = 0, the model's front towards -y; the
object's bounding box is centred over the origin, its farthest vertex lies at distance 1 from the box's centre.
A photo is a function of (shape_id, k) alone, so that photos can be rendered in any order, by any number of
processes, and again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

SENSOR = 36.0  # mm, both sides of the square frame
GRID = 64  # cells of a frame's side where areas are estimated from surface samples
MIN_AREA = 0.045  # least visible share of the frame (the masks themselves must reach 0.04)
VISIBLE_SHARE = (0.52, 0.90)  # of the whole silhouette, in truncated and occluded photos


def rng_of(*key: object) -> np.random.Generator:
    """A generator that depends on nothing but the key: no order, no machine, no hash randomisation."""
    text = "|".join(str(k) for k in key)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class Plan:
    """Wishes for a photo. Angles in degrees; azimuth 0 looks at the front, 90 at the model's +x side."""

    kind: str  # whole | truncated | occluded
    restyled: bool
    azimuth: float
    elevation: float
    roll: float
    focal: float  # mm
    fill: float  # the longer side of the object's box, in frame sides
    offset: tuple[float, float]  # where in the free space of the frame the box sits, -1..1
    wall: float | None  # the wall's yaw against the line of sight, none without wall
    wall_gap: float


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at `target`, with its frame shifted sideways as in a crop of a larger photo."""

    position: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3) rows: right, up, forward
    focal: float
    distance: float
    shift: np.ndarray  # (2,) in frame sides, Blender's shift_x and shift_y

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3) to frame coordinates (n, 2), the frame being -0.5..0.5 with y up, and depths (n,)."""
        local = (points - self.position) @ self.axes.T
        depth = np.maximum(local[:, 2], 1e-6)
        return local[:, :2] / depth[:, None] * (self.focal / SENSOR) - self.shift, local[:, 2]


def draw_plan(shape_id: str, k: int, attempt: int = 0) -> Plan:
    """The plan of photo k of a shape. Further attempts change the view, never the kind or the style."""
    fixed, rng = rng_of(shape_id, k, "kind"), rng_of(shape_id, k, "view", attempt)
    u = fixed.random()
    kind = "truncated" if u < 0.1 else "occluded" if u < 0.2 else "whole"
    restyled = bool((fixed.integers(2) + k) % 2)
    return Plan(
        kind=kind,
        restyled=restyled,
        azimuth=float(rng.uniform(0, 360)),
        elevation=float(45 * rng.beta(1.5, 2.0)),
        roll=float(np.clip(rng.normal(0, 1.5), -4, 4)),
        focal=float(np.exp(rng.uniform(np.log(24), np.log(70)))),
        fill=float(rng.uniform(0.5, 0.85)),
        offset=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        wall=float(rng.uniform(-35, 35)) if rng.random() < 0.4 else None,
        wall_gap=float(rng.choice([0.03, 0.3, 1.0]) * rng.uniform(0.7, 1.5)),
    )


def look_at(azimuth: float, elevation: float, roll: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vector from the target to the camera, and the camera's axes (right, up, forward) as rows."""
    a, e, r = np.radians([azimuth, elevation, roll])
    towards = np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
    right = np.array([np.cos(a), np.sin(a), 0.0])
    up = np.cross(right, -towards)
    axes = np.stack([np.cos(r) * right + np.sin(r) * up, np.cos(r) * up - np.sin(r) * right, -towards])
    return towards, axes


def place_camera(plan: Plan, points: np.ndarray) -> Camera:
    """The camera that shows all points with the wished size at the wished place of the frame."""
    target = (points.min(0) + points.max(0)) / 2
    towards, axes = look_at(plan.azimuth, plan.elevation, plan.roll)
    near, far = 0.2 + ((points - target) @ towards).max(), 60.0
    few = points[::10] if len(points) > 10_000 else points
    for _ in range(16):  # the box only grows as the camera comes closer: bisect
        distance = (near * far) ** 0.5
        camera = Camera(target + distance * towards, axes, plan.focal, distance, np.zeros(2))
        xy, _ = camera.project(few)
        near, far = (distance, far) if np.ptp(xy, axis=0).max() > plan.fill else (near, distance)
    xy, _ = camera.project(points)
    low, high = xy.min(0), xy.max(0)
    free = np.maximum(0.0, (1 - (high - low)) / 2 - 0.03)
    return replace(camera, shift=(low + high) / 2 - np.array(plan.offset) * free)


def cells(xy: np.ndarray, reach: int = 1) -> np.ndarray:
    """Boolean grid of the cells that hold a point; the frame is the middle one of (2 reach - 1)² frames."""
    side = (2 * reach - 1) * GRID
    index = np.floor((xy + (reach - 0.5)) * GRID).astype(int)
    index = index[((index >= 0) & (index < side)).all(1)]
    grid = np.zeros((side, side), bool)
    grid[index[:, 1], index[:, 0]] = True
    return grid


def area(camera: Camera, points: np.ndarray) -> float:
    """Share of the frame that the object covers."""
    return float(cells(camera.project(points)[0]).mean())


def truncate(camera: Camera, points: np.ndarray, rng: np.random.Generator) -> tuple[Camera, float]:
    """Shift the frame until it cuts off a drawn share of the silhouette; (camera, share inside)."""
    wanted = rng.uniform(VISIBLE_SHARE[0] + 0.03, VISIBLE_SHARE[1] - 0.03)
    angle = rng.choice([0, 90, 180, 270]) + rng.uniform(-30, 30)
    direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    low, high, share = 0.0, 1.5, 1.0
    for _ in range(14):
        step = (low + high) / 2
        moved = replace(camera, shift=camera.shift + step * direction)
        xy, _ = moved.project(points)
        share = cells(xy).sum() / max(1, cells(xy, reach=3).sum())
        low, high = (step, high) if share > wanted else (low, step)
    return moved, float(share)


def rotate_z(points: np.ndarray, degrees: float) -> np.ndarray:
    """Turn points about the vertical."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T


@dataclass(frozen=True)
class Placement:
    """Where the occluder stands: scale, yaw in degrees, position on the floor."""

    scale: float
    yaw: float
    position: np.ndarray  # (3,)

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points of the occluder, moved to its place."""
        return rotate_z(points * self.scale, self.yaw) + self.position


def place_occluder(
    camera: Camera, points: np.ndarray, occluder: np.ndarray, rng: np.random.Generator, tries: int = 80
) -> tuple[Placement, float] | None:
    """Stand the occluder on the floor before the object so that it hides a part; (placement, share still visible).

    It touches neither the object nor the camera. None if no try hides the right share.
    """
    whole = cells(camera.project(points)[0])
    flat = np.array([*(-camera.axes[2][:2]), 0.0])
    flat /= np.linalg.norm(flat)
    side = np.array([-flat[1], flat[0], 0.0])
    front, width = (points @ flat).max(), np.abs(points @ side).max()
    for _ in range(tries):
        scale, yaw = rng.uniform(0.3, 1.1), rng.uniform(0, 360)
        turned = rotate_z(occluder * scale, yaw)
        ahead = front - (turned @ flat).min() + rng.uniform(0.02, 0.4)
        placement = Placement(scale, yaw, ahead * flat + rng.uniform(-1.2, 1.2) * (width + 0.1) * side)
        xy, depth = camera.project(placement.apply(occluder))
        if depth.min() < 0.25 * camera.distance:
            continue
        share = (whole & ~cells(xy)).sum() / max(1, whole.sum())
        if VISIBLE_SHARE[0] <= share <= VISIBLE_SHARE[1]:
            return placement, float(share)
    return None


def choose_camera(
    shape_id: str, k: int, points: np.ndarray, attempt: int = 0, tries: int = 25
) -> tuple[Plan, Camera, int]:
    """The first view, from `attempt` on, in which the object is large enough; the best view of a thin object."""
    best: tuple[float, Plan, Camera, int] | None = None
    for n in range(attempt, attempt + tries):
        plan = draw_plan(shape_id, k, n)
        if best is not None and n > attempt + tries // 2:
            plan = replace(plan, fill=0.9)  # a thin object: come closer
        camera = place_camera(plan, points)
        covered = area(camera, points)
        if best is None or covered > best[0]:
            best = covered, plan, camera, n
        if covered >= MIN_AREA:
            break
    assert best is not None
    return best[1:]


def repeated_faces(vertices: np.ndarray, starts: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Indices of polygons that lie exactly on an earlier one: both would shadow each other and come out black."""
    rounded = np.unique(np.round(vertices, 4), axis=0, return_inverse=True)[1].ravel()[corners]
    seen, repeated = set(), []
    for n, polygon in enumerate(np.split(rounded, starts[1:])):
        key = frozenset(polygon.tolist())
        repeated += [n] if key in seen else []
        seen.add(key)
    return np.array(repeated, int)
