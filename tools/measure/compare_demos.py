"""Measure candidates for the demo profile: how well does each do on the validation photos, and how fast is it?

The test photos take no part. Each candidate is a line of overrides of the demo profile; results are written as they
come, and a finished candidate is loaded, not trained again:

    python tools/measure/compare_demos.py --benchmark DIR --runs outputs/candidates --result candidates.json \
        "model.query_backbone=resnet10t model.view_backbone=resnet10t" "augment.occlusion=0.5"
"""

import argparse
from pathlib import Path
from typing import Any

from cmiclib.benchmark import Benchmark
from cmiclib.config import profile
from cmiclib.io.atomic import write_json
from cmiclib.training.loop import run_name, train_or_load
from cmiclib.training.run import Run

KEPT = ("top1", "top10", "category", "mrr")


def row(run: Run, overrides: str) -> dict[str, Any]:
    """Summarise a run: what was changed, its speed, and the validation figures of the kept weights."""
    log, config = run.log, run.config
    looks = log.dropna(subset="val.mrr")
    best = looks.loc[looks["val.mrr"].idxmax()]
    training = log.seconds.diff().fillna(log.seconds)[log["val.mrr"].isna()].sum()
    pictures = config.train.steps * config.train.batch * (1 + config.train.views)
    return {
        "photos by": config.model.query_backbone,
        "views by": config.model.view_backbone,
        "pixels": config.model.image_size,
        "steps": config.train.steps,
        "overrides": overrides,
        "minutes": round(float(log.seconds.max()) / 60, 1),
        "pictures a second": round(pictures / training),
        **{name: round(float(best[f"val.{name}"]), 4) for name in KEPT},
    }


def main() -> None:
    """Train the candidates in order and store a table of all that are finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", type=Path, required=True, help="a prepared benchmark")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("candidates", nargs="+", help="overrides of the demo profile, separated by spaces")
    arguments = parser.parse_args()
    benchmark, rows = Benchmark.open(arguments.benchmark), []
    for overrides in arguments.candidates:
        run = train_or_load(profile("demo", overrides.split()), benchmark, arguments.runs)
        made = run.environment
        rows.append(row(run, overrides) | {"run": run_name(run.config, benchmark)})
        about = {"machine": f"{made['processor']}, {made['cores']} cores", "date": made["date"], "part": "val photos"}
        write_json(arguments.result, {**about, "benchmark": benchmark.name, "rows": rows})


if __name__ == "__main__":
    main()
