"""Measure what a learnt silhouette is worth where only a box marks the object.

    python tools/measure/measure_silhouette.py --result data/results/silhouette.json --photos DIR --work DIR

``--photos`` holds the open real photos of Pix3D, prepared (`cmic prepare pix3d`), of which the val half is read; of
Sweet Home, validation photos. In ``--work`` photos are rendered of Sweet Home's shapes; those are asked for whose shape
has no photo otherwise: lamps, sinks, bicycles, of no category that the silhouette has learnt. The box is that of the
exact mask: of the whole object, but in Sweet Home's own photos of what is visible. A row's gain is the difference to
the box alone on the same photos, resampled by shape.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.splits import read_split
from cmiclib.cli.common import SHIPPED_INDEX
from cmiclib.evaluation.masks import from_box
from cmiclib.evaluation.report import Scored
from cmiclib.index import ShapeIndex
from cmiclib.index.cache import gallery_index
from cmiclib.index.query import Query, embed
from cmiclib.io.atomic import write_json
from cmiclib.io.code import WEIGHTS
from cmiclib.io.provenance import environment
from cmiclib.metrics import paired_interval
from cmiclib.silhouette import boxes_of, cut_softly, silhouettes
from cmiclib.sources.rendered import prepare_synthetic
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.training.run import Run

KEPT = ("top1", "top10", "mrr")
ALONE, SHIPPED = "box alone", "box, learnt silhouette"


def with_mask(photos: np.ndarray, masks: np.ndarray | int) -> np.ndarray:
    """Return photos (Q, 4, S, S) with other masks, 0 to 255."""
    changed = photos.copy()
    changed[:, 3] = masks
    return changed


def measure(
    gallery: str, benchmark: Benchmark, rows: np.ndarray, weights: str, index: ShapeIndex | None = None
) -> list[dict[str, Any]]:
    """Return one row for each way to mark the objects."""
    photos = np.array(benchmark.images[rows])
    exact, shapes = photos[:, 3] >= 128, benchmark.queries.shape_id.to_numpy()[rows]
    soft = silhouettes(photos, boxes_of(exact))
    found = soft >= 0.5
    overlap = float(((found & exact).sum((1, 2)) / (found | exact).sum((1, 2))).mean())
    index = index or gallery_index(Run.open(WEIGHTS / weights), benchmark, progress=True)
    bare = with_mask(photos, 255)
    alone, cut = index.embed(bare), index.embed(cut_softly(bare, soft))
    asked = [Query(photo, "", None, soft=each) for photo, each in zip(bare, soft, strict=True)]
    ways: dict[str, Callable[[], Any]] = {
        ALONE: lambda: alone,
        SHIPPED: lambda: embed(index, asked),
        "box, softly cut out only": lambda: cut,
        "box, silhouette as a mask": lambda: index.embed(with_mask(photos, 255 * found)),
        "box, GrabCut": lambda: index.embed(with_mask(photos, 255 * np.stack([from_box(photo) for photo in photos]))),
        "exact mask": lambda: index.embed(photos),
    }
    values = {name: Scored(index.scores(make()), rows, benchmark).metrics() for name, make in ways.items()}
    made, base = [], values[ALONE]
    for name, value in values.items():
        figures = {key: float(value[key].double().mean()) for key in KEPT}
        gains = {
            key: [figures[key] - float(base[key].double().mean()), *paired_interval(value[key], base[key], shapes)]
            for key in KEPT
        }
        about = {"gallery": gallery, "shapes": len(benchmark.shapes), "photos": len(rows), "weights": weights}
        made.append({**about, "marked by": name, **figures, "gains": gains, "overlap": overlap})
        print(gallery, weights, name, {key: round(100 * each, 1) for key, each in figures.items()}, gains, flush=True)
    return made


def of_other_categories(home: Benchmark, output: Path) -> tuple[Benchmark, np.ndarray]:
    """Return photos rendered of the shapes that have none, two of each, as a benchmark and its rows."""
    if not output.exists():
        prepare_synthetic(home.path, output, photos=2)
    made = Benchmark.open(output)
    assert made.meta["gallery"] == home.hash, f"{output} is of another state of Sweet Home; remove it"
    return made, np.flatnonzero(made.queries.shape_id.isin(home.shapes.shape_id[~home.photographed]))


def main() -> None:
    """Measure both libraries, and categories that the silhouette has not learnt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--result", type=Path, required=True)
    given = parser.parse_args()
    home, real = open_sweethome(), Benchmark.open(given.photos)
    parts = read_split("pix3d-open")
    half = np.flatnonzero([parts.get(name) == "val" for name in real.queries.query_id])
    rows = measure("Pix3D, real photos", real, half, "general")
    rows += measure("Pix3D, real photos", real, half, "pix3d-synthetic")
    rows += measure("Sweet Home", home, home.rows("val"), "general")
    rows += measure("Sweet Home", home, home.rows("val"), "demo, shipped", ShapeIndex.load(SHIPPED_INDEX))
    rows += measure("Sweet Home, other categories", *of_other_categories(home, given.work / "other"), "general")
    made = environment()
    write_json(given.result, {"about": f"{made['date']}, {made['processor']}", "environment": made, "rows": rows})


if __name__ == "__main__":
    main()
