"""Training on the device: the cost of the paper's steps, and its recipe for the minutes that are left."""

import itertools
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from profile_step import Step, host_synchronisations

from cmiclib.benchmark import Benchmark
from cmiclib.config import Config
from cmiclib.engine.device import prefetch
from cmiclib.sources.sweethome import open_sweethome
from cmiclib.study.speed import step_cost
from cmiclib.training.loop import step_input, train
from cmiclib.training.optimizer import fuse_operations
from gpu.part import ROOT, Part, breaks_the_process

BF16 = "train.precision=bf16"


def step(part: Part) -> None:
    """Training steps of the paper's profile: batches of 30 and as large as fits, both precisions, compiled or not."""
    part.case("fp32", lambda: measured_step(part, part.paper()), least=15)
    part.case("bf16", lambda: measured_step(part, part.paper(BF16)), least=15)
    part.case("bf16, largest", lambda: largest_step(part, BF16), least=25)
    part.case("fp32, largest", lambda: largest_step(part), least=30)
    part.case("bf16, compiled", lambda: measured_step(part, part.paper(BF16), fuse=True), least=60)


def measured_step(part: Part, config: Config, fuse: bool = False) -> dict[str, Any]:
    """Time steps whose input is made ahead, as in training, and steps that get one input again and again.

    Returns:
        ``seconds`` and ``learning`` of a step of either kind; ``waiting``, the share of a step that the input costs;
        ``input``, seconds to make one while nothing else runs; and what was counted.
    """
    if part.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    one = Step(config, part.device)
    if fuse and part.smoke:
        one.model.compile(backend="eager")  # without the C++ compiler, which takes a minute
    elif fuse:
        fuse_operations(one.model)
    started = time.perf_counter()
    one.whole(0)
    part.synchronise()
    first, number = time.perf_counter() - started, itertools.count(1)
    inner = 1 if part.smoke else max(2, min(10, 300 // config.train.batch))
    same = step_input(one.data, config, 0)

    def ahead() -> None:
        steps = [next(number) for _ in range(inner)]
        inputs = prefetch(partial(step_input, one.data, config), steps, part.device)
        for i, given in zip(steps, inputs, strict=True):
            one.learn(given, i)

    def repeated() -> None:
        for _ in range(inner):
            one.learn(same, 0)

    whole, learning = per_step(part.timed(ahead), inner), per_step(part.timed(repeated), inner)
    found: dict[str, Any] = {
        "seconds": whole, "learning": learning, "input": part.timed(lambda: one.input(next(number))),
        "waiting": max(0.0, 1 - learning["median"] / whole["median"]), "first_seconds": first, "steps_a_repeat": inner,
        "photos": config.train.batch, "views": config.train.batch * config.train.views,
        "size": config.model.image_size, "operations": step_cost(config)["operations"],
    }  # fmt: skip
    if part.on_gpu:
        found["peak_memory"] = torch.cuda.max_memory_allocated()
        if not fuse:
            found["host_waits"] = [line.replace(f"{ROOT}/", "") for line in host_synchronisations(one)]
    return found


def per_step(times: dict[str, Any], steps: int) -> dict[str, Any]:
    """Divide the times of a repeat by its steps."""
    return {name: value if name == "repeats" else value / steps for name, value in times.items()}


def largest_step(part: Part, *overrides: str) -> dict[str, Any]:
    """Measure a step of the largest batch that fits: extrapolate from two batches' memory, then shrink if need be."""
    if not part.on_gpu:
        return measured_step(part, part.paper(*overrides, "train.batch=6"))
    used = {}
    for batch in (16, 32):
        torch.cuda.reset_peak_memory_stats()
        Step(part.paper(*overrides, f"train.batch={batch}"), part.device).whole(0)
        used[batch] = torch.cuda.max_memory_allocated()
        part.tidy()
    batch = int(16 + (0.9 * torch.cuda.mem_get_info()[0] - used[16]) / (used[32] - used[16]) * 16)
    too_large: list[dict[str, Any]] = []
    while batch > 32:
        try:
            return measured_step(part, part.paper(*overrides, f"train.batch={batch}")) | {"too_large": too_large}
        except RuntimeError as error:  # memory, or a kernel that counts elements in 32 bits
            if breaks_the_process(error):
                raise
            too_large.append({"photos": batch, "error": f"{type(error).__name__}: {error}"[:200]})
        part.tidy()
        batch = int(0.8 * batch)
    return {"error": "no batch of more than 32 photos fits", "too_large": too_large}


def shipped(part: Part) -> Benchmark:
    """Open the shipped benchmark, unpacked in the report's work folder."""
    return open_sweethome(part.work, shapes=24 if part.smoke else None, jobs=8)


def start() -> str:
    """Say where the recipe starts: from the ImageNet weights of torch's cache, or at random where it lacks them."""
    weights = (torchvision.models.get_model_weights(name)["IMAGENET1K_V1"] for name in ("resnet50", "resnet18"))
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return "imagenet" if all((cache / Path(one.url).name).is_file() for one in weights) else "random"


def train_paper(part: Part) -> None:
    """Train by the paper's recipe on the shipped benchmark while time is left, and watch its validation photos."""
    every = 2 if part.smoke else 500
    recipe = [BF16, f"train.eval_every={every}", "train.log_every=50"]
    begin = [] if part.smoke else [f"model.init={start()}"]
    config, benchmark, folder = part.paper(*recipe, *begin), shipped(part), part.work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    part.write(
        init=config.model.init, recipe=recipe, shapes=len(benchmark.shapes), photos=len(benchmark.rows("train")),
        validation_photos=len(benchmark.rows("val")), size=config.model.image_size, batch=config.train.batch,
    )  # fmt: skip
    until, started = every, time.time()
    while True:
        run = train(config, benchmark, folder, resume=True, until=until, progress=False)
        looks = run.log[run.log["val.top1"].notna()]
        rows = looks[["step", "seconds", "val.top1", "val.top10", "val.category", "val.mrr"]].to_dict("records")
        part.write(steps=until, validation=rows, wall_seconds=time.time() - started)
        each = (time.time() - started) / until  # looks at the validation photos and saved states among it
        more = int(0.85 * part.left / each) // every * every
        if part.smoke or more <= 0 or until >= config.train.steps:
            return
        until += more
