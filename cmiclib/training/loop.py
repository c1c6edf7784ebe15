"""Training: one loop, read from top to bottom, as in the released code but for its defects.

The model is chosen by the validation photos; test photos are never opened here. All randomness of a step is a
function of (seed, step), so a run that was stopped goes on as if nothing had happened.
"""

import hashlib
import json
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..augment import augment_queries, augment_views
from ..batches import draw_batch, step_generator
from ..benchmark import Benchmark
from ..config import Config
from ..embed import autocast, default_device, embed_in_shares, head_vectors, photo_vectors, query_maps
from ..engine.device import prefetch, to_device
from ..engine.distributed import ALONE, Processes, share_statistics
from ..errors import CheckpointError, ConfigError, StorageError, TrainingError
from ..io.atomic import write_json
from ..io.provenance import code_digest, environment
from ..losses import cmic_loss
from ..metrics import retrieval_metrics
from ..model import CMIC, build_model
from .features import FOLDER, AugmentedFeatures, FrozenFeatures, ValidationFeatures, draw_photos, draw_views
from .guard import DIVERGED, SAVE_SECONDS, CheckpointTimer, check_loss, check_weights, warn_if_collapsed
from .jittor_optim import keep_biased_variance
from .optimizer import fuse_operations, learning_rate, make_optimizer, set_learning_rate
from .run import Run, clear, has_state, load_state, save_state, save_weights

METHOD = (
    "engine", "augment", "batches", "color", "damage", "embed", "encoders", "losses", "metrics", "model", "scan",
    "training", "weights",
)  # fmt: skip
"""The rooms and modules that a run's weights depend on; a change of one of them makes a new run."""
PICTURES = AugmentedFeatures()


@dataclass(frozen=True)
class TrainingData:
    """The training photos and the shapes that a step may put beside them, whole, on the training device.

    These are the shapes on the photos and, with ``train.distractors``, those of which there is no photo at all. A shape
    that only other photos show is unseen: not even its views are looked at.
    """

    photos: Tensor  # (P, 4, S, S) uint8
    photo_shape: Tensor  # (P,) row of views, on the CPU
    views: Tensor  # (N, V, S, S) uint8
    category: Tensor  # (N,) code of each shape
    copies: AugmentedFeatures = PICTURES

    @classmethod
    def load(cls, benchmark: Benchmark, device: torch.device, distractors: bool = True) -> "TrainingData":
        """Read the training part of a benchmark."""
        rows = benchmark.rows("train")
        own = benchmark.relevant(rows).argmax(axis=1)  # (P,) gallery row of each photo's shape
        without_photo = np.flatnonzero(~benchmark.photographed)
        shapes = np.union1d(own, without_photo) if distractors else np.unique(own)
        return cls(
            photos=torch.from_numpy(benchmark.images[rows]).to(device),
            photo_shape=torch.from_numpy(np.searchsorted(shapes, own)),
            views=torch.from_numpy(benchmark.views[shapes]).to(device),
            category=torch.from_numpy(benchmark.shape_category()[shapes]).to(device),
        )


def run_name(config: Config, benchmark: Benchmark) -> str:
    """Name a run by everything it depends on: configuration, data and the code of the method."""
    key = f"{config.digest()} {benchmark.hash} {code_digest(METHOD)}"
    return f"{config.profile}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


def train_or_load(config: Config, benchmark: Benchmark, runs: str | Path, progress: bool = True) -> Run:
    """Return the finished run of this configuration on this benchmark; train it, or go on training it, if need be.

    What the frozen stages return stays in ``runs/features`` (0.4 GB for the demo) for runs that differ in what follows.
    """
    path = Path(runs) / run_name(config, benchmark)
    if (path / "environment.json").is_file():
        return Run.open(path)
    return train(config, benchmark, path, resume=True, progress=progress, features=path.parent / FOLDER)


