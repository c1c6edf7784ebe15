"""Examples for figures: what was retrieved for some photos, and rules that choose which photos to show."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ..benchmark import Benchmark
from ..index import ShapeIndex
from ..model import CMIC


def parameter_counts(model: CMIC) -> dict[str, int]:
    """Count the parameters of each part, of the whole model (a shared part once), and those that training changes."""
    encoders = {"photo encoder": model.query_encoder, "view encoder": model.view_encoder}
    modules = {f"{name}, backbone": encoder.backbone for name, encoder in encoders.items()}
    modules |= {f"{name}, head": encoder.head for name, encoder in encoders.items()}
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in (modules | {"all": model}).items()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return counts | {"attention W": model.attention_weight.numel(), "trained": trained}


@dataclass(frozen=True)
class Examples:
    """Photos, their own shapes and the first k shapes found; each shape is shown by its view of largest weight."""

    photos: np.ndarray  # (R, 4, S, S) uint8
    own: np.ndarray  # (R, S, S) uint8; of several right shapes the best-scored one
    found: np.ndarray  # (R, k, S, S) uint8
    scores: np.ndarray  # (R, k)
    right: np.ndarray  # (R, k) bool
    own_views: np.ndarray  # (R, V, S, S) uint8, all views of the own shape
    own_weights: np.ndarray  # (R, V), the weight of each


def examples(index: ShapeIndex, benchmark: Benchmark, rows: np.ndarray, k: int = 5) -> Examples:
    """Search the benchmark's gallery with its photos ``rows`` (R,); BenchmarkError for an index of another gallery."""
    index.check_gallery(benchmark)
    rows = np.asarray(rows)
    query = index.embed(benchmark.images[rows])  # (R, d)
    columns, scores = index.rank(query, k)  # (R, k)
    relevant = benchmark.relevant(rows)  # (R, N)
    own = index.scores(query).masked_fill(torch.from_numpy(~relevant), -torch.inf).argmax(dim=1)  # (R,)
    shapes = torch.cat([own[:, None], columns], dim=1)  # (R, 1 + k): own, then found
    weights = index.view_weights(query, shapes).numpy()  # (R, 1 + k, V)
    pictures = benchmark.views[shapes.numpy(), weights.argmax(axis=2)]  # (R, 1 + k, S, S)
    return Examples(
        photos=benchmark.images[rows], own=pictures[:, 0], found=pictures[:, 1:], scores=scores.numpy(),
        right=np.take_along_axis(relevant, columns.numpy(), axis=1), own_views=benchmark.views[own.numpy()],
        own_weights=weights[:, 0],
    )  # fmt: skip


def typical(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the photo of median margin of each of the ``count`` most photographed categories of a `Scored.table`."""
    names = table.category.value_counts(sort=True).index[:count]
    groups = (table[table.category == name].sort_values(["margin", "query_id"]) for name in names)
    return pd.DataFrame([group.iloc[len(group) // 2] for group in groups])


def worst(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return at most ``count`` photos with the lowest negative margins, the worst first, at most one of each shape."""
    failed = table[table.margin < 0].sort_values(["margin", "query_id"])
    return failed.drop_duplicates("shape_id").head(count)
