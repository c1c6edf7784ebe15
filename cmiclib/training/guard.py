"""What keeps a long training from being lost, and from ending in wrong numbers.

A state is written at every validation, every few minutes, and when the process is told to stop. A loss or weights with
NaN or Inf stop the training before they are kept; a collapsed embedding is reported; and a run is only measured on the
benchmark that it was trained on.
"""

import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..benchmark import Benchmark
from ..config import TrainConfig
from ..engine.distributed import ALONE, Processes
from ..errors import BenchmarkError, TrainingError
from ..io.atomic import write_json
from .run import Run
from .step import TrainingData

SAVE_SECONDS = 300.0  # Seconds of training that a crash may lose
LEAST_VARIANCE = 1e-3
"""Smallest variance of unit vectors around their mean, in [0, 1]; below it, all pictures have nearly one vector."""
DIVERGED = "lower train.lr or set train.precision=fp32, and train in another folder"


class CheckpointTimer:
    """Tells when a state is due, and lets a process that is told to stop write one more.

    The first SIGTERM or Ctrl-C waits for the end of the step, a second one does not. This holds in the main thread, the
    only one that receives signals. Several processes leave after the same step, whichever of them was told.
    """

    def __init__(self, seconds: float = SAVE_SECONDS, processes: Processes = ALONE, device: torch.device | str = "cpu"):
        self.seconds, self.processes, self.device = seconds, processes, device
        self.saved, self.caught, self.leaving, self.began = time.monotonic(), 0, 0, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "CheckpointTimer":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught or not self.began:  # before the first step there is nothing to write
            self._leave(number)
        self.caught = number

    def due(self, asks: bool = True) -> bool:
        """Tell after every step whether a state is due; with ``asks``, processes ask who was told to stop."""
        self.began = True
        if asks or self.processes.count == 1:
            self.leaving = self.processes.all_reduce_max(self.caught, self.device)
        return bool(self.leaving) or time.monotonic() - self.saved >= self.seconds

    def written(self, step: int) -> None:
        """Note that a state was written; leave now if the process was told to stop."""
        self.saved = time.monotonic()
        if self.leaving:
            self.processes.barrier()  # the first one's state is on the disk; torchrun ends the others once one is gone
            if self.processes.first:
                name = signal.Signals(self.leaving).name
                print(f"{name}: stopped after step {step}; --resume continues from it", file=sys.stderr, flush=True)
            self._leave(self.leaving)

    def _leave(self, number: int) -> None:
        self.__exit__()
        signal.raise_signal(number)
        raise SystemExit(128 + number)  # if another handler did nothing


class LossWatch:
    """Remembers the first step whose loss is NaN or infinite, on the device, so that the host need not wait."""

    def __init__(self, device: torch.device | str):
        self.step = torch.full((), -1, device=device)  # int64
        self.loss = torch.zeros((), device=device)

    @torch.no_grad()
    def note(self, loss: Tensor, step: int) -> None:
        """Note the scalar loss of a step, counted from 0."""
        first = (self.step < 0) & ~loss.isfinite()
        self.step = torch.where(first, step, self.step)
        self.loss = torch.where(first, loss.float(), self.loss)

    def check(
        self, data: TrainingData, settings: TrainConfig, benchmark: Benchmark, path: Path, writes: bool = True
    ) -> None:
        """Raise TrainingError if a step's loss was NaN or Inf; ``failed.json`` in ``path`` names its batch's photos."""
        step = int(self.step)
        if step < 0:
            return
        batch = data.draw(settings, step)
        names = benchmark.queries.query_id.to_numpy()[benchmark.rows("train")[batch.photos.numpy()]].tolist()
        if writes:
            write_json(path / "failed.json", {"step": step + 1, "loss": str(self.loss.item()), "photos": names})
        shown = ", ".join(names[:8]) + (", … (all in failed.json)" if len(names) > 8 else "")
        problem = f"the loss of step {step + 1} is not a number; its batch: {shown}; the last good state is kept"
        raise TrainingError(problem, path=path, fix=DIVERGED)


def check_weights(model: nn.Module, step: int, path: Path) -> None:
    """Raise TrainingError for weights with NaN or Inf."""
    values = [value for value in model.state_dict().values() if value.is_floating_point()]
    if not bool(torch.stack([value.isfinite().all() for value in values]).all()):
        problem = f"the weights after step {step} are not numbers; the last good state is kept"
        raise TrainingError(problem, path=path, fix=DIVERGED)


def warn_if_collapsed(photos: Tensor, views: Tensor) -> None:
    """Warn where all photos (Q, d), or all views (N, V, d), have nearly the same vector."""
    for name, vectors in (("photos", photos), ("views", views.flatten(0, -2))):
        variance = float(1 - vectors.float().mean(dim=0).square().sum())  # of unit vectors
        if len(vectors) > 1 and variance < LEAST_VARIANCE:
            problem = f"has collapsed: its variance is {variance:.1e}, below {LEAST_VARIANCE}"
            warnings.warn(f"the embedding of {name} {problem}", stacklevel=2)


def check_unchanged(run: Run, benchmark: Benchmark) -> None:
    """Raise BenchmarkError for a benchmark that the run was trained on by name, but whose content has changed since."""
    trained = run.manifest if (run.path / "data.json").is_file() else {}  # a converted checkpoint has none
    if trained.get("benchmark") == benchmark.name and trained.get("hash") != benchmark.hash:
        problem = (
            f"'{benchmark.name}' has changed since the run was trained on it: its hash is {benchmark.hash[:12]}…, "
            f"then it was {str(trained.get('hash'))[:12]}…; photos may have moved from training to test"
        )
        fix = "prepare it as it was, train again, or pass --changed to measure all the same"
        raise BenchmarkError(problem, path=benchmark.path, fix=fix)