def train(
    config: Config,
    benchmark: Benchmark,
    path: str | Path,
    *,
    resume: bool = False,
    until: int | None = None,
    progress: bool = True,
    device: torch.device | None = None,
    features: Path | None = None,
    processes: Processes = ALONE,
    fuse: bool = False,
    save_seconds: float = SAVE_SECONDS,
) -> Run:
    """Train on the benchmark's ``train`` photos, keep the weights that are best on its ``val`` photos.

    Args:
        config: the whole configuration.
        benchmark: any prepared benchmark.
        path: the run folder.
        resume: go on from the folder's last state, if it has one.
        until: stop after so many steps, a multiple of ``train.eval_every``; the rest is for another call.
        progress: show a progress bar.
        device: default: the first GPU, else the CPU.
        features: folder in which runs share what the frozen stages return; see :mod:`cmiclib.training.features`.
        processes: train with several, see :mod:`cmiclib.engine.distributed`; only the first one writes.
        fuse: let ``torch.compile`` fuse the step's operations; rounding and dropout's draws are then others.
        save_seconds: a state is written after so long, besides those at each look at the validation photos.

    Raises:
        ConfigError: ``until`` lies between two looks at the validation photos; no compiler for ``fuse``.
        TrainingError: too few shapes for the batch, no validation photos, or a loss that is not a number.
        CheckpointError: initial weights or a resume state that cannot be read.
        StorageError: the disk is full.
    """
    path, device = Path(path), device or default_device()
    if until is not None and (until <= 0 or until % config.train.eval_every):
        raise ConfigError(
            f"cannot stop after step {until}",
            fix=f"choose a multiple of train.eval_every, which is {config.train.eval_every}",
        )
    benchmark = benchmark.without_test_labels()
    val = benchmark.rows("val")
    if len(val) == 0:
        raise TrainingError(
            "the benchmark has no validation photos to choose the weights by",
            path=benchmark.path,
            fix="give some photos the split 'val' in queries.csv",
        )
    state_file, identity = path / "checkpoint" / "state.pt", f"{config.digest()} {benchmark.hash}"
    state: dict[str, Any] = {"run": identity, "step": 0, "best": -1.0, "seconds": 0.0}
    if resume and has_state(state_file):
        state = load_state(state_file)
        if state["run"] != identity:
            raise CheckpointError(
                "the resume state belongs to another configuration or benchmark",
                path=state_file,
                fix="give the same ones again, another run folder, or start anew without --resume",
            )
    processes.barrier()  # nobody clears what another one still has to read
    if processes.first:
        if state["step"] == 0:
            clear(path)
        write_json(path / "config.json", config.model_dump(mode="json"))
        write_json(path / "data.json", manifest(benchmark))

    data = TrainingData.load(benchmark, device, config.train.distractors)
    torch.manual_seed(config.train.seed)
    model = build_model(config.model).to(device)
    if config.model.running_variance == "biased":
        keep_biased_variance(model)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if processes.count > 1:
        share_statistics(model, device)
    optimizer = make_optimizer(model, config.train)
    if state["step"] > 0:
        model.load_state_dict(state.pop("model"))
        optimizer.load_state_dict(state.pop("optimizer"))
    log, progress = path / "log.jsonl", progress and processes.first
    if processes.first:
        cut_log(log, state["step"])

    started = time.perf_counter() - state["seconds"]
    model.train()
    still = None
    if config.train.copies or config.train.view_copies:
        frozen = FrozenFeatures(model, benchmark, config, features)
        data, still = replace(data, copies=frozen.augmented(data.photos, data.views, progress)), frozen.validation()
    step_model = DistributedDataParallel(model) if processes.count > 1 else model
    if fuse:
        fuse_operations(step_model)
    steps = range(state["step"], min(until or config.train.steps, config.train.steps))
    bar = tqdm(steps, desc="training", initial=state["step"], total=config.train.steps, disable=not progress)
    inputs_ahead = closing(prefetch(partial(step_input, data, config), steps, device))
    with CheckpointTimer(save_seconds, processes, device) as pace, inputs_ahead as inputs:
        for step, given in zip(bar, inputs, strict=True):
            set_learning_rate(optimizer, learning_rate(step, config.train))
            total, instance, category = training_loss(step_model, given, config, step, processes)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()

            done = step + 1
            evaluate = done % config.train.eval_every == 0 or done == config.train.steps
            note = evaluate or done % config.train.log_every == 0
            reads = note or device.type == "cpu"  # to read a number makes the host wait for a GPU
            if reads:
                rows = data.photo_shape, len(data.views)
                check_loss(total.item(), step, rows, config.train, benchmark, path, processes.first)
            if note and processes.first:
                line = {"step": done, "loss": total.item(), "instance": instance.item(), "category": category.item()}
                seconds = time.perf_counter() - started
                append_log(log, line | {"lr": learning_rate(step, config.train), "seconds": seconds})
            if evaluate:
                scores = validate(model, benchmark, val, config, still, processes)
                if processes.first:
                    append_log(log, {"step": done, "val": scores, "seconds": time.perf_counter() - started})
                if processes.first and scores["mrr"] > state["best"]:
                    state["best"] = scores["mrr"]
                    save_weights(path / "model.safetensors", model)
            if pace.due(reads) or evaluate:
                check_weights(model, done, path)
                state |= {"step": done, "seconds": time.perf_counter() - started}
                if processes.first:
                    whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                    save_state(state_file, state | whole)
                pace.written(done)
    if processes.first and state["step"] == config.train.steps:
        write_json(path / "environment.json", environment() | {"seconds": round(state["seconds"], 1)})
    processes.barrier()
    return Run.open(path)


