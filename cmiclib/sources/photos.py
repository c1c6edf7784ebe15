"""Photo files to the queries of a benchmark: read, cut out and added, in parallel."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..benchmark.writer import BenchmarkWriter
from ..errors import CMICError, ImageError, SourceError
from ..io.foreground import automatic_mask
from ..io.images import read_mask, read_photo, square_crop
from .meshes import listed
from .workers import results


@dataclass(frozen=True)
class PhotoFile:
    """A photo that becomes a query.

    Attributes:
        query_id: unique.
        path: the image file.
        shape_ids: the shape that it shows; of several, any counts as right.
        category: name of the category.
        split: train, val or test.
        photo: the photo's name in its source; two objects of one photo share it.
        mask: an image of the same size, white where the object is.
        box: x0, y0, x1, y1 of the object in pixels.
        source: where the photo comes from.
    """

    query_id: str
    path: Path
    shape_ids: tuple[str, ...]
    category: str
    split: str
    photo: str = ""
    mask: Path | None = None
    box: tuple[float, float, float, float] | None = None
    source: str = ""


def add_photos(
    writer: BenchmarkWriter,
    photos: Iterable[PhotoFile],
    groups: Mapping[str, str],
    *,
    trained: Collection[str] = (),
    automatic: bool = False,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> list[str]:
    """Add every photo to a benchmark, those for training first; those that it has already cost nothing.

    A photo counts as seen where a training photo that was added shows its shape, or a variant in its group.

    Args:
        writer: the benchmark that grows; it has all shapes already.
        photos: the files.
        groups: shape id → group, of all shapes.
        trained: groups that have training photos elsewhere.
        automatic: find a mask for photos without one; the query's source then says how.
        jobs: processes.
        allow_missing: leave out photos that cannot be used instead of refusing.
        progress: show a bar.

    Returns:
        What was left out and why; empty without ``allow_missing``.

    Raises:
        SourceError: photos cannot be used; all are listed. What was made of the others is kept, so that a second
            call goes on from there.
        StorageError: the write failed.
    """
    ordered = sorted(photos, key=lambda photo: photo.split != "train")  # what is seen is known before the others come
    todo = [photo for photo in ordered if not writer.has_query(photo.query_id)]
    done = [photo for photo in ordered if writer.has_query(photo.query_id) and photo.split == "train"]
    seen = {*trained, *(groups[name] for photo in done for name in photo.shape_ids)}
    cut = partial(cut_photo, size=writer.size, automatic=automatic)
    problems = []
    with results(cut, todo, jobs=jobs, what="photos", progress=progress) as made:
        for photo, result in made:
            if isinstance(result, CMICError):
                problems.append(f"{result.path or photo.path}: {result.problem}")
                continue
            image, how = result
            own = {groups[name] for name in photo.shape_ids}
            if photo.split == "train":
                seen |= own
            writer.add_query(
                photo.query_id, "|".join(photo.shape_ids), photo.category, image, split=photo.split,
                seen=not own.isdisjoint(seen), photo=photo.photo, source=", ".join(filter(None, (photo.source, how))),
            )  # fmt: skip
    if problems and not allow_missing:
        raise SourceError(listed(problems, "photos cannot be used"), fix="repair them, or pass --allow-missing")
    return problems


def cut_photo(photo: PhotoFile, size: int, automatic: bool = False) -> tuple[np.ndarray, str]:
    """Read a photo and cut the square around its object.

    Returns:
        uint8 (4, size, size), RGB and mask, 255 everywhere where there is none; and in words how a mask was found
        automatically, else nothing.

    Raises:
        ImageError: photo or mask cannot be read or do not fit together, or the mask marks nothing inside the box.
    """
    image = read_photo(photo.path)
    mask, how = (read_mask(photo.mask, image), "") if photo.mask else (None, "")
    if mask is None and automatic:
        mask, how = automatic_mask(image, photo.box)
    query = square_crop(image, mask, photo.box, size=size)
    if not query[3].any():
        raise ImageError("the mask marks nothing inside the box", path=photo.mask, fix="correct the mask or the box")
    return query, how
