"""The released test script's three ways of evaluating, category by category and over all photos.

``simple``    Top-1 and category accuracy
``full``      Top-10, d_HAU and d_IoU as well
``shapenet``  another gallery, of which only the photo's category is searched; d_HAU and d_IoU to the photo's own shape

A total is a mean over photos, not over categories. All other figures are in :mod:`cmiclib.evaluation.report`.
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
        ConfigError: an unknown mode, or a gallery that the mode does not take or lacks.
        BenchmarkError: no photos, no points or voxels, a category that the gallery lacks, views of another protocol in
            it, or an index of another gallery.
    """
    check_mode(mode, gallery is not None)
    if gallery is not None:
        check_protocols(benchmark, gallery)
    index.check_gallery(gallery or benchmark)
    rows = photo_rows(benchmark, split)
    scores = index.scores(index.embed(benchmark.images[rows]))  # (Q, N)
    category = benchmark.queries.category.to_numpy()[rows]
    if gallery is None:
        figures = _own_gallery(Scored(scores, rows, benchmark), mode)
    else:
        figures = _distances(_first_of_category(scores, category, gallery), gallery, benchmark, rows)
    table = pd.DataFrame(figures)
    parts = table.groupby(category).mean().assign(queries=pd.Series(category).value_counts())
    parts.loc[TOTAL] = [*table.mean(), len(table)]
    return parts.astype({"queries": int}).rename_axis("of")


def check_mode(mode: str, with_gallery: bool) -> None:
    """Raise ConfigError for an unknown mode, and for a gallery that the mode does not take or lacks."""
    if mode not in get_args(Mode):
        raise ConfigError(f"unknown mode '{mode}'", fix=f"use one of: {', '.join(get_args(Mode))}")
    if (mode == "shapenet") != with_gallery:
        raise ConfigError("only mode shapenet takes another gallery; it needs one", fix="add or leave out --gallery")


def _own_gallery(scored: Scored, mode: str) -> dict[str, np.ndarray]:
    values = {name: value.numpy() for name, value in scored.metrics().items()}
    if mode == "simple":
        return {name: values[name] for name in ("top1", "category")}
    first = scored.scores.argmax(dim=1).numpy()
    distances = _distances(first, scored.benchmark, scored.benchmark, scored.rows)
    return {name: values[name] for name in ("top1", "top10", "category")} | distances


def _first_of_category(scores: torch.Tensor, category: np.ndarray, gallery: Benchmark) -> np.ndarray:
    known = gallery.shapes.category.to_numpy()
    if lacking := sorted(set(category) - set(known)):
        raise BenchmarkError(
            f"the gallery has no shapes of: {', '.join(lacking)}", path=gallery.path, fix="give one that has them"
        )
    other = torch.from_numpy(category[:, None] != known[None, :])  # (Q, N)
    return scores.masked_fill(other, -torch.inf).argmax(dim=1).numpy()


def _distances(found: np.ndarray, gallery: Benchmark, benchmark: Benchmark, rows: np.ndarray) -> dict[str, np.ndarray]:
    distances = pair_distances(found, gallery, benchmark, rows)
    if len(distances) < 2:
        raise BenchmarkError("points or voxels are missing", path=gallery.path, fix="use --mode simple")
    return distances
