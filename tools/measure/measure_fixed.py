"""Measure what fixed numbers beside the learnt ones (`model.fixed`) give on training shapes that are left out.

    python tools/measure/measure_fixed.py --runs outputs/demo/runs --result data/results/fixed.json

The photographed training shapes are drawn into four parts, near-identical shapes together. The demo's heads are trained
four times, each time without the photos and views of one part, and retrieve the validation photos of that part and of
the others over the whole gallery. Neither the shapes that the demo holds out nor any test photo takes part, so what
this table chooses leaves both untouched. Frozen features are read from the demo's run folder, or made there.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cmiclib.benchmark import Benchmark
from cmiclib.config import Config, profile
from cmiclib.embed import default_device
from cmiclib.engine.memory import keep_memory
from cmiclib.io.atomic import write_json
from cmiclib.io.provenance import environment
from cmiclib.metrics import top_k
from cmiclib.model import CMIC, attention_scores, build_model
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.training.features import FOLDER, AugmentedFeatures, FrozenFeatures, ValidationFeatures, fix_directions
from cmiclib.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from cmiclib.training.step import TrainingData, step_input, training_loss

PARTS = 4
FIXED, WHITEN, ATTENTION = (64, 128, 256), (0.0, 0.25, 0.5), (5.0, 15.0)
SHARES = (0.0, 0.2, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)


def parts_of(benchmark: Benchmark, shapes: np.ndarray) -> np.ndarray:
    """Return the part, 0 to 3, of each of ``shapes`` (n,), gallery rows; a group of variants is in one part."""
    groups = benchmark.shapes.group.to_numpy()[shapes]
    names = np.random.default_rng(0).permutation(np.unique(groups))
    return np.array([np.flatnonzero(names == group)[0] % PARTS for group in groups])


def without(data: TrainingData, left_out: np.ndarray) -> TrainingData:
    """Return the training data without the shapes ``left_out``, rows of ``data.views``, and without their photos."""
    shapes = np.setdiff1d(np.arange(len(data.views)), left_out)
    photos = np.flatnonzero(~np.isin(data.photo_shape.numpy(), left_out))
    own = torch.from_numpy(np.searchsorted(shapes, data.photo_shape.numpy()[photos]))
    copies = AugmentedFeatures(data.copies.photos[:, photos], data.copies.views[:, shapes])
    return TrainingData(data.photos[photos], own, data.views[shapes], data.category[shapes], copies)


def train_heads(data: TrainingData, config: Config) -> CMIC:
    """Train as `cmiclib.training.loop.train` does, without looking at validation photos; the last weights are kept."""
    torch.manual_seed(config.train.seed)
    model = build_model(config.model).train()
    optimizer = make_optimizer(model, config.train)
    for step in tqdm(range(config.train.steps), desc="training"):
        set_learning_rate(optimizer, learning_rate(step, config.train))
        loss, *_ = training_loss(model, step_input(data, config, step), config, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def vectors(model: CMIC, still: ValidationFeatures, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return vectors of the photos and of their mirror images, (2, Q, d), and of the gallery, (N, V, d)."""
    pairs = [model.query_encoder.head_forward(block).unflatten(0, (2, -1)) for block in still.queries]
    views = torch.cat([model.view_encoder.head_forward(block) for block in still.views])
    return torch.cat(pairs, dim=1), views.unflatten(0, size)


def measure(
    benchmark: Benchmark, data: TrainingData, still: ValidationFeatures, left_out: np.ndarray
) -> list[dict[str, float | str]]:
    """Train without ``left_out``, gallery rows; return a row for each setting."""
    gallery = np.union1d(own_shapes(benchmark), np.flatnonzero(~benchmark.photographed))
    part, plain = without(data, np.searchsorted(gallery, left_out)), profile("demo", ["model.fixed=0"])
    learnt = train_heads(part, plain)
    rows, size = benchmark.rows("val"), benchmark.views.shape[:2]
    right, seen = torch.from_numpy(benchmark.relevant(rows)), benchmark.queries.seen.to_numpy()[rows].astype(bool)
    held = torch.from_numpy(np.isin(right.float().argmax(dim=1).numpy(), left_out))
    others = torch.from_numpy(seen) & ~held
    (query, views), found = vectors(learnt, still, size), []
    for fixed in FIXED:
        for whiten in WHITEN:
            model = build_model(profile("demo", [f"model.fixed={fixed}"]).model).eval()
            fix_directions(model, part.copies.views, whiten)
            q, v = (each[..., -fixed:] for each in vectors(model, still, size))
            q, v = F.normalize(q, dim=-1), F.normalize(v, dim=-1)
            for attention in ATTENTION:
                weight = torch.block_diag(learnt.attention_weight.detach(), attention * torch.eye(fixed))
                for share in SHARES:
                    photos, shapes = (
                        torch.cat([known * (1 - share) ** 0.5, kept * share**0.5], dim=-1)
                        for known, kept in ((query, q), (views, v))
                    )
                    scores = attention_scores(F.normalize(photos.sum(dim=0), dim=1), shapes, weight)
                    hits = right.gather(1, top_k(scores, 10)[1])
                    row = {"fixed": fixed, "whiten": whiten, "attention": attention, "share": share}
                    for name, chosen in (("left out", held), ("seen", others)):
                        row[f"{name} photos"] = int(chosen.sum())
                        row[f"{name} Top-1"] = int(hits[chosen, 0].sum())
                        row[f"{name} Top-10"] = int(hits[chosen].any(dim=1).sum())
                    found.append(row)
    return found


def own_shapes(benchmark: Benchmark) -> np.ndarray:
    """Return the gallery rows of the shapes on training photos."""
    return np.unique(benchmark.relevant(benchmark.rows("train")).argmax(axis=1))


def main() -> None:
    """Measure all parts and settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    keep_memory()
    benchmark, config = open_sweethome().without_test_labels(), profile("demo")
    data = TrainingData.load(benchmark, default_device())
    torch.manual_seed(config.train.seed)
    model = build_model(config.model).to(memory_format=torch.channels_last)
    frozen = FrozenFeatures(model, benchmark, config, arguments.runs / FOLDER)
    data, still = replace(data, copies=frozen.augmented(data.photos, data.views)), frozen.validation()
    shapes = own_shapes(benchmark)
    of_shape, rows = parts_of(benchmark, shapes), []
    for part in range(PARTS):
        rows += measure(benchmark, data, still, shapes[of_shape == part])
    table = pd.DataFrame(rows).groupby(["fixed", "whiten", "attention", "share"], as_index=False).sum()
    for name in ("left out", "seen"):
        for figure in ("Top-1", "Top-10"):
            table[f"{name} {figure}"] /= table[f"{name} photos"]
    made = environment()
    about = (
        f"{made['date']}, {made['processor']}; validation photos, four parts of the training shapes left out in turn"
    )
    write_json(arguments.result, {"about": about, "config": config.digest(), "rows": table.to_dict("records")})


if __name__ == "__main__":
    main()
