"""Turn a gallery without photos into a benchmark whose photos are rendered; :mod:`.photo` renders one."""

import hashlib
from collections import defaultdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from ...benchmark import Benchmark
from ...benchmark.writer import BenchmarkWriter
from ...errors import MeshError, SourceError
from ...geometry import check_mesh
from ...io.files import read_json
from ...io.meshes import read_scene
from .. import DEFAULT, Prepared, PrepareOptions
from ..building import build
from ..own.crops import copy_gallery
from ..photos import Cut, PhotoFile
from ..pix3d.records import JSON_LIMIT
from .photo import Pose, render_photo

DISTANCE = (1.8, 4.5)
"""Of the camera, where the farthest vertex is at distance 1; three beds of Pix3D were taken from 2.2 to 2.3."""
MOST_ROLL = 15.0
"""Degrees; where an annotation says more, the photo stands on its side, and the renderer's camera stays upright."""
JITTER = 5.0  # degrees, the standard deviation added to an annotated azimuth and elevation
POSES = 100  # at most as many are drawn for one photo, until something of the shape is seen


def prepare_synthetic(
    gallery: str | Path,
    output: str | Path,
    options: PrepareOptions = DEFAULT,
    *,
    photos: int = 12,
    poses: str | Path | None = None,
    seed: int = 0,
) -> Prepared:
    """Render photos of every shape of a prepared benchmark, in its size, the last one of each shape for validation.

    ``photos`` of each shape, at least 2, are taken of the meshes of ``gallery``; photos that it has are not used. The
    cameras are drawn from the azimuths, elevations and rolls of the same category (of all, where it has none) in
    ``poses``, an annotation in Pix3D's format; without it the azimuth is uniform. Another ``seed`` gives other photos.
    Of ``options`` the jobs count. A shape that is seen from nowhere is a SourceError.
    """
    if photos < 2:
        raise SourceError(f"{photos} photos a shape are too few", fix="render at least two: one is for validation")
    shapes, known = Benchmark.open(gallery), read_poses(Path(poses)) if poses else {}
    digest = hashlib.sha256(b"".join(known[name].tobytes() for name in sorted(known))).hexdigest()[:12]
    writer = BenchmarkWriter(
        output, name=f"{shapes.name}-synthetic", source=f"rendered from the meshes of {shapes.name}",
        licence=str(shapes.meta["licence"]), size=shapes.size, protocol=shapes.protocol,
        extra={"gallery": shapes.hash, "photos": photos, "seed": seed, "poses": digest if known else ""},
    )  # fmt: skip
    with writer:
        copy_gallery(writer, shapes)
        queries = []
        everything = np.concatenate(list(known.values())) if known else None
        for shape_id, category in zip(shapes.shapes.shape_id, shapes.shapes.category, strict=True):
            cut, mesh = (
                partial(photograph, poses=known.get(category, everything), seed=seed),
                shapes.mesh_path(shape_id),
            )
            queries += [
                PhotoFile(
                    f"{shape_id}__{k:02d}", mesh, (shape_id,), category, "val" if k == photos - 1 else "train",
                    source="rendered", facts=k, also=(mesh,), cut=cut,
                )
                for k in range(photos)
            ]  # fmt: skip
        return build(writer, [], queries, options)


def photograph(photo: PhotoFile, size: int, poses: np.ndarray | None, seed: int) -> Cut:
    """Render a photo of the mesh that is its path; only seed, shape and the photo's number, its fact, decide on it.

    ``poses`` (n, 3) are as `draw_pose` takes them. A MeshError says that none of 100 poses shows anything of the mesh.
    """
    mesh = _mesh(photo.path, photo.path.stat().st_mtime_ns)
    digest = hashlib.sha256(f"{seed}/{photo.shape_ids[0]}/{photo.facts}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    for _ in range(POSES):
        try:
            image = render_photo(mesh, draw_pose(poses, rng), rng, size)
        except MeshError:  # a flat shape, from its edge
            continue
        return Cut(image, amodal=image[3])
    raise MeshError(f"not seen from any of {POSES} sides", path=photo.path, fix="leave this mesh out")


@lru_cache(maxsize=1)  # the photos of one mesh come one after the other
def _mesh(path: Path, changed: int) -> trimesh.Trimesh:
    mesh = read_scene(path, process=True).to_mesh()
    check_mesh(mesh, path)
    return mesh


def draw_pose(poses: np.ndarray | None, rng: np.random.Generator) -> Pose:
    """Draw a pose near one of ``poses`` (n, 3), azimuth, elevation and roll in degrees; None: from anywhere around."""
    distance = float(np.exp(rng.uniform(*np.log(DISTANCE))))
    if poses is None:
        return Pose(float(rng.uniform(0, 360)), float(45 * rng.beta(1.5, 2)), float(rng.normal(0, 3)), distance)
    azimuth, elevation, roll = poses[rng.integers(len(poses))]
    azimuth, elevation = azimuth + rng.normal(0, JITTER), np.clip(elevation + rng.normal(0, JITTER), -10, 85)
    roll = rng.choice([-1, 1]) * roll if abs(roll) < MOST_ROLL else 0.0
    return Pose(float(azimuth), float(elevation), float(roll), distance)


def read_poses(path: Path) -> dict[str, np.ndarray]:
    """Read where Pix3D's photos were taken from: category → (n, 3) azimuth, elevation and roll in degrees.

    Its azimuth is counted in the frame +x left, +z inward, ours in the frame +x right, +z to the front: the sign turns.
    """
    poses, fix = defaultdict[str, list[tuple[float, float, float]]](list), "give Pix3D's annotation"
    try:
        for entry in read_json(path, SourceError, fix, JSON_LIMIT):
            if pose := _pose(entry):
                poses[str(entry["category"])].append(pose)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise SourceError(f"this is not a list of records ({error})", path=path, fix=fix) from None
    if not poses:
        raise SourceError("no record has a pose", path=path, fix="give an annotation with cam_position or azimuth_deg")
    return {category: np.array(rows) for category, rows in poses.items()}


def _pose(entry: dict[str, Any]) -> tuple[float, float, float] | None:
    roll = np.degrees(float(entry.get("inplane_rotation") or 0.0))
    if entry.get("azimuth_deg") is not None:
        return -float(entry["azimuth_deg"]), float(entry["elevation_deg"]), roll
    if entry.get("cam_position"):
        x, y, z = map(float, entry["cam_position"])
        return -float(np.degrees(np.arctan2(x, -z))), float(np.degrees(np.arctan2(y, np.hypot(x, z)))), roll
    return None
