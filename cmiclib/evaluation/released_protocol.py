"""The released test script's three ways of evaluating, category by category and over all photos.

``simple``    Top-1 and category accuracy
``full``      Top-10, d_HAU and d_IoU as well
``shapenet``  another gallery, of which only the photo's category is searched; d_HAU and d_IoU to the photo's own shape

A total is a mean over photos, not over categories. All other figures are in :mod:`cmiclib.evaluation.report`.
"""

import numpy as np
import pandas as pd

from ..benchmark import Benchmark
from ..errors import BenchmarkError, ConfigError
from ..index import ShapeIndex
from .report import Scored, check_protocols, pair_distances, photo_rows
from .unseen import first_shapes, same_category, without_shapes

MODES = ("simple", "full", "shapenet")
TOTAL = "total"


def released_table(
    index: ShapeIndex, benchmark: Benchmark, mode: str, split: str = "test", gallery: Benchmark | None = None
) -> pd.DataFrame:
    """Evaluate the photos of a split as the released test script does.

    ``index`` is of ``gallery`` where one is given (mode ``shapenet``), else of the benchmark's own gallery. Returns one
    row a category in the order of their names, then ``total``: ``queries`` and the figures of the mode, accuracies in
    [0, 1].

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
    figures: dict[str, np.ndarray] = {}
    if gallery is None:
        found, values = scores.argmax(dim=1).numpy(), Scored(scores, rows, benchmark).metrics()
        names = ("top1", "category") if mode == "simple" else ("top1", "top10", "category")
        figures |= {name: values[name].numpy() for name in names}
    else:
        if lacking := set(category) - set(gallery.shapes.category):
            raise without_shapes(gallery, lacking)
        found = first_shapes(scores, same_category(benchmark, rows, gallery))[1]
    if mode != "simple":
        distances = pair_distances(found, gallery or benchmark, benchmark, rows)
        if len(distances) < 2:
            path = (gallery or benchmark).path
            raise BenchmarkError("points or voxels are missing", path=path, fix="use --mode simple")
        figures |= distances
    table = pd.DataFrame(figures)
    parts = table.groupby(category).mean().assign(queries=pd.Series(category).value_counts())
    parts.loc[TOTAL] = [*table.mean(), len(table)]
    return parts.astype({"queries": int}).rename_axis("of")


def check_mode(mode: str, with_gallery: bool) -> None:
    """Raise ConfigError for an unknown mode, and for a gallery that the mode does not take or lacks."""
    if mode not in MODES:
        raise ConfigError(f"unknown mode '{mode}'", fix=f"use one of: {', '.join(MODES)}")
    if (mode == "shapenet") != with_gallery:
        raise ConfigError("only mode shapenet takes another gallery; it needs one", fix="add or leave out --gallery")
