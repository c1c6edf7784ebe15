"""Evaluation: one score matrix per query set, then everything that the book reports about it.

Photos search the whole gallery, distractors included, unless a figure says "category given". Intervals are 95 %
bootstrap intervals resampled by shape: photos of one shape succeed and fail together, so resampling single photos would
make the intervals too narrow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..config import Config
from ..embed import default_device
from ..errors import BenchmarkError
from ..index import ShapeIndex
from ..metrics import macro, paired_interval, per_query_metrics, restrict_to_category, summarise
from ..model import fused_scores
from ..training.guard import check_unchanged
from ..training.run import Run
from .baselines import category_prior, chance, untrained_scores

SCORES_AT_ONCE = 1 << 24  # Scores that are judged together: 64 MB, and a few times as much for intermediate results
DISTANCES = ("d_hau", "d_iou")
Distances = dict[tuple[int, int], float]
"""d_HAU by gallery row and own row."""


@dataclass(frozen=True)
class Scored:
    """Scores of some queries over a whole gallery, with what is needed to judge them."""

    scores: Tensor  # (Q, N) float32
    rows: np.ndarray  # (Q,) query rows of the benchmark
    benchmark: Benchmark

    def metrics(self, group: bool = False, category_given: bool = False) -> dict[str, Tensor]:
        """Metrics of each query: top1, top10, category, map10, mrr, each (Q,).

        With ``group``, variants of the own shape are right as well; ``category_given`` searches the query's category.
        """
        parts, benchmark = [], self.benchmark
        shape_category = torch.from_numpy(benchmark.shape_category())
        for scores, rows in self.blocks():
            relevant = benchmark.group_relevant(rows) if group else benchmark.relevant(rows)
            query_category = torch.from_numpy(benchmark.query_category(rows))
            if category_given:
                scores = restrict_to_category(scores, query_category, shape_category)
            parts.append(per_query_metrics(scores, torch.from_numpy(relevant), query_category, shape_category))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def blocks(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Yield scores and rows of some queries at a time, so that intermediate results need little memory."""
        size = max(1, SCORES_AT_ONCE // max(1, self.scores.shape[1]))
        for start in range(0, max(1, len(self.rows)), size):
            yield self.scores[start : start + size], self.rows[start : start + size]

    def part(self, mask: np.ndarray) -> "Scored":
        """Keep some of the queries: ``mask`` is bool (Q,)."""
        return Scored(self.scores[np.flatnonzero(mask)], self.rows[mask], self.benchmark)

    def table(self) -> pd.DataFrame:
        """Return one row per query: the benchmark's columns, its metrics, and what came first.

        ``row`` is the query's row, ``rank`` the best right shape's rank from 1, ``first`` the first shape with its
        category (``found``) and ``score``; ``variant``: it is wrong, but of the own shape's group. ``margin`` is the
        best right shape's score minus the best wrong one's. ``category`` is the query's own.
        """
        table, values = self.benchmark.queries.iloc[self.rows].reset_index(drop=True), self.metrics()
        for name in ("top1", "top10", "map10", "mrr"):
            table[name] = values[name].numpy()
        best = self.scores.max(dim=1)
        margins = []
        for scores, rows in self.blocks():
            right = torch.from_numpy(self.benchmark.relevant(rows))
            own, other = (scores.masked_fill(hidden, -torch.inf).amax(dim=1) for hidden in (~right, right))
            margins.append(own - other)
        table["first"] = self.benchmark.shapes.shape_id.to_numpy()[best.indices.numpy()]
        table["found"] = self.benchmark.shapes.category.to_numpy()[best.indices.numpy()]
        table["score"] = best.values.numpy()
        table["margin"] = torch.cat(margins).numpy()
        table["rank"] = (1 / table.mrr).round().astype(int)
        table["variant"] = (self.metrics(group=True)["top1"].numpy() == 1) & (table.top1 == 0)
        return table.assign(row=self.rows)


def score_run(run: Run, benchmark: Benchmark, split: str = "test", device: torch.device | str | None = None) -> Scored:
    """Score all photos of a split over the benchmark's whole gallery with a run's best weights.

    Pictures are embedded on ``device``; the default is the first GPU, else the CPU. BenchmarkError where the split has
    no photos, or the benchmark has changed since the run was trained on it.
    """
    check_unchanged(run, benchmark)
    model = run.model(device or default_device())
    return score_index(ShapeIndex.build(model, benchmark, run.config), benchmark, split)


def score_index(index: ShapeIndex, benchmark: Benchmark, split: str = "test", vectors: Tensor | None = None) -> Scored:
    """Score all photos of a split, whose ``vectors`` may be known already.

    BenchmarkError for an empty split or an index of another gallery.
    """
    index.check_gallery(benchmark)
    rows = photo_rows(benchmark, split)
    vectors = index.embed(benchmark.images[rows]) if vectors is None else vectors
    return Scored(index.scores(vectors), rows, benchmark)


@torch.no_grad()
def learnt_scores(index: ShapeIndex, vectors: Tensor) -> dict[str, Tensor]:
    """Score query vectors (Q, d) by their learnt numbers alone: ``learnt`` (Q, N); nothing without ``model.fixed``."""
    if index.config is None or not index.config.model.fixed:
        return {}
    dim = index.config.model.dim
    query, views = (F.normalize(each[..., :dim].float(), dim=-1) for each in (vectors, index.views))
    return {"learnt": fused_scores(query, views, index.attention[:dim, :dim].contiguous(), index.fusion)}


def photo_rows(benchmark: Benchmark, split: str) -> np.ndarray:
    """Return the rows of a split's photos, int64 (Q,); raises BenchmarkError for an empty or unknown split."""
    rows = benchmark.rows(split)  # type: ignore[arg-type]
    if len(rows) == 0:
        raise _no_photos(benchmark, split)
    return rows


def _no_photos(benchmark: Benchmark, split: str) -> BenchmarkError:
    return BenchmarkError(f"no photos in split '{split}'", path=benchmark.path, fix="choose another split")


def check_protocols(benchmark: Benchmark, gallery: Benchmark) -> None:
    """Refuse a gallery whose views follow another protocol than the benchmark's; BenchmarkError says which."""
    own, other = benchmark.meta["protocol"], gallery.meta["protocol"]
    if benchmark.protocol != gallery.protocol:
        differing = ", ".join(sorted(key for key in {*own, *other} if own.get(key) != other.get(key)))
        problem = f"its views were made in another way than those of '{benchmark.name}': {differing}"
        raise BenchmarkError(problem, path=gallery.path, fix="prepare both with one version of this library")


def report(scored: Scored, distances: bool = True, known: Distances | None = None) -> dict[str, float]:
    """Return the flat figures of one query set.

    Keys: ``top1``, ``top10``, ``category``, ``map10``, ``mrr`` (micro means), each with ``_low`` and ``_high``;
    ``macro_…``: means over categories; ``given_top1`` …: category given; ``group_top1`` …: variants count as right;
    ``d_hau``, ``d_iou``: distance and overlap between the first shape and the own one, with ``distances`` and if the
    benchmark has points and voxels; ``queries``. ``known`` is as in :func:`pair_distances`.
    """
    queries = scored.benchmark.queries.iloc[scored.rows]
    values = scored.metrics()
    figures = summarise(values, queries.shape_id.to_numpy())
    category = queries.category.to_numpy()
    for name in ("top1", "top10", "category"):
        figures[f"macro_{name}"] = macro(values[name], category)
    for prefix, options in (("given", {"category_given": True}), ("group", {"group": True})):
        other = scored.metrics(**options)
        figures |= {f"{prefix}_{name}": float(other[name].mean()) for name in ("top1", "top10")}
    return figures | (shape_distances(scored, known) if distances else {})


def report_untrained(
    benchmark: Benchmark, names: Sequence[str], init: str | None = None, split: str = "test"
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of networks as they are, by name and kind, see :func:`.baselines.untrained_scores`."""
    rows = photo_rows(benchmark, split)
    made = {name: untrained_scores(benchmark.images[rows], benchmark.views, backbone=name, init=init) for name in names}
    return {name: {k: report(Scored(v, rows, benchmark)) for k, v in kinds.items()} for name, kinds in made.items()}


def by_part(scored: Scored, parts: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return one row per part: its name ``of``, the metrics with their intervals, and ``queries``.

    ``parts`` holds name → bool (Q,), the photos of that part; empty parts are left out.
    """
    shape, values = scored.benchmark.queries.shape_id.to_numpy()[scored.rows], scored.metrics()
    rows = []
    for name, mask in parts.items():
        if mask.any():
            part = {key: value[np.flatnonzero(mask)] for key, value in values.items()}
            rows.append({"of": name, **summarise(part, shape[mask])})
    return pd.DataFrame(rows)


def by_category(scored: Scored) -> pd.DataFrame:
    """Return one row per category, as :func:`by_part` does."""
    category = scored.benchmark.queries.category.to_numpy()[scored.rows]
    return by_part(scored, {name: category == name for name in sorted(set(category))})


def shape_distances(scored: Scored, known: Distances | None = None) -> dict[str, float]:
    """Mean of :func:`pair_distances` between each query's first shape and its own."""
    found = scored.scores.argmax(dim=1).numpy()
    distances = pair_distances(found, scored.benchmark, scored.benchmark, scored.rows, known=known)
    return {name: float(values.mean()) for name, values in distances.items()}


def pair_distances(
    found: np.ndarray,
    gallery: Benchmark,
    benchmark: Benchmark,
    rows: np.ndarray,
    which: Sequence[str] = DISTANCES,
    known: Distances | None = None,
) -> dict[str, np.ndarray]:
    """Return d_HAU and d_IoU of the shape found for each photo and the photo's own (released protocol, mode full).

    d_HAU: modified Hausdorff distance of 10,000 surface points with halved coordinates; d_IoU: intersection over union
    of solid 128³ grids. Where several shapes are right, the nearest one counts. ``found`` (Q,) are rows of the gallery,
    ``rows`` (Q,) those of the photos; gallery and benchmark can be the same. ``which`` chooses, because d_HAU takes
    some 50 times as long as d_IoU; ``known``, of one gallery and benchmark, keeps it from call to call. Returns
    ``d_hau`` and ``d_iou``, each float64 (Q,); without the arrays for one on both sides it is left out.
    """
    from ..geometry import modified_hausdorff  # takes a second to load

    query, own = np.nonzero(benchmark.relevant(rows))  # (R,) each, by query; R ≥ Q
    first = np.searchsorted(query, np.arange(len(rows)))  # (Q,) where a query's own shapes begin
    pairs, inverse = np.unique(np.stack([found[query], own], axis=1), axis=0, return_inverse=True)  # (P, 2), (R,)
    figures = {}
    if "d_hau" in which and "points.npy" in gallery.arrays and "points.npy" in benchmark.arrays:
        known = {} if known is None else known
        for a, b in map(tuple, pairs.tolist()):
            if (a, b) not in known:
                same = gallery is benchmark and a == b
                known[a, b] = 0.0 if same else modified_hausdorff(_halved(gallery, a), _halved(benchmark, b))
        distance = np.array([known[a, b] for a, b in pairs.tolist()])
        figures["d_hau"] = np.minimum.reduceat(distance[inverse.ravel()], first)
    if "d_iou" in which and "voxels.npy" in gallery.arrays and "voxels.npy" in benchmark.arrays:
        overlap = [packed_iou(gallery.voxels[a], benchmark.voxels[b]) for a, b in pairs]
        figures["d_iou"] = np.maximum.reduceat(np.array(overlap)[inverse.ravel()], first)
    return figures


def _halved(benchmark: Benchmark, shape: int) -> np.ndarray:
    return benchmark.points[shape].astype(np.float32) / 2


def packed_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two bit-packed grids, 1 for two empty ones."""
    union = int(np.bitwise_count(a | b).sum())
    return int(np.bitwise_count(a & b).sum()) / union if union else 1.0


def evaluate_scored(
    scored: Scored, config: Config, split: str = "test", untrained: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Judge the scores of one split's photos over a whole gallery, and the baselines in the same terms.

    ``config`` is of the run that the scores come from, ``untrained`` what
    :func:`cmiclib.evaluation.baselines.untrained_scores` returns for the same photos. Returns nested figures: ``seen``,
    ``unseen``, each kind of untrained scores by its name and with ``_unseen``, ``chance``, ``prior``, and what they
    belong to; in ``gains`` the difference in Top-1 to each of the others, with its 95 % interval, of the same photos.
    Equal runs give equal figures, so there is no date. BenchmarkError for a split without photos.
    """
    benchmark = scored.benchmark
    if len(scored.rows) == 0:
        raise _no_photos(benchmark, split)
    seen = benchmark.queries.seen.to_numpy()[scored.rows].astype(bool)
    figures: dict[str, Any] = {
        "benchmark": benchmark.name, "benchmark_hash": benchmark.hash, "profile": config.profile,
        "config": config.digest(), "split": split, "gallery_size": len(benchmark.shapes),
    }  # fmt: skip
    parts = {"seen": (scored, seen), "unseen": (scored, ~seen)}
    for kind, scores in (untrained or {}).items():
        other = Scored(scores, scored.rows, benchmark)
        parts |= {kind: (other, seen), f"{kind}_unseen": (other, ~seen)}
    known: Distances = {}
    figures |= {name: report(whole.part(mask), known=known) for name, (whole, mask) in parts.items() if mask.any()}
    figures["gains"] = {name: gain(scored.part(mask), whole.part(mask)) for name, (whole, mask) in parts.items()
                        if whole is not scored and mask.any()}  # fmt: skip
    rows = scored.rows[seen] if seen.any() else scored.rows
    labels = benchmark.query_category(rows), benchmark.shape_category(), benchmark.relevant(rows)
    prior = category_prior(*labels, benchmark.query_category(benchmark.rows("train")))
    return figures | {"chance": chance(*labels), "prior": prior}


def gain(scored: Scored, other: Scored) -> list[float]:
    """Return the difference in Top-1 to other scores of the same photos, and its 95 % interval where there is one."""
    ours, theirs = (each.metrics()["top1"].numpy() for each in (scored, other))
    shapes = scored.benchmark.queries.shape_id.to_numpy()[scored.rows]
    between = paired_interval(ours, theirs, shapes) if len(np.unique(shapes)) > 1 else ()
    return [float((ours - theirs).mean()), *between]
