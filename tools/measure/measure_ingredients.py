r"""Measure what each ingredient of the profile ``photos`` gives, on the ``val`` half of the open real photos.

A short training with the ingredient and one without share seed and schedule; their photos are compared one by one.
Runs are loaded where they are finished, so a measurement that was stopped goes on:

    python tools/measure/measure_ingredients.py --benchmark data/prepared/pix3d-synthetic --runs outputs/ingredients \
        --result data/results/ingredients.json \
        "CAD mask=data/prepared/pix3d-open:pix3d-open" "no mask=data/prepared/crops:ikea-crops"
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from measure_real_photos import Photos, half_of, parse_sets

from cmiclib.benchmark import Benchmark
from cmiclib.config import profile
from cmiclib.errors import BookError
from cmiclib.evaluation.report import score_index
from cmiclib.index import ShapeIndex
from cmiclib.io.atomic import write_json
from cmiclib.io.files import read_json
from cmiclib.io.provenance import environment
from cmiclib.metrics import paired_interval
from cmiclib.training.loop import train_or_load

SCALE = [
    "model.image_size=96", "train.batch=64", "train.steps=200", "train.eval_every=200", "train.view_copies=2",
]  # fmt: skip
INGREDIENTS = {
    "the photo encoder learns": (["model.frozen=8"], []),
    "every shape in each step": (["train.shapes=0"], []),
    "crops keep their proportions": (["augment.aspect=1.3333"], []),
    "colour transfer": (["augment.color=none"], []),
    "things in front": (["augment.occlusion=0"], []),
    "damaged masks": (["augment.mask_damage=0"], []),
    "dropped masks": (["augment.mask_drop=0"], []),
    "mirror image in evaluation": (["model.mirror=false"], []),
    "both directions of the loss": ([], ["loss.symmetric=true"]),
    "hard negatives weighted": ([], ["loss.hard_negatives=1.0"]),
    "twice the steps": ([], ["train.steps=400", "train.eval_every=400"]),
}
"""What each is called: how the run without it and the run with it differ from the profile."""
REMOVED = ("mixed feature statistics",)
"""Ingredients without a measured gain, whose code is gone; the stored figures stay."""
ONLY_EVALUATION = "model.mirror"

Side = tuple[str, ...]
"""How one side of a comparison differs from the profile."""


def scores(overrides: Side, seed: int, benchmark: Path, runs: Path, photos: list[Photos]) -> list[np.ndarray]:
    """Train a run, or load it where it is finished; return which photos of each set have the right shape first.

    Returns:
        bool (Q,) for each set of photos.
    """
    matters = [text for text in overrides if not text.startswith(ONLY_EVALUATION)]
    config = profile("photos", [*SCALE, *matters, f"train.seed={seed}"])
    run = train_or_load(config, Benchmark.open(benchmark), runs)
    config = run.config.override(list(overrides))
    right = []
    for each in photos:
        opened = Benchmark.open(each.path)
        index = ShapeIndex.build(run.model(), opened, config)
        scored = score_index(index, opened, "all").part(half_of(opened, each.split, "val"))
        right.append(scored.metrics()["top1"].numpy())
    return right


def all_scores(
    seeds: list[int], benchmark: Path, runs: Path, photos: list[Photos], jobs: int
) -> dict[tuple[Side, int], list[np.ndarray]]:
    """Return `scores` of every side of every comparison, several runs at once."""
    sides = sorted({tuple(side) for pair in INGREDIENTS.values() for side in pair})
    keys = [(side, seed) for seed in seeds for side in sides]
    found = Parallel(jobs)(delayed(scores)(side, seed, benchmark, runs, photos) for side, seed in keys)
    return dict(zip(keys, found, strict=True))


def shapes_of(photos: Photos) -> np.ndarray:
    """Return the shape of each photo of a set's val half."""
    opened = Benchmark.open(photos.path)
    return opened.queries.shape_id.to_numpy()[half_of(opened, photos.split, "val")]


def compare(
    ingredient: str, found: dict[tuple[Side, int], list[np.ndarray]], seeds: list[int], photos: list[Photos]
) -> list[dict[str, Any]]:
    """Compare photos with and without an ingredient over all seeds, one row a set of photos."""
    without, with_ = ([found[tuple(side), seed] for seed in seeds] for side in INGREDIENTS[ingredient])
    rows = []
    for i, each in enumerate(photos):
        a, b = (np.concatenate([right[i] for right in results]) for results in (with_, without))
        low, high = paired_interval(a, b, np.tile(shapes_of(each), len(seeds)))
        rows.append({
            "ingredient": ingredient, "photos": each.label, "without": float(b.mean()), "with": float(a.mean()),
            "difference": float(a.mean() - b.mean()), "low": low, "high": high,
            "by_seed": [float(x[i].mean() - y[i].mean()) for x, y in zip(with_, without, strict=True)],
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure all ingredients, and store them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="LABEL=DIR:LIST")
    parser.add_argument("--benchmark", type=Path, required=True, help="the rendered photos to train on")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1, help="runs that are trained at once")
    arguments = parser.parse_args()
    photos = parse_sets(arguments.sets)
    found = all_scores(arguments.seeds, arguments.benchmark, arguments.runs, photos, arguments.jobs)
    rows = [row for ingredient in INGREDIENTS for row in compare(ingredient, found, arguments.seeds, photos)]
    stored = read_json(arguments.result, BookError, "restore it from git")["rows"] if arguments.result.is_file() else []
    rows += [row for row in stored if row["ingredient"] in REMOVED]
    made = environment()
    about = {"seeds": arguments.seeds, "about": f"{made['date']}, {made['processor']}", "overrides": SCALE}
    write_json(arguments.result, about | {"rows": rows})
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
