"""Turn a gallery without photos into a benchmark whose photos are rendered; :mod:`.photo` renders one."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh

from ...benchmark import Benchmark
from ...benchmark.writer import BenchmarkWriter
from ...errors import CMICError, MeshError, SourceError
from ...geometry import check_mesh
from ...io.files import read_json
from ...io.meshes import read_scene
from ..own.crops import copy_gallery
from ..pix3d.records import JSON_LIMIT
from ..workers import results
from .photo import Pose, render_photo

DISTANCE = (1.8, 4.5)
"""Of the camera, where the farthest vertex is at distance 1; three beds of Pix3D were taken from 2.2 to 2.3."""
MOST_ROLL = 15.0
"""Degrees; where an annotation says more, the photo stands on its side, and the renderer's camera stays upright."""
JITTER = 5.0
"""Degrees, the standard deviation added to an annotated azimuth and elevation."""
POSES = 100
"""That are drawn for one photo, until something of the shape is seen."""
Poses = dict[str, np.ndarray]


def prepare_synthetic(
    gallery: str | Path,
    output: str | Path,
    *,
    photos: int = 12,
    poses: str | Path | None = None,
    seed: int = 0,
    jobs: int = 2,
    progress: bool = True,
) -> Benchmark:
    """Render photos of every shape of a prepared benchmark, the last one of each shape for validation.

    The photos of the given benchmark, if it has any, are not looked at.

    Args:
        gallery: the prepared benchmark; its meshes are photographed.
        output: the folder to write; it must not exist yet.
        photos: of each shape, at least 2.
        poses: an annotation in Pix3D's format, from whose azimuths, elevations and rolls of the same category (of all,
            where it has none) the cameras are drawn; without it the azimuth is uniform.
        seed: another number gives other photos.
        jobs: processes.
        progress: show a bar.

    Raises:
        SourceError: fewer than two photos, or the annotation cannot be used.
        BenchmarkError, MissingArrayError: the gallery cannot be opened, or has no meshes.
        StorageError: no space; nothing half-written stays.
    """
    if photos < 2:
        raise SourceError(f"{photos} photos a shape are too few", fix="render at least two: one is for validation")
    shapes, known = Benchmark.open(gallery), read_poses(Path(poses)) if poses else {}
    writer = BenchmarkWriter(
        Path(output), name=f"{shapes.name}-synthetic", source=f"rendered from the meshes of {shapes.name}",
        licence=str(shapes.meta["licence"]), size=shapes.size, protocol=shapes.protocol,
        extra={"gallery": shapes.hash, "photos": photos, "seed": seed, "poses": _digest(known)},
    )  # fmt: skip
    copy_gallery(writer, shapes)
    todo = [
        Subject(shape_id, category, shapes.mesh_path(shape_id), _of_category(known, category))
        for shape_id, category in zip(shapes.shapes.shape_id, shapes.shapes.category, strict=True)
        if not writer.has_query(_query_id(shape_id, photos - 1))
    ]
    render = partial(photograph, photos=photos, size=shapes.size, seed=seed)
    with results(render, todo, jobs=jobs, what="shapes", progress=progress) as rendered:
        for subject, images in rendered:
            if isinstance(images, CMICError):
                raise images
            for k, image in enumerate(images):
                if not writer.has_query(query_id := _query_id(subject.shape_id, k)):
                    split = "val" if k == photos - 1 else "train"
                    writer.add_query(
                        query_id, subject.shape_id, subject.category, image, split=split, source="rendered",
                        amodal=image[3],
                    )  # fmt: skip
    return writer.finish()


class Subject(NamedTuple):
    """A shape that is photographed, and the poses of its category, (n, 3) as `draw_pose` takes them."""

    shape_id: str
    category: str
    mesh: Path
    poses: np.ndarray | None


def photograph(subject: Subject, photos: int, size: int, seed: int) -> np.ndarray:
    """Return photos of a shape, uint8 (photos, 4, size, size); each depends on seed, shape and its number only."""
    mesh = read_scene(subject.mesh, process=True).to_mesh()
    check_mesh(mesh, subject.mesh)
    images = []
    for k in range(photos):
        rng = np.random.default_rng(
            int.from_bytes(hashlib.sha256(f"{seed}/{subject.shape_id}/{k}".encode()).digest()[:8], "big")
        )
        images.append(_in_view(mesh, subject, rng, size))
    return np.stack(images)


def _in_view(mesh: trimesh.Trimesh, subject: Subject, rng: np.random.Generator, size: int) -> np.ndarray:
    for _ in range(POSES):
        try:
            return render_photo(mesh, draw_pose(subject.poses, rng), rng, size)
        except MeshError:  # a flat shape, from its edge
            continue
    raise MeshError(f"not seen from any of {POSES} sides", path=subject.mesh, fix="leave this mesh out")


def draw_pose(poses: np.ndarray | None, rng: np.random.Generator) -> Pose:
    """Draw a pose near one of ``poses`` (n, 3), azimuth, elevation and roll in degrees; None: from anywhere around."""
    distance = float(np.exp(rng.uniform(*np.log(DISTANCE))))
    if poses is None:
        return Pose(float(rng.uniform(0, 360)), float(45 * rng.beta(1.5, 2)), float(rng.normal(0, 3)), distance)
    azimuth, elevation, roll = poses[rng.integers(len(poses))]
    azimuth, elevation = azimuth + rng.normal(0, JITTER), np.clip(elevation + rng.normal(0, JITTER), -10, 85)
    roll = rng.choice([-1, 1]) * roll if abs(roll) < MOST_ROLL else 0.0
    return Pose(float(azimuth), float(elevation), float(roll), distance)


def read_poses(path: Path) -> Poses:
    """Read where Pix3D's photos were taken from.

    Its azimuth is counted in the frame +x left, +z inward, ours in the frame +x right, +z to the front: the sign turns.

    Returns:
        Category → (n, 3) azimuth, elevation and roll in degrees.

    Raises:
        SourceError: no such file, or none of its records has a pose.
    """
    poses: dict[str, list[tuple[float, float, float]]] = {}
    try:
        for entry in read_json(path, SourceError, "give Pix3D's annotation", JSON_LIMIT):
            if pose := _pose(entry):
                poses.setdefault(str(entry["category"]), []).append(pose)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise SourceError(f"this is no list of records ({error})", path=path, fix="give Pix3D's annotation") from None
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


def _of_category(poses: Poses, category: str) -> np.ndarray | None:
    everything = np.concatenate(list(poses.values())) if poses else None
    return poses.get(category, everything)  # type: ignore[arg-type]


def _query_id(shape_id: str, k: int) -> str:
    return f"{shape_id}__{k:02d}"


def _digest(poses: Poses) -> str:
    return hashlib.sha256(b"".join(poses[name].tobytes() for name in sorted(poses))).hexdigest()[:12] if poses else ""
