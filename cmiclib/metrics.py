"""Retrieval metrics on a matrix of scores, and intervals that respect that photos of one shape belong together.

Rows are queries, columns are the shapes of the gallery. Equal scores rank the lower column first, as the released
code's argmax does; :mod:`cmiclib.scan` gives copies of one shape equal scores. Nothing here sorts a whole gallery.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_AP_DEPTH = 10
Values = Tensor | np.ndarray
Labels = Sequence[str] | np.ndarray


def retrieval_metrics(
    scores: Tensor, relevant: Tensor, query_category: Tensor, shape_category: Tensor, ks: Sequence[int] = (1, 10)
) -> dict[str, float]:
    """Return the means over queries of what `per_query_metrics` returns for the same arguments, and `queries`."""
    values = per_query_metrics(scores, relevant, query_category, shape_category, ks)
    return {name: value.mean().item() for name, value in values.items()} | {"queries": len(scores)}


def per_query_metrics(
    scores: Tensor, relevant: Tensor, query_category: Tensor, shape_category: Tensor, ks: Sequence[int] = (1, 10)
) -> dict[str, Tensor]:
    """Judge each query's ranking of the gallery.

    Args:
        scores: float (Q, N), larger is better; a shape at -inf is never found, right or wrong.
        relevant: bool (Q, N), True for each shape that counts as right, at least one per query.
        query_category: int (Q,).
        shape_category: int (N,), in the same codes.
        ks: depths k of the accuracies `top{k}`.

    Returns:
        float64 (Q,) each, in [0, 1]: `top{k}`, a right shape is among the first k; `category`, the first shape
        is of the query's category; `map10`, average precision at 10, that is the sum of the precisions at the
        right shapes among the first 10, over the smaller of 10 and the number of right shapes; `mrr`, one over
        the rank of the first right shape, or 0 where none is found.

    ValueError: shapes that do not fit, NaN, no query, or a query without a right shape.
    """
    _check(scores, relevant, query_category, shape_category)
    found = relevant & (scores > -torch.inf)
    rank = _first_rank(scores, found)  # (Q,) from 1, inf where nothing is found
    best, first = top_k(scores, _AP_DEPTH)  # (Q, 10) or all columns
    hit = found.gather(1, first).double()
    depth = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    precision = hit.cumsum(dim=1) / depth
    possible = relevant.sum(dim=1).clamp(max=_AP_DEPTH)
    values = {f"top{k}": (rank <= k).double() for k in ks}
    same = shape_category[first[:, 0]] == query_category
    values["category"] = (same & (best[:, 0] > -torch.inf)).double()
    values[f"map{_AP_DEPTH}"] = (precision * hit).sum(dim=1) / possible
    values["mrr"] = 1 / rank
    return values


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of scores (Q, N) and their columns, best first, the lower column first where equal.

    Both are (Q, min(k, N)). The scores must not contain NaN; k below 1 raises ValueError.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    shapes = scores.shape[1]
    k = min(k, shapes)
    values, columns = scores.topk(min(k + 1, shapes), dim=1)
    columns = columns[:, :k].sort(dim=1).values
    best = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
    columns = columns.gather(1, best)
    # torch.topk takes any of equal scores; this matters where the last one taken equals the first one left out.
    tied = (values[:, k - 1] == values[:, -1]) & (k < shapes)
    columns[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return scores.gather(1, columns), columns


def restrict_to_category(scores: Tensor, query_category: Tensor, shape_category: Tensor) -> Tensor:
    """Return a copy of scores (Q, N) with -inf for every shape of another category: retrieval, category given."""
    return scores.masked_fill(query_category[:, None] != shape_category[None, :], -torch.inf)


def macro(values: Values, labels: Labels) -> float:
    """Return the mean over ``labels`` (n,) of the mean of each label's ``values`` (n,): every label counts the same."""
    sums, counts = _group_sums(np.asarray(values, dtype=np.float64)[:, None], labels)
    return float((sums[:, 0] / counts).mean())


