"""Photos of cars with annotated poses to queries: the mask is the silhouette of the posed model; parallel by model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ...benchmark.writer import BenchmarkWriter
from ...errors import CMICError, SourceError
from ...geometry import load_mesh
from ...geometry.rays import Rays
from ...io.images import read_photo, square_crop
from ..meshes import listed
from ..workers import attempt, results
from .camera import Pose, silhouette

FINEST = 3
"""Photos wider than so many crops are made smaller: rays through more pixels than the crop keeps are in vain."""


@dataclass(frozen=True)
class CarPhoto:
    """A photo with its pose.

    Attributes:
        query_id: unique.
        split: train, val or test.
        file: where it lies.
        name: its path below the folder of photos.
        pose: the annotated one.
    """

    query_id: str
    split: str
    file: Path
    name: str
    pose: Pose

    @property
    def shape_id(self) -> str:
        """``car/<model_id>``."""
        return f"car/{self.pose.model_id}"


def add_photos(
    writer: BenchmarkWriter,
    photos: Iterable[CarPhoto],
    models: Mapping[str, Path],
    *,
    source: str,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> list[str]:
    """Add the photos of all models, model by model; those that the benchmark has already cost nothing.

    A photo is marked seen if its shape has a training photo that can be used.

    Args:
        writer: the benchmark that grows.
        photos: files that are there; those of models that are not in ``models`` are left out.
        models: shape id → mesh file.
        source: where the photos come from.
        jobs: processes.
        allow_missing: leave out photos that cannot be used instead of refusing.
        progress: show a bar.

    Returns:
        The photos that cannot be used, each with what is wrong; empty without ``allow_missing``.

    Raises:
        SourceError: photos cannot be used; all are listed. What was made of other shapes' photos is kept.
        StorageError: the write failed.
    """
    groups: dict[str, list[CarPhoto]] = {shape_id: [] for shape_id in models}
    for photo in photos:
        if photo.shape_id in groups:
            groups[photo.shape_id].append(photo)
    todo = {
        shape_id: [photo for photo in group if not writer.has_query(photo.query_id)]
        for shape_id, group in groups.items()
    }
    cut = partial(_crops, models=models, size=writer.size)
    problems = []
    with results(cut, todo.items(), jobs=jobs, what="models", progress=progress) as made:
        for (shape_id, part), crops in made:
            if isinstance(crops, CMICError):
                raise crops
            wrong = {p.query_id for p, crop in zip(part, crops, strict=True) if isinstance(crop, CMICError)}
            problems += [f"{crop.path}: {crop.problem}" for crop in crops if isinstance(crop, CMICError)]
            if wrong and not allow_missing:  # a repaired photo may be the one that makes its shape seen
                continue
            seen = any(photo.split == "train" and photo.query_id not in wrong for photo in groups[shape_id])
            for photo, crop in zip(part, crops, strict=True):
                if not isinstance(crop, CMICError):
                    writer.add_query(
                        photo.query_id, shape_id, "car", crop, split=photo.split, seen=seen, photo=photo.name,
                        source=source,
                    )  # fmt: skip
    if problems and not allow_missing:
        raise SourceError(
            listed(problems, "photos cannot be used"), fix="repair them, or leave them out with --allow-missing"
        )
    return problems


def _crops(group: tuple[str, list[CarPhoto]], models: Mapping[str, Path], size: int) -> list[np.ndarray | CMICError]:
    """Return the crop of every photo of one model, or why there is none."""
    shape_id, photos = group
    if not photos:
        return []
    scene = Rays(load_mesh(models[shape_id]))  # in the frame of its file, as the poses are
    return [attempt(partial(crop_photo, scene=scene, size=size), photo) for photo in photos]


def crop_photo(photo: CarPhoto, scene: Rays, size: int) -> np.ndarray:
    """Return a query: the square around the silhouette, cut from the photo.

    Args:
        photo: the photo.
        scene: its model, in the frame of the file.
        size: side S of the result in pixels.

    Returns:
        uint8 (4, S, S): RGB and mask.

    Raises:
        ImageError: the photo cannot be read.
        SourceError: the pose does not show the model.
    """
    rgb = read_photo(photo.file)
    if rgb.shape[1] > FINEST * size:
        height = max(1, round(rgb.shape[0] * FINEST * size / rgb.shape[1]))
        rgb = np.asarray(Image.fromarray(rgb).resize((FINEST * size, height), Image.Resampling.BILINEAR))
    mask = silhouette(scene, photo.pose, rgb.shape[1], rgb.shape[0])
    if not mask.any():
        raise SourceError(
            f"its annotated pose shows nothing of {photo.shape_id}", path=photo.file, fix="correct the annotation"
        )
    return square_crop(rgb, mask, size=size)
