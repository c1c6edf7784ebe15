"""Tables of results as the book shows them, made from ``metrics.json`` and from ``data/results/published.json``.

Both have the same columns, so that they can stand one above the other: ``method``, ``kind`` ("measured" or
"published"), and for each metric its value and, where known, ``_low`` and ``_high``, all in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .results import COLUMNS, read_results

ROWS = {
    "seen": "CMIC, seen shapes",
    "unseen": "CMIC, unseen shapes",
    "untrained": "untrained network, seen shapes",
    "untrained_unseen": "untrained network, unseen shapes",
    "untrained_cells": "untrained, 3 × 3 cells, seen shapes",
    "untrained_cells_unseen": "untrained, 3 × 3 cells, unseen shapes",
    "prior": "category prior",
    "chance": "chance",
}


def measured_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return one row for each result of ``metrics.json`` that `ROWS` names, in its order, with a ``label``.

    Args:
        metrics: as :func:`cmiclib.evaluation.report.evaluate_scored` returns it.
    """
    rows = [{"method": title, "kind": "measured", **metrics[name]} for name, title in ROWS.items() if name in metrics]
    table = pd.DataFrame(rows)
    return table.assign(label=table.method + " (" + table.queries.map(str) + " photos)")


def published_table(path: Path) -> pd.DataFrame:
    """Return the published figures, one row a method and benchmark.

    Further columns: ``year``, ``benchmark``, ``title`` (the benchmark's name in print), ``source``, ``mark``.

    Raises:
        BookError: the file is missing or damaged.
    """
    stored = read_results(path)
    table = pd.DataFrame(stored["rows"]).assign(kind="published")
    return table.assign(title=table.benchmark.map(stored["benchmarks"]))


MODELS = {"trained": "trained on renderings", "untrained": "untrained", "untrained_cells": "untrained, 3 × 3 cells"}


def real_photo_table(stored: dict[str, Any]) -> pd.DataFrame:
    """Return the figures of ``data/results/real_photos.json``, one row a set of photos and model.

    Args:
        stored: ``rows``, each with ``photos`` (what marks the object), ``half``, ``model``, and the flat figures.

    Returns:
        With ``method`` and ``kind`` as in the other tables; ``macro_…`` are means over categories, ``shape_…`` means
        over shapes.
    """
    table = pd.DataFrame(stored["rows"]).assign(kind="measured")
    return table.assign(method=table.photos + ": " + table.model.map(MODELS).fillna(table.model))


def failure_table(stored: dict[str, Any], photos: str) -> pd.DataFrame:
    """Return the photos of one set whose own shape did not come first, worst last.

    Args:
        stored: of ``data/results/real_photos.json``.
        photos: the set, by what marks the object.

    Returns:
        Columns photo, own shape, found first, rank: the own shape's.
    """
    names = {"photo_id": "photo", "shape_id": "own shape", "first": "found first", "rank": "rank"}
    rows = [
        {title: row[name] for name, title in names.items()} for row in stored["failures"] if row["photos"] == photos
    ]
    return pd.DataFrame(rows, columns=list(names.values())).sort_values("rank", kind="stable")


def ingredient_table(stored: dict[str, Any]) -> pd.DataFrame:
    """Return the effects of ``data/results/ingredients.json`` for :func:`cmiclib.figures.effects`, in points."""
    table = pd.DataFrame(stored["rows"]).rename(columns={"ingredient": "name"})
    points = ["difference", "low", "high"]
    by_seed = table.by_seed.map(lambda values: [100 * value for value in values])
    return table.assign(**{name: 100 * table[name] for name in points}, by_seed=by_seed)


def percent(table: pd.DataFrame, metrics: Sequence[str] = tuple(COLUMNS)) -> pd.DataFrame:
    """Return each metric in per cent, with its interval where there is one: ``83.1 (80.2 to 85.9)``.

    Args:
        table: with a column for each metric and, where known, ``_low`` and ``_high``, in [0, 1].
        metrics: columns to show; a missing value becomes a dash.
    """
    rows = table.to_dict("records")
    cells = {COLUMNS.get(name, name): [_cell(row, name) for row in rows] for name in metrics}
    return pd.DataFrame(cells, index=table.index)


def _cell(row: dict[Any, Any], name: str) -> str:
    value, low, high = (row.get(name + end, np.nan) for end in ("", "_low", "_high"))
    if pd.isna(value):
        return "–"
    return f"{100 * value:.1f}" + ("" if pd.isna(low) else f" ({100 * low:.1f} to {100 * high:.1f})")