def bootstrap_interval(
    values: Values, groups: Labels, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of the mean, resampling whole groups with replacement.

    Photos of one shape succeed and fail together; resampling single photos would make the interval too narrow.

    Args:
        values: (n,) one value per query.
        groups: (n,) its shape; all values of a shape are drawn together.
        level: probability that the interval is meant to cover.
        samples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        The lower and the upper bound.

    ValueError: fewer than two groups, from which nothing can be resampled.
    """
    low, high = _intervals(np.asarray(values, dtype=np.float64)[:, None], groups, level, samples, seed)
    return float(low[0]), float(high[0])


def paired_interval(
    first: Values, second: Values, groups: Labels, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of mean(first) - mean(second), both (n,), measured on the same queries.

    Both are resampled together, so what is hard for both does not widen it. See `bootstrap_interval`.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_interval(difference, groups, level, samples, seed)


def summarise(per_query: dict[str, Tensor], groups: Labels) -> dict[str, float]:
    """Return `top1`, `top1_low`, `top1_high` and so on, and `queries`: means and 95 % intervals over groups.

    `per_query` holds (Q,) values as `per_query_metrics` returns them, `groups` (Q,) the shape of each query. With one
    shape there are no intervals.
    """
    values = np.stack([np.asarray(value, dtype=np.float64) for value in per_query.values()], axis=1)  # (Q, M)
    figures = dict(zip(per_query, values.mean(axis=0).tolist(), strict=True))
    if len(np.unique(groups)) > 1:
        for name, low, high in zip(per_query, *_intervals(values, groups), strict=True):
            figures |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return figures | {"queries": len(values)}


def _intervals(
    values: np.ndarray, groups: Labels, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Bound the mean of each column of (n, M) values; all columns share the resampled groups."""
    sums, counts = _group_sums(values, groups)  # (G, M), (G,)
    if len(counts) < 2:
        raise ValueError("an interval needs queries of at least two shapes; report the mean alone")
    shares = np.full(len(counts), 1 / len(counts))
    drawn = np.random.default_rng(seed).multinomial(len(counts), shares, size=samples)  # (samples, G)
    means = (drawn @ sums) / (drawn @ counts)[:, None]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _group_sums(values: np.ndarray, groups: Labels) -> tuple[np.ndarray, np.ndarray]:
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if len(codes) != len(values):
        raise ValueError(f"{len(codes)} labels for {len(values)} values; pass one label per value")
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, codes, values)
    return sums, np.bincount(codes)


def _first_rank(scores: Tensor, found: Tensor) -> Tensor:
    """Return float64 (Q,): 1, plus the better columns, plus the equal ones before the first right shape; or inf."""
    best = scores.masked_fill(~found, -torch.inf).amax(dim=1, keepdim=True)
    column = (found & (scores == best)).int().argmax(dim=1, keepdim=True)  # argmax: the lowest of equal ones
    before = torch.arange(scores.shape[1], device=scores.device) < column
    rank = 1 + ((scores > best) | ((scores == best) & before)).sum(dim=1)
    return rank.double().masked_fill(~found.any(dim=1), torch.inf)


def _check(scores: Tensor, relevant: Tensor, query_category: Tensor, shape_category: Tensor) -> None:
    if scores.ndim != 2 or not scores.is_floating_point() or not len(scores):
        raise ValueError(f"scores are {scores.dtype} {tuple(scores.shape)}; pass floats (queries, shapes)")
    if relevant.shape != scores.shape or relevant.dtype != torch.bool:
        found = f"{relevant.dtype} {tuple(relevant.shape)}"
        raise ValueError(f"relevant is {found}; pass bool {tuple(scores.shape)}")
    if query_category.shape != scores.shape[:1] or shape_category.shape != scores.shape[1:]:
        found = f"{tuple(query_category.shape)} and {tuple(shape_category.shape)}"
        raise ValueError(f"categories are {found}; pass one per row and one per column of {tuple(scores.shape)}")
    if scores.isnan().any():
        raise ValueError("scores contain NaN; check the embeddings")
    if not relevant.any(dim=1).all():
        row = int(relevant.any(dim=1).int().argmin())
        raise ValueError(f"query {row} has no right shape in the gallery; leave such queries out")
