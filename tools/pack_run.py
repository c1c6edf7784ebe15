"""Copy a run without what only resuming needs, and its matrices in half precision: small enough for a repository.

python tools/pack_run.py RUN data/weights/NAME
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cmiclib.checkpoint import Run

KEPT = ("config.json", "data.json", "environment.json", "log.jsonl")


def halve(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return matrices and filters in float16; vectors, such as running variances, keep their range."""
    return {name: value.half() if value.ndim > 1 else value for name, value in state.items()}


def main() -> None:
    """Pack one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    arguments.output.mkdir(parents=True)
    for name in KEPT:
        shutil.copyfile(run.path / name, arguments.output / name)
    packed = arguments.output / "model.safetensors"
    save_file(halve(load_file(run.path / "model.safetensors")), packed)
    print(f"{packed}: {packed.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
