r"""Measure a run on the open real photos of Pix3D, half by half, beside a network that was never trained for it.

Every set is a prepared benchmark and a list that halves it (tools/pack/split_open_photos.py):

    python tools/measure/measure_real_photos.py RUN --half val --result outputs/real_val.json \
        "CAD mask=data/prepared/pix3d-open:pix3d-open" "no mask=data/prepared/crops:ikea-crops" …

Choose everything with ``val``; read ``test``, the half to report, once.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.splits import read_split
from cmiclib.evaluation.baselines import untrained_scores
from cmiclib.evaluation.report import Scored, report, score_index
from cmiclib.index import ShapeIndex
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.metrics import macro
from cmiclib.training.run import Run


class Photos(NamedTuple):
    """A set of photos: what it is called, its prepared benchmark, and the list that halves it."""

    label: str
    path: Path
    split: str


def parse_sets(texts: list[str]) -> list[Photos]:
    """Read ``LABEL=DIR:LIST``, several times."""
    sets = []
    for text in texts:
        label, _, rest = text.partition("=")
        path, _, split = rest.rpartition(":")
        sets.append(Photos(label, Path(path), split))
    return sets


def half_of(benchmark: Benchmark, split: str, half: str) -> np.ndarray:
    """Return bool (Q,): the photos of one half, found by the query's id or by the name of its file."""
    parts, queries = read_split(split), benchmark.queries
    names = [
        name if name in parts else Path(photo).stem for name, photo in zip(queries.query_id, queries.photo, strict=True)
    ]
    return np.array([parts[name] == half for name in names])


def figures(scored: Scored) -> dict[str, Any]:
    """Return the flat figures, and the means over shapes beside those over photos and categories."""
    values, shape = scored.metrics(), scored.benchmark.queries.shape_id.to_numpy()[scored.rows]
    by_shape = {f"shape_{name}": macro(values[name], shape) for name in ("top1", "top10", "category")}
    return report(scored, distances=False) | by_shape | {"gallery_size": len(scored.benchmark.shapes)}


def measure(run: Run, photos: Photos, half: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for the run and one for each untrained network on one half of a set, and where the run failed."""
    benchmark = Benchmark.open(photos.path)
    chosen = half_of(benchmark, photos.split, half)
    index = ShapeIndex.build(run.model(), benchmark, run.config)
    trained = score_index(index, benchmark, "all").part(chosen)
    rows = [{"model": "trained", **figures(trained)}]
    with torch.inference_mode():
        scores = untrained_scores(benchmark.images[trained.rows], benchmark.views)
    rows += [{"model": kind, **figures(Scored(value, trained.rows, benchmark))} for kind, value in scores.items()]
    table = trained.table()
    wrong = table[table.top1 == 0].rename(columns={"query_id": "photo_id"})
    failures = wrong[["photo_id", "shape_id", "category", "first", "rank", "margin"]].to_dict("records")
    about = {"photos": photos.label, "set": photos.split, "half": half}
    return [about | row for row in rows], [about | row for row in failures]


def main() -> None:
    """Measure all sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("sets", nargs="+", metavar="LABEL=DIR:LIST")
    parser.add_argument("--half", choices=("val", "test"), default="val")
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    run, rows, failures = Run.open(arguments.run), [], []
    for photos in parse_sets(arguments.sets):
        measured, wrong = measure(run, photos, arguments.half)
        rows, failures = rows + measured, failures + wrong
        for row in measured:
            print(
                {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items() if "given" not in k}, flush=True
            )
    made = environment()
    about = {"run": arguments.run.name, "config": run.config.digest(), "about": f"{made['date']}, {made['processor']}"}
    write_json(arguments.result, about | {"rows": rows, "failures": failures})


if __name__ == "__main__":
    main()
