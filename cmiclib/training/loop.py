"""Training: one loop, read from top to bottom, as in the released code but for its defects.

The model is chosen by the validation photos; test photos are never opened here. All randomness of a step is a function
of (seed, step), so a run that was stopped goes on as if nothing had happened.
"""

import hashlib
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..benchmark import Benchmark
from ..config import Config
from ..embed import default_device, embed_in_shares, head_vectors, photo_vectors, query_maps
from ..engine.device import prefetch
from ..engine.distributed import ALONE, Processes, share_statistics
from ..errors import ConfigError, TrainingError
from ..io.atomic import write_json
from ..io.code import code_digest
from ..io.lock import alone
from ..io.provenance import environment
from ..metrics import retrieval_metrics
from ..model import CMIC, build_model
from .features import FOLDER, FrozenFeatures, ValidationFeatures, fix_directions
from .guard import DIVERGED, SAVE_SECONDS, CheckpointTimer, LossWatch, check_weights, warn_if_collapsed
from .jittor_optim import keep_biased_variance
from .optimizer import check_options, fuse_operations, learning_rate, make_optimizer, set_learning_rate
from .run import Run, save_weights
from .state import STATE, append_log, identity, is_finished, manifest, open_state, prepare, save_state
from .step import TrainingData, step_input, training_loss

METHOD = (
    "engine", "augment", "batches", "color", "crops", "damage", "embed", "encoders", "losses", "metrics", "model",
    "pretrained", "scan", "training", "weights",
)  # fmt: skip
"""The rooms and modules that a run's weights depend on; a change of one of them makes a new run."""


def run_name(config: Config, benchmark: Benchmark) -> str:
    """Name a run by everything it depends on: configuration, initial weights, data and the code of the method."""
    key = f"{identity(config, benchmark)} {code_digest(METHOD)}"
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
    config: Config, benchmark: Benchmark, path: str | Path, *, resume: bool = False, other_code: bool = False,
    until: int | None = None, progress: bool = True, device: torch.device | None = None, features: Path | None = None,
    processes: Processes = ALONE, fuse: bool = False, save_seconds: float = SAVE_SECONDS,
) -> Run:  # fmt: skip
    """Train on the benchmark's ``train`` photos, keep the weights that are best on its ``val`` photos.

    Without ``resume`` the run folder ``path`` must hold no weights and no state; with it, training goes on from the
    folder's last state, if there is one, and a finished run is returned as it is. ``other_code`` goes on even if the
    method's code has changed since; ``code.json`` records it. ``until`` stops after this step, a multiple of
    ``train.eval_every``; the rest is for another call.

    The device is by default the first GPU, else the CPU. In the folder ``features`` runs share what the frozen stages
    return, see :mod:`cmiclib.training.features`. Of several ``processes``, see :mod:`cmiclib.engine.distributed`, only
    the first one writes. ``fuse`` lets ``torch.compile`` fuse the step's operations, which changes rounding and
    dropout's draws. A state is written every ``save_seconds``, besides those at each validation.

    Raises:
        ConfigError: ``until`` lies between two validations; options that contradict each other; no compiler.
        TrainingError: too few shapes, no validation photos, a loss of NaN or Inf, another process in this folder.
        CheckpointError: initial weights or a resume state that cannot be read or does not fit; a folder in use.
        StorageError: the disk is full.
    """
    path, device = Path(path), device or default_device()
    if until is not None and (until <= 0 or until % config.train.eval_every):
        fix = f"choose a multiple of train.eval_every, which is {config.train.eval_every}"
        raise ConfigError(f"cannot stop after step {until}", fix=fix)
    benchmark = benchmark.without_test_labels()
    val = benchmark.rows("val")
    if len(val) == 0:
        problem = "the benchmark has no validation photos to choose the weights by"
        raise TrainingError(problem, path=benchmark.path, fix="give some photos the split 'val' in queries.csv")
    with alone(path, TrainingError) if processes.first else nullcontext():
        if resume and is_finished(path, config, benchmark):
            return Run.open(path)
        state = open_state(path, identity(config, benchmark), code_digest(METHOD), resume, other_code)

        data = TrainingData.load(benchmark, device, config.train.distractors)
        data.draw(config.train, state["step"])  # raises where the batch is too large
        torch.manual_seed(config.train.seed)
        model = build_model(config.model).to(device)
        check_options(model)
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
        started, progress = time.perf_counter() - state["seconds"], progress and processes.first
        model.train()
        still = None
        if config.train.copies or config.train.view_copies:
            frozen = FrozenFeatures(model, benchmark, config, features)
            data, still = replace(data, copies=frozen.augmented(data.photos, data.views, progress)), frozen.validation()
        if state["step"] == 0:
            fix_directions(model, data.copies.views)
        step_model = DistributedDataParallel(model) if processes.count > 1 else model
        if fuse:
            fuse_operations(step_model)

        processes.barrier()  # all have read what the first one now clears
        if processes.first:
            prepare(path, state)
            write_json(path / "config.json", config.model_dump(mode="json"))
            write_json(path / "data.json", manifest(benchmark))
        steps = range(state["step"], min(until or config.train.steps, config.train.steps))
        bar = tqdm(steps, desc="training", initial=state["step"], total=config.train.steps, disable=not progress)
        inputs_ahead = closing(prefetch(partial(step_input, data, config), steps, device))
        log, watch = path / "log.jsonl", LossWatch(device)
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
                watch.note(total, step)
                if reads:
                    watch.check(data, config.train, benchmark, path, processes.first)
                if note and processes.first:
                    line = {"step": done, "loss": total.item(), "instance": instance.item()}
                    line |= {"category": category.item(), "lr": learning_rate(step, config.train)}
                    append_log(log, line | {"seconds": time.perf_counter() - started})
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
                        save_state(path / STATE, state | whole)
                    pace.written(done)
        if processes.first and state["step"] == config.train.steps:
            write_json(path / "environment.json", environment(device) | {"seconds": round(state["seconds"], 1)})
        processes.barrier()
        return Run.open(path)


@torch.inference_mode()
def validate(
    model: CMIC, benchmark: Benchmark, rows: np.ndarray, config: Config, still: ValidationFeatures | None = None,
    processes: Processes = ALONE,
) -> dict[str, float]:  # fmt: skip
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
    labels = benchmark.relevant(rows), benchmark.query_category(rows), benchmark.shape_category()
    relevant, of_photos, of_shapes = map(torch.from_numpy, labels)
    return retrieval_metrics(scores, relevant, of_photos, of_shapes)
