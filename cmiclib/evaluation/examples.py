"""Examples for figures: what was retrieved for some photos, and which photos to show by a rule instead of by taste."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from ..benchmark import Benchmark
from ..index import ShapeIndex
from ..model import CMIC, fused_weights


def parameter_counts(model: CMIC) -> dict[str, int]:
    """Count the parameters of a model's parts, of all of it (a shared part once), and of what training changes."""
    encoders = {"photo encoder": model.query_encoder, "view encoder": model.view_encoder}
    modules = {f"{name}, backbone": encoder.backbone for name, encoder in encoders.items()}
    modules |= {f"{name}, head": encoder.head for name, encoder in encoders.items()}
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in (modules | {"all": model}).items()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return counts | {"attention W": model.attention_weight.numel(), "trained": trained}


@dataclass(frozen=True)
class Examples:
    """Photos, their own shapes and the first k shapes found; each shape is shown by the view that weighed most."""

    photos: np.ndarray  # (R, 4, S, S) uint8
    own: np.ndarray  # (R, S, S) uint8
    found: np.ndarray  # (R, k, S, S) uint8
    scores: np.ndarray  # (R, k)
    right: np.ndarray  # (R, k) bool
    own_views: np.ndarray  # (R, V, S, S) uint8, all views of the own shape
    own_weights: np.ndarray  # (R, V), how much each of them weighed


def examples(index: ShapeIndex, benchmark: Benchmark, rows: np.ndarray, k: int = 5) -> Examples:
    """Search with the photos in ``rows`` and collect the pictures that a figure needs.

    Args:
        index: of the benchmark's gallery.
        benchmark: photos and gallery.
        rows: (R,) rows of the benchmark's queries.
        k: how many shapes to show.
    """
    rows = np.asarray(rows)
    query = index.embed(benchmark.images[rows])  # (R, d)
    columns, scores = index.rank(query, k)  # (R, k)
    relevant = benchmark.relevant(rows)  # (R, N)
    shapes = np.concatenate([relevant.argmax(axis=1)[:, None], columns.numpy()], axis=1)  # (R, 1 + k): own, then found
    weights = view_weights(index, query, shapes)  # (R, 1 + k, V)
    pictures = benchmark.views[shapes, weights.argmax(axis=2)]  # (R, 1 + k, S, S)
    return Examples(
        photos=benchmark.images[rows],
        own=pictures[:, 0],
        found=pictures[:, 1:],
        scores=scores.numpy(),
        right=np.take_along_axis(relevant, columns.numpy(), axis=1),
        own_views=benchmark.views[shapes[:, 0]],
        own_weights=weights[:, 0],
    )


def view_weights(index: ShapeIndex, query: Tensor, shapes: np.ndarray) -> np.ndarray:
    """Return how much each view of some shapes weighs for a photo: (R, K, V), the last axis sums to 1.

    Args:
        index: of the gallery.
        query: (R, d) the photos' vectors.
        shapes: (R, K) rows of the gallery.
    """
    return np.stack(
        [
            fused_weights(vector[None], index.views[line], index.attention, index.fusion)[0].numpy()
            for vector, line in zip(query, shapes, strict=True)
        ]
    )


def typical(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return one photo of each of the most photographed categories: the one whose margin is the category's median.

    So neither the best nor the worst is picked.

    Args:
        table: :meth:`cmiclib.evaluation.report.Scored.table`.
        count: how many categories.
    """
    names = table.category.value_counts(sort=True).index[:count]
    groups = (table[table.category == name].sort_values(["margin", "query_id"]) for name in names)
    return pd.DataFrame([group.iloc[len(group) // 2] for group in groups])


def worst(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the photos that lose by most, at most one of each shape, the worst first.

    Args:
        table: :meth:`cmiclib.evaluation.report.Scored.table`.
        count: how many at most; there may be fewer failures.
    """
    failed = table[table.margin < 0].sort_values(["margin", "query_id"])
    return failed.drop_duplicates("shape_id").head(count)