class StepInput(NamedTuple):
    """What one step compares, the whole batch, on the training device."""

    photos: Tensor  # (B, 4, size, size), or what the frozen stages returned for them
    views: Tensor  # (C, V, 1, size, size), or what the frozen stages returned for them
    target: Tensor  # (B,) the column of each photo's own shape
    category: Tensor  # (C,) code of each column's category


def step_input(data: TrainingData, config: Config, step: int) -> StepInput:
    """Draw and augment the batch of a step; a function of ``(config.train.seed, step)``."""
    device, size, settings = data.photos.device, config.model.image_size, config.train
    batch = draw_batch(data.photo_shape, len(data.views), settings.batch, settings.seed, step, settings.shapes)
    generator = step_generator(settings.seed, step, "augment")
    rows, shapes, target = (to_device(tensor, device) for tensor in (batch.photos, batch.shapes, batch.target))
    chosen = torch.rand(len(shapes), data.views.shape[1], generator=generator).argsort(1)[:, : settings.views]
    chosen = to_device(chosen, device)  # (C, V)
    with autocast(config, device):
        photos = (
            augment_queries(data.photos[rows], config.augment, size, generator)  # (B, 4, size, size)
            if data.copies.photos is None
            else draw_photos(data.copies.photos, rows, generator)
        )
        views = (
            augment_views(data.views[shapes[:, None], chosen], config.augment, size, generator)
            if data.copies.views is None
            else draw_views(data.copies.views, shapes, chosen, generator)
        )  # (C, V, …)
    return StepInput(photos, views, target, data.category[shapes])


def training_loss(
    model: CMIC | DistributedDataParallel, given: StepInput, config: Config, step: int, processes: Processes = ALONE
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of one step: total, instance and category term, each a scalar on the device.

    Every process has the whole batch, embeds its share and computes the whole loss.
    """
    photos, views, target, category = given
    purpose = "dropout" if processes.first else f"dropout {processes.rank}"
    torch.manual_seed(step_generator(config.train.seed, step, purpose).initial_seed())
    with autocast(config, photos.device):
        query, gallery = model(
            photos[processes.shard(len(photos))], views[processes.shard(len(views))],
            photos_are_features=config.train.copies > 0, views_are_features=config.train.view_copies > 0,
        )  # fmt: skip
    query, gallery = processes.gather(query, len(photos)), processes.gather(gallery, len(views))  # (B, d), (C, V, d)
    whole: CMIC = model.module if isinstance(model, DistributedDataParallel) else model
    scores = whole.score(query, gallery)  # (B, C)
    same = category[target][:, None] == category[None, :]  # (B, C)
    return cmic_loss(scores, target, same, config.loss)


@torch.inference_mode()
def validate(
    model: CMIC,
    benchmark: Benchmark,
    rows: np.ndarray,
    config: Config,
    still: ValidationFeatures | None = None,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Retrieval metrics of photos ``rows`` over the whole gallery; leaves the model in training mode."""
    model.eval()
    maps = query_maps(model, benchmark.images[rows], config) if still is None else still.queries
    query = photo_vectors(model, maps, config)  # with `model.mirror`, as evaluation does
    if still is None:
        views = embed_in_shares(model, benchmark.views, config, processes)
    else:
        views = head_vectors(model.view_encoder, still.views, config).unflatten(0, benchmark.views.shape[:2])
    warn_if_collapsed(query, views)
    device = model.attention_weight.device
    scores = model.score(query.to(device), views.to(device)).cpu()
    model.train()
    if not scores.isfinite().all():
        raise TrainingError("the scores of the validation photos are not numbers", fix=DIVERGED)
    return retrieval_metrics(
        scores,
        torch.from_numpy(benchmark.relevant(rows)),
        torch.from_numpy(benchmark.query_category(rows)),
        torch.from_numpy(benchmark.shape_category()),
    )


def manifest(benchmark: Benchmark) -> dict[str, Any]:
    """Say which data a run saw: name, hash and counts."""
    counts = {split: len(benchmark.rows(split)) for split in ("train", "val", "test")}
    return {"benchmark": benchmark.name, "hash": benchmark.hash, "shapes": len(benchmark.shapes), "photos": counts}


def cut_log(log: Path, step: int) -> None:
    """Take away the lines after ``step``, and all from the first damaged one on, that an interrupted run left."""
    kept = []
    for line in log.read_text(errors="replace").split("\n")[:-1] if log.is_file() else []:
        try:
            done = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError):  # a power loss leaves zeros, or half of what was written
            break
        if done <= step:
            kept.append(f"{line}\n")
    log.write_text("".join(kept))


def append_log(log: Path, line: dict[str, Any]) -> None:
    """Add one line to the log; raises StorageError where the disk is full."""
    try:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise StorageError(
            f"could not be written ({error})", path=log, fix="make room, then run again with --resume"
        ) from None
