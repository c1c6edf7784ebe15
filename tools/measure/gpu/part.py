"""What all parts of the GPU report share: a time box, a clock, and a place in the report's file."""

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cmiclib.config import Config, profile
from cmiclib.embed import default_device
from cmiclib.io.atomic import write_json
from cmiclib.study.speed import median

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    "model.query_backbone=resnet10t", "model.view_backbone=resnet10t", "model.image_size=32", "train.batch=4",
    "train.views=2",
]  # fmt: skip
REPEATS = 5


class Part:
    """One part of the report; what it finds is on the disk as soon as it is known.

    Args:
        path: the report, a JSON file.
        name: of the part.
        seconds: after these no new case begins.
        smoke: measure next to nothing, to see that the part runs.
        work: folder for what is unpacked and trained; default: beside the report.
    """

    def __init__(self, path: Path, name: str, seconds: float, smoke: bool, work: Path | None = None):
        self.path, self.name, self.smoke, self.work = path, name, smoke, work or path.parent / "gpu-work"
        self.started, self.seconds = time.time(), seconds
        self.device = default_device()
        self.on_gpu = self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left of the time box."""
        return self.started + self.seconds - time.time()

    def write(self, **values: Any) -> None:
        """Put values into the part's entry of the report; a dictionary is added to the one that is there."""
        report = json.loads(self.path.read_text()) if self.path.is_file() else {}
        entry = report.setdefault("parts", {}).setdefault(self.name, {})
        for key, value in values.items():
            entry[key] = {**entry.get(key, {}), **value} if isinstance(value, dict) else value
        write_json(self.path, report)

    def case(self, name: str, measure: Callable[[], dict[str, Any]], least: float = 5.0) -> None:
        """Measure a case and write it down; a case that fails writes why, and the next one still runs.

        Args:
            name: of the case.
            measure: returns what is written.
            least: seconds that must be left to begin.
        """
        if self.left < least and not self.smoke:
            found = {"skipped": f"{max(0.0, self.left):.0f} s were left; {least:.0f} s are needed"}
        else:
            try:
                found = measure()
            except Exception as error:
                if breaks_the_process(error):
                    raise
                found = {"error": f"{type(error).__name__}: {error}"[:600]}
        self.tidy()
        self.write(cases={name: found})

    def timed(self, function: Callable[[], Any], inner: int = 1) -> dict[str, Any]:
        """Call a function to warm up, then time ``inner`` calls five times; returns the seconds of one call."""
        function()
        taken = []
        for _ in range(REPEATS):
            self.synchronise()
            started = time.perf_counter()
            for _ in range(inner):
                function()
            self.synchronise()
            taken.append((time.perf_counter() - started) / inner)
        return {"median": median(taken), "min": min(taken), "max": max(taken), "repeats": REPEATS}

    def synchronise(self) -> None:
        """Wait until a GPU has done what it was told."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Give a GPU's memory back."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def paper(self, *overrides: str) -> Config:
        """Return the paper's profile from random weights; tiny in a smoke run."""
        return profile("paper", ["model.init=random", *(SMALL if self.smoke else []), *overrides])


def breaks_the_process(error: BaseException) -> bool:
    """Tell whether CUDA refuses every further call of this process, as it does after an illegal memory access."""
    return "CUDA error" in str(error)
