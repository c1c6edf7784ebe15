"""Train the demo with other seeds, and on other seen shapes, and evaluate each run as chapter 7 does.

    python tools/measure/measure_seeds.py --work DIR --result data/results/seeds.json [--seeds 5]

*Reported* is the benchmark as it is. Its unseen shapes took part in the choice of the demo's settings, so *fresh*
holds out other shapes: at most as many of each category, drawn from the seen shapes in whole groups of variants. All
photos of these shapes are then test photos. The reported unseen shapes stay unseen: their test photos are removed, and
their validation photos help to choose a run's step, as in the demo. What is done already is passed over; a run of
another method or another configuration is measured anew.
"""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmiclib.benchmark import Benchmark
from cmiclib.config import profile
from cmiclib.engine.memory import keep_memory
from cmiclib.evaluation.baselines import kept_untrained_scores
from cmiclib.evaluation.masks import UNTRAINED, beside, by_mask, other_masks
from cmiclib.evaluation.report import Scored, score_index
from cmiclib.index.cache import gallery_index, photo_vectors
from cmiclib.io.atomic import write_json
from cmiclib.io.files import read_json
from cmiclib.io.provenance import environment
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.training.loop import run_name, train_or_load
from cmiclib.training.run import Run

FRESH = 0  # the seed of the draw


def other_unseen(benchmark: Benchmark, seed: int = FRESH) -> Benchmark:
    """Return the benchmark with other unseen shapes, and without the test photos of those that were unseen before."""
    queries = benchmark.queries.copy()
    shapes = benchmark.shapes.set_index("shape_id").loc[queries.shape_id.unique(), ["category", "group"]]
    shapes["seen"] = queries.groupby("shape_id").seen.first()
    chosen: list[str] = []
    random = np.random.default_rng(seed)
    for category, number in shapes[~shapes.seen].category.value_counts().sort_index().items():
        known = shapes[shapes.seen & (shapes.category == category) & ~shapes.group.isin(shapes.group[~shapes.seen])]
        found: list[str] = []
        for group in random.permutation(known.group.unique()):
            members = known.index[known.group == group]
            if len(found) + len(members) <= number:
                found += list(members)
        chosen += found
    drawn = queries.shape_id.isin(chosen)
    keep = ~((queries.split == "test") & ~queries.seen).to_numpy()
    queries.loc[drawn, ["split", "seen"]] = "test", False
    queries = queries[keep].reset_index(drop=True)
    arrays = {
        name: array[keep] if name in ("queries.npy", "amodal.npy") else array
        for name, array in benchmark.arrays.items()
    }
    sha256 = benchmark.meta["sha256"] | {
        "queries.csv": hashlib.sha256(queries.to_csv(index=False).encode()).hexdigest(),
        "queries.npy": hashlib.sha256(arrays["queries.npy"].tobytes()).hexdigest(),
    }
    return replace(
        benchmark, queries=queries, arrays=arrays, meta=benchmark.meta | {"sha256": sha256, "queries": len(queries)}
    )


def evaluate(run: Run, benchmark: Benchmark, work: Path) -> list[dict[str, Any]]:
    """Return a row for each kind of mask and each part of the test photos."""
    index = gallery_index(run, benchmark)
    scored = score_index(index, benchmark, "test", photo_vectors(run, index, benchmark, "test"))
    marked = other_masks(benchmark, "test", work)
    also = score_index(index, marked, "test", photo_vectors(run, index, marked, "test"))
    untrained = kept_untrained_scores(benchmark, "test", work, marked)
    rival = Scored(untrained[UNTRAINED][: len(scored.rows)], scored.rows, benchmark)
    seen = benchmark.queries.seen.to_numpy()[scored.rows]
    exact = {part: beside(scored.part(mask), rival.part(mask)) for part, mask in (("seen", seen), ("unseen", ~seen))}
    others = by_mask(also, {name: scores[len(scored.rows) :] for name, scores in untrained.items()})
    return [
        {"part": part, "given": kind, "photos": int((seen == (part == "seen")).sum()), **figures}
        for kind, parts in {"given": exact, **others}.items() for part, figures in parts.items()
    ]  # fmt: skip


def main() -> None:
    """Train, evaluate and write after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="runs and what can be kept for them")
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, help="of the benchmark as it is")
    parser.add_argument("--fresh-seeds", type=int, default=1, help="with other unseen shapes")
    given = parser.parse_args()
    keep_memory()
    shipped = open_sweethome()
    seeds = [profile("demo").train.seed, *range(1, max(given.seeds, given.fresh_seeds))]
    todo = [("fresh", seed) for seed in seeds[: given.fresh_seeds]]
    todo += [("reported", seed) for seed in seeds[: given.seeds]]
    benchmarks = {"reported": shipped, "fresh": other_unseen(shipped)}
    stored = read_json(given.result, ValueError, "") if given.result.exists() else {"runs": []}
    runs = {run["run"]: run for run in stored["runs"]}
    wanted = []
    for split, seed in todo:
        config, benchmark = profile("demo", [f"train.seed={seed}"]), benchmarks[split]
        name = run_name(config, benchmark)
        if name not in runs:
            run = train_or_load(config, benchmark, given.work / "runs")
            rows = evaluate(run, benchmark, given.work)
            runs[name] = {"run": name, "split": split, "seed": seed, "rows": rows}
        wanted.append(name)
        made = {
            "config": profile("demo").digest(), "benchmark_hash": shipped.hash, "environment": environment(),
            "runs": [runs[each] for each in wanted],
        }  # fmt: skip
        write_json(given.result, made)
        best = {(row["part"], row["given"]): round(row["trained"]["top1"], 3) for row in runs[name]["rows"]}
        print(split, seed, best, flush=True)


if __name__ == "__main__":
    main()
