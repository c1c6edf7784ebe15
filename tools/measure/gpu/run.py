"""Runs parts of the GPU report one after another in one process; gpu_report.py starts it.

python -m gpu.run PART=SECONDS... --output FILE.json [--smoke]
"""

import argparse
import math
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from gpu.machine import card, tests
from gpu.part import Part, breaks_the_process
from gpu.training import shipped, step, train_paper
from gpu.vectors import embed, search

PARTS: dict[str, Callable[[Part], None]] = {
    "card": card, "tests": tests, "step": step, "embed": embed, "search": search, "train": train_paper
}  # fmt: skip


def run(
    report: Path, boxes: Mapping[str, float], smoke: bool, deadline: float = math.inf, work: Path | None = None
) -> None:
    """Run parts within their time boxes, in seconds, by name, and all of them before a deadline.

    A part that fails writes why, and the next one runs.

    Raises:
        RuntimeError: CUDA refuses further calls of this process; the part has written so.
    """
    for name, seconds in boxes.items():
        part = Part(report, name, min(seconds, deadline - time.time()), smoke, work)
        part.write(status="running", started=part.started)
        try:
            PARTS[name](part)
        except Exception as error:
            part.write(status="failed", error=traceback.format_exc()[-2000:], seconds=time.time() - part.started)
            if breaks_the_process(error):
                raise
        else:
            part.write(status="done", seconds=time.time() - part.started)
        part.tidy()


def main() -> None:
    """Run the parts, or only unpack the shipped benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART=SECONDS")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--deadline", type=float, default=math.inf, help="of all parts, in seconds since 1970")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        shipped(Part(arguments.output, "prepare", 0, arguments.smoke, arguments.work))
        return
    boxes = {name: float(seconds) for name, _, seconds in (part.partition("=") for part in arguments.parts)}
    run(arguments.output, boxes, arguments.smoke, arguments.deadline, arguments.work)


if __name__ == "__main__":
    main()
