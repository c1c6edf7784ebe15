"""Run folders: everything a training leaves behind, written so that a stop at any moment leaves a usable state.

``config.json``      the configuration
``data.json``        which benchmark, by hash, with its counts
``log.jsonl``        one line per logged step and per look at the validation photos
``model.safetensors``  the weights that were best on the validation photos
``metrics.json``     what :mod:`cmiclib.evaluate` measured; no dates, so that equal runs have equal files
``environment.json`` machine, versions, date and duration
``checkpoint/``      the state to resume from
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .config import Config, parse_config
from .errors import CheckpointError, StorageError
from .model import CMIC


@dataclass(frozen=True)
class Run:
    """An existing run folder; open it with :meth:`Run.open`."""

    path: Path
    config: Config

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Read a run folder's configuration.

        Raises:
            CheckpointError: no such folder, no finished weights in it, or a damaged configuration.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise CheckpointError("this is not a run folder", path=path, fix="give the folder that `cmic train` wrote")
        if not (path / "model.safetensors").is_file():
            raise CheckpointError(
                "the run holds no weights yet", path=path, fix="finish it: `cmic train … --output FOLDER --resume`"
            )
        return cls(path, parse_config(read_json(path / "config.json"), path=str(path / "config.json")))

    def model(self, device: torch.device | str = "cpu") -> CMIC:
        """Return the model with the run's best weights, in evaluation mode.

        Raises:
            CheckpointError: a damaged file, or weights of another architecture.
        """
        file = self.path / "model.safetensors"
        model = CMIC(self.config.model)
        try:
            state = {
                name: value.float() if value.is_floating_point() else value for name, value in load_file(file).items()
            }
            model.load_state_dict(state)
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights cannot be used: {error}", path=file, fix="train again, or copy the run folder again"
            ) from None
        return model.to(device).eval()

    @property
    def log(self) -> pd.DataFrame:
        """The training log: step, loss, instance, category, lr, seconds; NaN where a line has no such value."""
        lines = (self.path / "log.jsonl").read_text().splitlines()
        return pd.json_normalize([json.loads(line) for line in lines])

    @property
    def manifest(self) -> dict[str, Any]:
        """The benchmark that the run was trained on: name, hash and counts."""
        return read_json(self.path / "data.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions, date and duration of the training."""
        return read_json(self.path / "environment.json")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"not readable as JSON ({error})", path=path, fix="train again or copy the run again"
        ) from None


def write_json(path: Path, values: Any) -> None:
    """Write sorted, indented JSON atomically."""
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file, sync it and rename it to ``path``.

    Raises:
        StorageError: the disk is full or read-only; an earlier ``path`` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"could not be written ({error})", path=path, fix="make room on the disk, then run again"
        ) from None


def clear(path: Path) -> None:
    """Remove what an earlier training left in a run folder, so that nothing of it passes for the next one's."""
    for name in ("checkpoint/state.pt", "environment.json", "metrics.json", "model.safetensors", "log.jsonl"):
        (path / name).unlink(missing_ok=True)


def save_weights(path: Path, model: CMIC) -> None:
    """Write the weights as safetensors, atomically."""
    state = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resume state (tensors, numbers, strings) atomically."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_state(path: Path) -> dict[str, Any]:
    """Read a resume state; only tensors and plain containers are ever built from the file.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"the resume state cannot be read ({type(error).__name__})", path=path, fix="start again without --resume"
        ) from None
