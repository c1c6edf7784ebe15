"""Adapt to a gallery that nobody has photographed, by photos rendered of its meshes, and ask whether it helped.

Heads are trained on practice photos; photos that were rendered anew judge, for the adapted weights and for those that
were there before. They are renderings too: a gain on them says that the gallery's shapes are told apart better, not how
much is gained on a camera's photos.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..benchmark import Benchmark
from ..config import profile
from ..errors import TrainingError
from ..evaluation.report import score_index
from ..index import ShapeIndex
from ..io.atomic import write_json
from ..io.provenance import environment
from ..metrics import paired_interval
from ..sources import PrepareOptions
from ..sources.rendered import prepare_synthetic
from ..training.features import FOLDER
from ..training.loop import train
from ..training.run import Run

FEWEST, MOST = 4, 40  # practice photos of a shape
SECONDS = 0.7  # of a core for one of them: rendered, three times through the network, its part of the training
HELD_OUT = 2  # photos of a shape that judge
FIGURES = ("top1", "top10", "mrr")


@dataclass(frozen=True)
class Fit:
    """What an adaptation came to; the figures are means over the held-out photos."""

    run: Run
    before: dict[str, float]
    after: dict[str, float]
    gain: tuple[float, float]  # 95 % interval of the difference in Top-1, resampled by shape
    photos: int  # practice photos of each shape
    better: bool  # the adapted weights have the higher mean reciprocal rank


def photos_within(minutes: float, shapes: int, jobs: int) -> int:
    """Return how many practice photos of each shape a budget allows, from 4 to 40; one of them validates."""
    return int(np.clip(60 * minutes * jobs / (SECONDS * shapes), FEWEST, MOST))


def fit(gallery: Benchmark, output: Path, general: Run, options: PrepareOptions, minutes: float = 10) -> Fit:
    """Adapt to a gallery; ``output`` gets the photos, the run and ``figures.json``, and a second call goes on.

    TrainingError for a gallery of one shape, SourceError where a shape is seen from nowhere, and what
    :func:`cmiclib.training.loop.train` raises.
    """
    started, count = time.perf_counter(), len(gallery.shapes)
    if count < 2:
        raise TrainingError("one shape cannot be told apart from others", path=gallery.path, fix="add more meshes")
    photos = photos_within(minutes, count, options.jobs)
    practice = _photographed(gallery, output / f"practice-{photos}", options, photos, seed=0)
    config = profile("fit", [f"train.batch={min(192, count)}"])
    run = train(
        config, practice, output / f"run-{photos}", resume=True, features=output / FOLDER, progress=options.progress
    )
    judges = _photographed(gallery, output / "held-out", options, HELD_OUT, seed=1)
    values = []
    for each in (general, run):
        index = ShapeIndex.build(each.model(), judges, each.config)
        values.append(score_index(index, judges, "all").metrics())
    before, after = ({name: float(value[name].double().mean()) for name in FIGURES} for value in values)
    gain = paired_interval(values[1]["top1"], values[0]["top1"], judges.queries.shape_id.to_numpy())
    made = Fit(run, before, after, gain, photos, after["mrr"] > before["mrr"])
    told = {"before": before, "after": after, "gain": gain, "photos": photos, "better": made.better, "shapes": count}
    took = {"minutes": round((time.perf_counter() - started) / 60, 1), "environment": environment()}
    write_json(output / "figures.json", told | took)
    return made


def _photographed(gallery: Benchmark, path: Path, options: PrepareOptions, photos: int, seed: int) -> Benchmark:
    """Return a gallery's rendered photos, made now or before."""
    if (path / "benchmark.json").is_file():
        found = Benchmark.open(path, verify=False)
        if found.meta.get("gallery") != gallery.hash:
            problem = "these are photos of another state of the gallery"
            raise TrainingError(problem, path=path, fix="choose another --output")
        return found
    return prepare_synthetic(gallery.path, path, options, photos=photos, seed=seed).benchmark
