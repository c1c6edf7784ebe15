"""Retrieval in a repository that lacks the photo's own shape: how near to it is what comes first?

No shape there is right, so Top-k is meaningless. The figures are the category of the first shape and its d_HAU and
d_IoU to the photo's own shape (:func:`cmiclib.evaluation.report.pair_distances`). Their scale depends on the
repository; :func:`nearest` and :func:`drawn` give its two ends. The released test searches the photo's category only
(:mod:`cmiclib.evaluation.released_protocol`); here both ways are measured.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..benchmark import Benchmark
from ..errors import BenchmarkError
from ..index import ShapeIndex
from ..metrics import summarise
from .report import DISTANCES, Scored, check_protocols, pair_distances, photo_rows

BYTES_AT_ONCE = 4096  # of each packed grid: 68 MB of floats for 519 shapes


def evaluate_unseen(
    index: ShapeIndex, benchmark: Benchmark, gallery: Benchmark, split: str = "test"
) -> dict[str, float]:
    """Search a repository with the photos of a split, over all its categories and with the category given.

    ``index`` is of the repository ``gallery``. Photos of a category that it lacks are left out of every figure and
    counted. Returns flat figures, each with its 95 % interval over own shapes as ``_low`` and ``_high``: ``category``,
    ``d_hau`` and ``d_iou`` of the first of all shapes; ``given_d_hau`` and ``given_d_iou`` of the first one of the
    photo's category; and ``queries``, ``left_out``, ``gallery_size``. d_HAU needs points on both sides, d_IoU voxels.
    BenchmarkError if there are no photos, none of the repository's categories, views of another protocol, or an index
    of another gallery.
    """
    check_protocols(benchmark, gallery)
    index.check_gallery(gallery)
    rows = photo_rows(benchmark, split)
    known = same_category(benchmark, rows, gallery).any(axis=1)  # (Q,)
    if not known.any():
        raise without_shapes(gallery, set(benchmark.queries.category.to_numpy()[rows]))
    kept = rows[known]
    values = judge_scores(index.scores(index.embed(benchmark.images[kept])), benchmark, kept, gallery)
    figures = summarise(values, benchmark.queries.shape_id.to_numpy()[kept])
    return figures | {"left_out": int((~known).sum()), "gallery_size": len(gallery.shapes)}


def without_shapes(gallery: Benchmark, categories: set[str]) -> BenchmarkError:
    """Return the error of a repository that has no shapes of these categories."""
    problem = f"the gallery has no shapes of: {', '.join(sorted(categories))}"
    return BenchmarkError(problem, path=gallery.path, fix="give one that has them")


def judge_scores(scores: Tensor, benchmark: Benchmark, rows: np.ndarray, gallery: Benchmark) -> dict[str, Tensor]:
    """Judge the first shape of all and the first one of the photo's category.

    ``scores`` is float (Q, N) over the repository, -inf hides a shape; the photos ``rows`` (Q,) are all of its
    categories. Returns ``category``, ``d_hau``, ``d_iou``, ``given_d_hau`` and ``given_d_iou``, float64 (Q,) each.
    """
    first, given = first_shapes(scores, same_category(benchmark, rows, gallery))
    twice = judge(np.concatenate([first, given]), benchmark, np.tile(rows, 2), gallery)  # equal pairs cost nothing
    both = {name: value.chunk(2) for name, value in twice.items()}
    figures = {name: value[0] for name, value in both.items()}
    return figures | {f"given_{name}": value[1] for name, value in both.items() if name != "category"}


def judge(
    found: np.ndarray, benchmark: Benchmark, rows: np.ndarray, gallery: Benchmark, distances: Sequence[str] = DISTANCES
) -> dict[str, Tensor]:
    """Compare one shape for each photo with the photo's own: ``category``, whether it is the photo's, and distances.

    Arguments and distances are those of :func:`cmiclib.evaluation.report.pair_distances`; float64 (Q,) each.
    """
    category = gallery.shapes.category.to_numpy()[found] == benchmark.queries.category.to_numpy()[rows]
    values = {"category": category, **pair_distances(found, gallery, benchmark, rows, distances)}
    return {name: torch.from_numpy(value.astype(np.float64)) for name, value in values.items()}


def first_shapes(scores: Tensor, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best row of the repository for each photo, of all and of its category; int64 (Q,) each.

    ``scores`` (Q, N) hides shapes by -inf, ``same`` is :func:`same_category`. Of equal scores the lower row wins.
    """
    given = scores.masked_fill(torch.from_numpy(~same), -torch.inf)
    return scores.argmax(dim=1).numpy(), given.argmax(dim=1).numpy()


def same_category(benchmark: Benchmark, rows: np.ndarray, gallery: Benchmark) -> np.ndarray:
    """Return bool (Q, N): the shape of the repository is of the photo's category, by name."""
    return benchmark.queries.category.to_numpy()[rows][:, None] == gallery.shapes.category.to_numpy()[None, :]


def without_own(scored: Scored) -> tuple[Scored, np.ndarray]:
    """Make a benchmark's own gallery a repository without the photo's shape and the variants of its group.

    Photos whose category holds nothing else are left out. Returns the scores, -inf for what is hidden, and bool (Q, N):
    the shape is there for this photo.
    """
    there = ~scored.benchmark.group_relevant(scored.rows)
    known = (there & same_category(scored.benchmark, scored.rows, scored.benchmark)).any(axis=1)
    kept = scored.part(known)
    hidden = kept.scores.masked_fill(torch.from_numpy(~there[known]), -torch.inf)
    return Scored(hidden, kept.rows, kept.benchmark), there[known]


def overlaps(benchmark: Benchmark, rows: np.ndarray, gallery: Benchmark) -> np.ndarray:
    """Return d_IoU of each photo's own shape with every shape of a repository, float32 (Q, N); empty grids are equal.

    Where several shapes are right, the nearest one counts. It is one matrix product of bits, a part of the grid at a
    time: sums below 2²⁴ are exact in float32. MissingArrayError where one of the two benchmarks has no voxels.
    """
    query, own = np.nonzero(benchmark.relevant(rows))  # (R,) each, by query
    shapes, which = np.unique(own, return_inverse=True)  # (S,), (R,)
    a, b = benchmark.voxels[shapes], gallery.voxels  # (S, bytes), (N, bytes)
    common = np.zeros((len(a), len(b)), np.float32)
    used = np.flatnonzero(np.bitwise_or.reduce(a, axis=0))  # elsewhere nothing is in common
    for start in range(0, len(used), BYTES_AT_ONCE):
        part = used[start : start + BYTES_AT_ONCE]
        common += _bits(a, part) @ _bits(b, part).T
    solid_a, solid_b = (np.array([np.bitwise_count(grid).sum() for grid in grids], np.float32) for grids in (a, b))
    union = solid_a[:, None] + solid_b[None, :] - common
    overlap = np.divide(common, union, out=np.ones_like(common), where=union > 0)  # (S, N)
    return np.maximum.reduceat(overlap[which], np.searchsorted(query, np.arange(len(rows))), axis=0)


def _bits(grids: np.ndarray, part: np.ndarray) -> np.ndarray:
    return np.unpackbits(grids[:, part], axis=1).astype(np.float32)


def nearest(overlap: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return each photo's shape of largest d_IoU among those ``there``, bool (Q, N), which no search can beat: (Q,)."""
    return np.where(there, overlap, -1).argmax(axis=1)


def drawn(there: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return one shape for each photo, drawn with equal chances from ``there``, bool (Q, N); int64 (Q,)."""
    return np.where(there, np.random.default_rng(seed).random(there.shape), -1).argmax(axis=1)
