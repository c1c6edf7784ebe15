"""The released test script's three ways of evaluating, category by category and over all photos.

``simple``    Top-1 and category accuracy
``full``      Top-10, d_HAU and d_IoU as well
``shapenet``  another gallery, of which only the photo's category is searched; d_HAU and d_IoU to the photo's own shape

A total is a mean over photos, not over categories. For everything else, use :mod:`cmiclib.evaluation.report`.
"""

from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from ..benchmark import Benchmark
from ..errors import BenchmarkError, ConfigError
from ..index import ShapeIndex
from .report import Scored, check_protocols, pair_distances, photo_rows

Mode = Literal["simple", "full", "shapenet"]
TOTAL = "total"


def released_table(
    index: ShapeIndex, benchmark: Benchmark, mode: str, split: str = "test", gallery: Benchmark | None = None
) -> pd.DataFrame:
    """Evaluate the photos of a split as the released test script does.

    Args:
        index: of ``gallery`` where one is given, else of the benchmark's own gallery.
        benchmark: the photos and their own shapes.
        mode: see above.
        split: train, val, test or all.
        gallery: the other gallery; for ``shapenet`` only.

    Returns:
        One row a category in the order of their names, then ``total``: ``queries`` and the figures of the mode,
        accuracies in [0, 1].

    Raises:
        ConfigError: an unknown mode, or a gallery where none belongs, or none where one does.
        BenchmarkError: no photos, no points and voxels, a category that the gallery lacks, or views of another
            protocol in it.
    """
    check_mode(mode, gallery is not None)
    if gallery is not None:
        check_protocols(benchmark, gallery)
    rows = photo_rows(benchmark, split)
    scores = index.scores(index.embed(benchmark.images[rows]))  # (Q, N)
    category = benchmark.queries.category.to_numpy()[rows]
    own = benchmark.relevant(rows).argmax(axis=1)  # (Q,)
    if gallery is None:
        figures = _own_gallery(Scored(scores, rows, benchmark), own, mode)
    else:
        first = _first_of_category(scores, category, gallery)
        figures = _distances(gallery, first, benchmark, own)
    table = pd.DataFrame(figures)
    parts = table.groupby(category).mean().assign(queries=pd.Series(category).value_counts())
    parts.loc[TOTAL] = [*table.mean(), len(table)]
    return parts.astype({"queries": int}).rename_axis("of")


def check_mode(mode: str, with_gallery: bool) -> None:
    """Refuse a mode that there is not, and another gallery where none belongs.

    Raises:
        ConfigError: says which ones there are.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"unknown mode '{mode}'", fix=f"use one of: {', '.join(get_args(Mode))}")
    if (mode == "shapenet") != with_gallery:
        raise ConfigError("mode shapenet, and only that, needs another gallery", fix="add or leave out --gallery")


def _own_gallery(scored: Scored, own: np.ndarray, mode: str) -> dict[str, np.ndarray]:
    values = {name: value.numpy() for name, value in scored.metrics().items()}
    if mode == "simple":
        return {name: values[name] for name in ("top1", "category")}
    first = scored.scores.argmax(dim=1).numpy()
    distances = _distances(scored.benchmark, first, scored.benchmark, own)
    return {name: values[name] for name in ("top1", "top10", "category")} | distances


def _first_of_category(scores: torch.Tensor, category: np.ndarray, gallery: Benchmark) -> np.ndarray:
    known = gallery.shapes.category.to_numpy()
    if lacking := sorted(set(category) - set(known)):
        raise BenchmarkError(
            f"the gallery has no shapes of: {', '.join(lacking)}", path=gallery.path, fix="give one that has them"
        )
    other = torch.from_numpy(category[:, None] != known[None, :])  # (Q, N)
    return scores.masked_fill(other, -torch.inf).argmax(dim=1).numpy()


def _distances(gallery: Benchmark, first: np.ndarray, benchmark: Benchmark, own: np.ndarray) -> dict[str, np.ndarray]:
    distances = pair_distances(gallery, first, benchmark, own)
    if len(distances) < 2:
        raise BenchmarkError("there are no points and voxels to compare", path=gallery.path, fix="use --mode simple")
    return distances
