"""Photo files that become the queries of a benchmark."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..benchmark.growing import origin_of
from ..benchmark.writer import BenchmarkWriter
from ..errors import ImageError
from ..io.foreground import OPAQUE, cut_object
from ..io.images import open_photo, read_mask


class Cut(NamedTuple):
    """What a benchmark holds of a photo."""

    image: np.ndarray  # uint8 (4, S, S), RGB and mask; the mask is 255 everywhere where there is none
    how: str = ""  # in words, where the mask was found automatically
    amodal: np.ndarray | None = None  # uint8 (S, S), the mask of the whole object


def cut_photo(photo: "PhotoFile", size: int, automatic: bool = False) -> Cut:
    """Read a photo and cut the square around its object; the opaque pixels of a cut-out are its mask.

    Args:
        photo: the file, with its mask or box, or both.
        size: side S of the result in pixels.
        automatic: find a mask where there is none.

    Raises:
        ImageError: photo or mask cannot be read or do not fit together, or the mask marks nothing inside the box.
    """
    image, opaque, turn = open_photo(photo.path)
    mask = read_mask(photo.mask, image, turn) if photo.mask else opaque
    try:
        cut = cut_object(image, mask, photo.box, automatic, size)
    except ImageError as error:
        raise ImageError(error.problem, path=photo.mask or photo.path, fix=error.fix) from None
    return Cut(cut.image, cut.how or ("" if photo.mask or opaque is None else OPAQUE))


@dataclass(frozen=True)
class PhotoFile:
    """A file that becomes a query; its repr and its files tell whether the query has to be made again."""

    query_id: str  # unique
    path: Path = field(repr=False)
    shape_ids: tuple[str, ...]  # the shape that it shows; of several, any counts as right
    category: str
    split: str  # train, val or test
    photo: str = ""  # the photo's name in its source; two objects of one photo share it
    mask: Path | None = field(default=None, repr=False)  # an image of the same size, white where the object is
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 of the object in pixels
    source: str = ""  # where it comes from; how the mask was found is added
    flags: tuple[str, ...] = ()  # which of truncated, occluded and slightly_occluded hold
    facts: object = None  # what else `cut` has to know
    also: tuple[Path, ...] = field(default=(), repr=False)  # further files; photos that share them are cut in one go
    cut: Callable[["PhotoFile", int], Cut] = field(default=cut_photo, repr=False, compare=False)

    def needed(self, writer: BenchmarkWriter) -> bool:
        """Announce the query; tell whether it is still to be made, or to be made again."""
        files = (self.path, *([self.mask] if self.mask else []), *self.also)
        return writer.needs_query(self.query_id, origin_of(self, files=files))

    def add(self, writer: BenchmarkWriter, made: Cut) -> None:
        """Add what was made of the file."""
        writer.add_query(
            self.query_id, "|".join(self.shape_ids), self.category, made.image, split=self.split, photo=self.photo,
            source=", ".join(filter(None, (self.source, made.how))), amodal=made.amodal,
            **dict.fromkeys(self.flags, True),
        )  # fmt: skip


def torn_apart(photos: Iterable[PhotoFile]) -> list[str]:
    """Return one line for each photo that is in the training split and in another one."""
    splits = defaultdict(set)
    for photo in photos:
        splits[photo.photo].add(photo.split)
    return [
        f"{name} is in the splits {', '.join(sorted(used))}"
        for name, used in splits.items()
        if name and "train" in used and len(used) > 1
    ]
