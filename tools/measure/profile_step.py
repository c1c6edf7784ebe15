"""Profile training steps: where their time goes, how much of it is waiting for data, and what makes the host wait.

    python tools/measure/profile_step.py --profile demo
    python tools/measure/profile_step.py --profile paper train.precision=bf16      # on a GPU, where there is one
    torchrun --nproc-per-node=2 tools/measure/profile_step.py --small

Pictures are noise and initial weights random, which changes no time; photos and shapes are as many as a step needs.
"""

import argparse
import json
import time
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function

from cmiclib.config import PROFILES, Config
from cmiclib.config import profile as profile_config
from cmiclib.engine.distributed import ALONE, Processes, joined, own_device, share_statistics
from cmiclib.model import CMIC
from cmiclib.study.speed import median
from cmiclib.training.features import AugmentedFeatures
from cmiclib.training.optimizer import make_optimizer
from cmiclib.training.step import StepInput, TrainingData, step_input, training_loss

SMALL = [
    "model.query_backbone=resnet18", "model.view_backbone=resnet18", "model.image_size=64", "model.init=random",
    "train.batch=24", "train.views=3", "train.steps=1000",
]  # fmt: skip
STORED = 224
"""Side of the stored pictures."""


def noise_data(config: Config, model: CMIC, device: torch.device) -> TrainingData:
    """Return training data of the kind that a configuration reads: pictures, or what the frozen stages return."""
    photos = shapes = max(config.train.batch, config.train.shapes) + 10
    size = config.model.image_size

    def pictures(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def maps(copies: int, encoder: torch.nn.Module, channels: int, *shape: int) -> Tensor | None:
        if not copies:
            return None
        one = encoder.frozen_forward(torch.rand(1, channels, size, size, device=device))  # type: ignore[operator]
        return torch.rand(copies, *shape, *one.shape[1:], device=device)

    channels = 4 if config.model.mask == "channel" else 3
    return TrainingData(
        photos=pictures(photos, 4, STORED, STORED),
        photo_shape=torch.arange(photos),
        views=pictures(shapes, 12, STORED, STORED),
        category=torch.arange(shapes, device=device) % 4,
        copies=AugmentedFeatures(
            maps(config.train.copies, model.query_encoder, channels, photos),
            maps(config.train.view_copies, model.view_encoder, 1, shapes, 12),
        ),
    )


class Step:
    """A training step that can be repeated, as in :mod:`cmiclib.training.loop`."""

    def __init__(self, config: Config, device: torch.device, processes: Processes = ALONE):
        self.config, self.device, self.processes = config, device, processes
        torch.manual_seed(0)
        model = CMIC(config.model).to(device).train()
        if config.train.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.data = noise_data(config, model, device)
        if processes.count > 1:
            share_statistics(model, device)
        self.optimizer = make_optimizer(model, config.train)
        self.model: Any = DistributedDataParallel(model) if processes.count > 1 else model

    def input(self, step: int) -> None:
        """Draw and augment a batch, as the step does."""
        step_input(self.data, self.config, step)

    def whole(self, step: int) -> None:
        """Take a step."""
        with record_function("input"):
            given = step_input(self.data, self.config, step)
        self.learn(given, step)

    def learn(self, given: StepInput, step: int) -> None:
        """Take a step from an input that is there already."""
        with record_function("loss"):
            total = training_loss(self.model, given, self.config, step, self.processes)[0]
        self.optimizer.zero_grad(set_to_none=True)
        with record_function("backward"):
            total.backward()
        with record_function("optimiser"):
            self.optimizer.step()

    def timed(self, part: Any, step: int) -> float:
        """Return the seconds of a part; a GPU's work is waited for."""
        self.synchronise()
        started = time.perf_counter()
        part(step)
        self.synchronise()
        return time.perf_counter() - started

    def synchronise(self) -> None:
        """Wait until a GPU has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure_step(config: Config, repeats: int = 5, processes: Processes = ALONE, warm: bool = True) -> dict[str, Any]:
    """Time whole steps and, in turns with them, their input alone.

    Args:
        config: its batch, sizes and encoders count.
        repeats: of each.
        processes: that take the step together.
        warm: take a step before the first one that counts.

    Returns:
        ``whole`` and ``input``: seconds of each repetition; ``waiting``: the medians' ratio; ``profile``, ``photos``.
    """
    step = Step(config, own_device(), processes)
    if warm:
        step.whole(0)
    whole, given = [], []
    for i in range(1, repeats + 1):
        whole.append(step.timed(step.whole, i))
        given.append(step.timed(step.input, i))
    return {
        "profile": config.profile, "photos": config.train.batch, "precision": config.train.precision,
        "device": step.device.type, "whole": whole, "input": given, "waiting": median(given) / median(whole),
    }  # fmt: skip


def host_synchronisations(step: Step) -> list[str]:
    """Return what makes the host wait for the GPU within one step, a line each; on a CPU there is nothing to wait for.

    What a step of training adds to this is the loss, read where it is written to the log.
    """
    if step.device.type != "cuda":
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step.whole(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def main() -> None:
    """Print a profile, or the times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--profile", choices=PROFILES, default="paper")
    parser.add_argument("--small", action="store_true", help="a small ResNet-18 of 64 px instead of a profile")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the times of the first process as JSON")
    arguments = parser.parse_args()
    config = profile_config("paper" if arguments.small else arguments.profile, arguments.overrides)
    config = config.override(SMALL) if arguments.small else config
    with joined(own_device()) as processes:
        times = measure_step(config, arguments.repeats, processes)
        if not processes.first:
            return
        if arguments.json or processes.count > 1:
            print(json.dumps(times))
            return
    print(f"{median(times['whole']):.3f} s a step, of which its input takes {100 * times['waiting']:.1f} %")
    step = Step(config, own_device())
    step.whole(0)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if step.device.type == "cuda" else [])
    with profile(activities=kinds) as recorded:
        step.whole(1)
        step.synchronise()
    order = "self_cuda_time_total" if step.device.type == "cuda" else "self_cpu_time_total"
    print(recorded.key_averages().table(sort_by=order, row_limit=20))
    waits = host_synchronisations(step)
    print(f"the host waits {len(waits)} times for the device within a step")
    print("\n".join(waits))


if __name__ == "__main__":
    main()
