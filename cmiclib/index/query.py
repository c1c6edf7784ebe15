"""Load a photo as a query: crop it by mask, box or automatic mask; embed queries.

Where only a box marks the object, its learnt silhouette weighs in, see :mod:`cmiclib.silhouette`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..errors import ImageError
from ..io.foreground import cut_object, own_mask
from ..io.images import clip_box, open_photo, read_mask, square_around
from . import ShapeIndex

QUERY_SIZE = 224  # Side of a query in pixels; models resize it

Box = tuple[float, float, float, float]


class Query(NamedTuple):
    """A photo, ready to be searched with."""

    image: np.ndarray  # (4, S, S) uint8, RGB and mask; S is 224, or the benchmark's
    how: str  # what marked the object, in words
    mask: np.ndarray | None  # (H, W) bool, in the photo's pixels; None: no mask was used
    box: Box | None = None  # as shares of the side of `image`, where only a box marks the object
    soft: np.ndarray | None = None  # (S, S) float32, how sure each pixel is the object's; None: no silhouette is used


def read_query(
    photo: Path, mask: Path | None = None, box: Box | None = None, automatic: bool = False, own: bool = True
) -> Query:
    """Read a photo and cut out its object.

    With a mask, the query is the square around what it marks. Without one, the mask is what the photo brings along, see
    :func:`cmiclib.io.foreground.own_mask`, unless ``own`` is False. With a box, it is the square around the box. Where
    there is no mask, the mask channel is 255 everywhere, as in training photos without a mask; ``automatic`` lets
    :func:`cmiclib.io.foreground.automatic_mask` look for one in the box or in the whole photo.

    The mask is an image of the photo's size, white where the object is; the box is x0, y0, x1, y1 in pixels. ImageError
    for an unreadable file, a mask that is empty or of another size, a box outside the photo, or both mask and box.
    """
    if mask is not None and box is not None:
        raise ImageError("mask and box are both given", path=photo, fix="give one of the two")
    image, opaque, turn = open_photo(photo)
    if mask is not None:
        marked: tuple[np.ndarray, str] | None = read_mask(mask, image, turn), f"mask {mask}"
    else:
        marked = own_mask(image, opaque, box) if own else None
    known, name = marked or (None, "")
    try:
        return cut_query(image, known, box, automatic, name)
    except ImageError as error:
        raise ImageError(error.problem, path=photo, fix=error.fix) from None


def cut_query(
    image: np.ndarray, mask: np.ndarray | None, box: Box | None, automatic: bool, name: str = "mask"
) -> Query:
    """Do what :func:`read_query` does for a photo in memory, (H, W, 3) uint8.

    ``name`` is the mask, bool (H, W), in words; if a box is given as well, the box says what to cut.
    """
    cut = cut_object(image, mask, box, automatic, QUERY_SIZE)
    if box is None or cut.mask is not None:
        return Query(cut.image, cut.how or (name if mask is not None else "whole photo, no mask"), cut.mask)
    corners = clip_box(box, *image.shape[:2])
    left, top, side = square_around(corners)
    x0, y0, x1, y1 = ((np.array(corners) - (left, top, left, top)) / side).tolist()
    return Query(cut.image, "box, no mask", None, box=(x0, y0, x1, y1))


def with_silhouette(query: Query, index: ShapeIndex) -> Query:
    """Add the learnt silhouette to a query that only a box marks, for an index whose model cuts objects out.

    Other queries come back as they are: a mask says more, and a model that was not trained on cut-outs knows none.
    """
    if query.box is None or index.config is None or index.config.model.mask != "cutout":
        return query
    from ..silhouette import silhouettes  # takes a moment to load

    soft = silhouettes(query.image[None], np.array([query.box]))[0]
    return query._replace(soft=soft, how="box, with a learnt silhouette")


def embed(index: ShapeIndex, queries: Sequence[Query]) -> Tensor:
    """Embed queries, (Q, d); with a silhouette, a vector is the mean of the photo's and of its soft cut-out's."""
    vectors = index.embed(np.stack([query.image for query in queries]))
    known = {row: query.soft for row, query in enumerate(queries) if query.soft is not None}
    if known:
        from ..silhouette import cut_softly

        cut = cut_softly(np.stack([queries[row].image for row in known]), np.stack(list(known.values())))
        vectors[list(known)] = F.normalize(vectors[list(known)] + index.embed(cut), dim=1)
    return vectors


def stored_query(benchmark: Benchmark, row: int) -> Query:
    """Return a photo of a benchmark as it is stored and as evaluation sees it, (4, S, S)."""
    image = np.array(benchmark.images[row])
    if image[3].all():
        return Query(image, "the benchmark's crop, no mask", None)
    return Query(image, "the benchmark's crop and mask", image[3] >= 128)


def stored_row(benchmark: Benchmark, query_id: str) -> int:
    """Return the row of a benchmark's photo; raises ImageError for an unknown id."""
    rows = np.flatnonzero(benchmark.queries.query_id == query_id)
    if not len(rows):
        problem = f"the benchmark '{benchmark.name}' has no photo '{query_id}'"
        raise ImageError(problem, fix="use a query_id from its queries.csv")
    return int(rows[0])


def parse_box(text: str) -> Box:
    """Read ``x0,y0,x1,y1``; raises ImageError for anything but four finite numbers."""
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
        if not np.isfinite([x0, y0, x1, y1]).all():
            raise ValueError
    except ValueError:
        raise ImageError(f"'{text}' is not a box", fix="give four numbers: x0,y0,x1,y1") from None
    return x0, y0, x1, y1
