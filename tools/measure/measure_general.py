"""Measure weights for any gallery on validation photos, beside the untrained network's cells.

    python tools/measure/measure_general.py --result data/results/general.json --photos DIR --work WORK

``WORK`` holds the runs of `tools/pack/train_general.py`: all libraries, and each left out. ``DIR`` holds the open real
photos of Pix3D, prepared (`cmic prepare pix3d`), of which the val half is read. A row's gain is the difference in Top-1
to the untrained cells on the same photos, with an interval resampled by shape.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.splits import read_split
from cmiclib.evaluation.baselines import untrained_scores
from cmiclib.evaluation.report import Scored
from cmiclib.index import ShapeIndex
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.metrics import paired_interval
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.training.features import FOLDER, FrozenFeatures
from cmiclib.training.run import Run

WEIGHTS = {
    "run-all": "all libraries",
    "run-without-pix3d": "without Pix3D",
    "run-without-sweethome": "without Sweet Home",
}
LIBRARIES = {"Sweet Home": "run-without-sweethome", "Pix3D, real photos": "run-without-pix3d"}


def unmasked(benchmark: Benchmark) -> Benchmark:
    """Return the same crops, where everything counts as the object."""
    images = np.array(benchmark.images)
    images[:, 3] = 255
    hashes = benchmark.meta["sha256"] | {"queries.npy": benchmark.meta["sha256"]["queries.npy"] + " unmasked"}
    return replace(
        benchmark, arrays=benchmark.arrays | {"queries.npy": images}, meta=benchmark.meta | {"sha256": hashes}
    )


def measure(gallery: str, benchmark: Benchmark, rows: np.ndarray, work: Path) -> list[dict[str, Any]]:
    """Return the rows of one library: each way to mark the object, each of the weights.

    The weights share their frozen stages, so the gallery passes these once.
    """
    made, shapes = [], benchmark.queries.shape_id.to_numpy()[rows]
    ways = {"mask": benchmark, "box": unmasked(benchmark)}
    with torch.inference_mode():
        photos = np.concatenate([known.images[rows] for known in ways.values()])
        plain = untrained_scores(photos, benchmark.views)["untrained_cells"].split(len(rows))
    indexes = {}
    for folder, name in WEIGHTS.items():
        if (work / folder / "model.safetensors").is_file():
            run = Run.open(work / folder)
            model = run.model()
            maps = FrozenFeatures(model, benchmark, run.config, work / FOLDER).gallery()
            indexes[name] = ShapeIndex.build(model, benchmark, run.config, maps=maps)
    for (marked, known), scores in zip(ways.items(), plain, strict=True):
        values = {"untrained cells": Scored(scores, rows, known).metrics()}
        for name, index in indexes.items():
            values[name] = Scored(index.scores(index.embed(known.images[rows])), rows, known).metrics()
        best = values["untrained cells"]
        for name, value in values.items():
            low, high = paired_interval(value["top1"], best["top1"], shapes)
            figures = {key: float(value[key].double().mean()) for key in ("top1", "top10", "mrr")}
            made.append({
                "gallery": gallery, "shapes": len(known.shapes), "photos": len(rows), "marked by": marked,
                "weights": name, "foreign": WEIGHTS[LIBRARIES[gallery]] == name,
                **figures, "untrained_top1": float(best["top1"].double().mean()), "gain_low": low, "gain_high": high,
            })  # fmt: skip
            print(
                {key: round(text, 3) if isinstance(text, float) else text for key, text in made[-1].items()}, flush=True
            )
    return made


def main() -> None:
    """Measure both libraries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    given = parser.parse_args()
    home, real = open_sweethome(), Benchmark.open(given.photos)
    parts = read_split("pix3d-open")
    half = np.array([parts.get(name) == "val" for name in real.queries.query_id])
    rows = measure("Sweet Home", home, home.rows("val"), given.work)
    rows += measure("Pix3D, real photos", real, np.flatnonzero(half), given.work)
    made = environment()
    write_json(given.result, {"about": f"{made['date']}, {made['processor']}", "environment": made, "rows": rows})


if __name__ == "__main__":
    main()
