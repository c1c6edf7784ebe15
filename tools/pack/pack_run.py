"""Copy a run without what only resuming needs, and its matrices in half precision: small enough for a repository.

    python tools/pack/pack_run.py RUN data/weights/NAME [--earlier EARLIER --share 0.25]

With ``--earlier``, the weights lie between the run's own and those that an earlier stop of the same training left
(`cmic train --until`). Late weights know the rendered photos best, earlier ones have moved less from their start;
a point between two such ends does better on pictures of another kind than either (Wortsman et al., Robust fine-tuning
of zero-shot models, CVPR 2022).
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cmiclib.training.run import Run

KEPT = ("config.json", "data.json", "environment.json", "log.jsonl")


def halve(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return matrices and filters in float16; vectors, such as running variances, keep their range."""
    return {name: value.half() if value.ndim > 1 else value for name, value in state.items()}


def between(late: dict[str, torch.Tensor], early: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Return ``(1 - share) * late + share * early``; whole numbers stay as they are in ``late``."""
    return {
        name: torch.lerp(value.float(), early[name].float(), share).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in late.items()
    }


def main(given: list[str] | None = None) -> None:
    """Pack one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--earlier", type=Path, help="the same training, stopped before")
    parser.add_argument("--share", type=float, default=0.25, help="of the earlier weights, from 0 to 1")
    arguments = parser.parse_args(given)
    run, weights = Run.open(arguments.run), load_file(arguments.run / "model.safetensors")
    if arguments.earlier:
        earlier = Run.open(arguments.earlier)
        if earlier.config != run.config:
            parser.error(f"{arguments.earlier} is of another training than {arguments.run}")
        weights = between(weights, load_file(earlier.path / "model.safetensors"), arguments.share)
    arguments.output.mkdir(parents=True)
    for name in KEPT:
        shutil.copyfile(run.path / name, arguments.output / name)
    packed = arguments.output / "model.safetensors"
    save_file(halve(weights), packed)
    print(f"{packed}: {packed.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
