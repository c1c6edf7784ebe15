"""Measure what each peculiarity of the released code does to our demo, on validation photos of seen shapes.

A run with the peculiarity and one without share seed and schedule; their photos are compared one by one.
Runs are loaded where they are finished, and the result grows row by row:

    python tools/measure/measure_quirks.py --runs outputs/quirks --result data/results/quirks.json
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from cmiclib.benchmark import Benchmark
from cmiclib.config import PRESETS, profile
from cmiclib.evaluation.report import score_run
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.metrics import paired_interval
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.training.loop import train_or_load

SCALE = ["model.image_size=128", "train.copies=3", "train.view_copies=1", "train.steps=600", "train.eval_every=600"]
ADAM = ["train.optimizer=adam", "train.weight_decay=0"]
QUIRKS = {
    "colour formula fed with 255": ([], ["augment.color=reference"]),
    "a photo can be its own style": ([], ["augment.style=any"]),
    "crops drawn by the clock": ([], ["augment.crops=clock"]),
    "category losses of 0 left out": ([], ["loss.zero_losses=dropped"]),
    "own shape among the positives": (["loss.include_instance=false"], ["loss.include_instance=true"]),
    "biased running variance": ([], ["model.running_variance=biased"]),
    "Adam's ε before the correction": (ADAM, [*ADAM, "train.optimizer=jittor-adam"]),
    "all together": ([*ADAM, "train.precision=fp32"], list(PRESETS["released"])),
}
"""What each is called: how the run without it and the run with it differ from the demo."""


def top1(overrides: list[str], seed: int, benchmark: Benchmark, runs: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each validation photo of a seen shape is right, and its shape."""
    config = profile("demo", [*SCALE, *overrides, f"train.seed={seed}"])
    scored = score_run(train_or_load(config, benchmark, runs), benchmark, "val")
    seen = benchmark.queries.seen.to_numpy()[scored.rows].astype(bool)
    right = scored.part(seen).metrics()["top1"].numpy()
    return right, benchmark.queries.shape_id.to_numpy()[scored.rows[seen]]


def compare(quirk: str, seeds: list[int], benchmark: Benchmark, runs: Path) -> dict[str, Any]:
    """Compare photos with and without a peculiarity, over all seeds."""
    without, with_, shapes = [], [], []
    for seed in seeds:
        for overrides, results in zip(QUIRKS[quirk], (without, with_), strict=True):
            right, shape = top1(overrides, seed, benchmark, runs)
            results.append(right)
        shapes.append(shape)
    a, b = np.concatenate(with_), np.concatenate(without)
    low, high = paired_interval(a, b, np.concatenate(shapes))
    by_seed = [float(x.mean() - y.mean()) for x, y in zip(with_, without, strict=True)]
    return {
        "quirk": quirk, "options": QUIRKS[quirk][1], "without": float(b.mean()), "with": float(a.mean()),
        "difference": float(a.mean() - b.mean()), "low": low, "high": high, "by_seed": by_seed,
    }  # fmt: skip


def main() -> None:
    """Measure all peculiarities, and store what is known after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    benchmark, rows = open_sweethome(), []
    for quirk in QUIRKS:
        rows.append(compare(quirk, arguments.seeds, benchmark, arguments.runs))
        made = environment()
        about = {
            "benchmark": benchmark.name, "part": "val photos of seen shapes", "seeds": arguments.seeds,
            "about": f"{made['date']}, {made['processor']}",
        }  # fmt: skip
        write_json(arguments.result, about | {"overrides": SCALE, "rows": rows})
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
