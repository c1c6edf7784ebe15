"""Run folders: everything that a training leaves behind.

``config.json``      the configuration
``data.json``        which benchmark, by hash, with its counts
``log.jsonl``        one line per logged step and per validation
``model.safetensors``  the weights that were best on the validation photos
``metrics.json``     what :mod:`cmiclib.evaluation.report` measured; no dates, so that equal runs have equal files
``environment.json`` machine, versions, date and duration; only a finished run has it
``code.json``        the digest of the method's code, with the step from which it trained
``checkpoint/``      the state to resume from, and the one before it
``failed.json``      the photos of a batch whose loss was NaN or infinite
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..benchmark import file_sha256
from ..config import Config, ModelConfig, parse_config, profile
from ..errors import CheckpointError
from ..io.atomic import write_json
from ..io.files import JSON_LIMIT, check_inside, parse_json, read_json, read_limited
from ..io.jittor import read_jittor
from ..model import CMIC
from ..pretrained import AGAIN, save_weights

__all__ = ["Run", "convert_reference_checkpoint", "load_reference_checkpoint", "save_weights"]
UNUSED = "attention.linear_out.weight"  # The released code computes it and throws the result away


@dataclass(frozen=True)
class Run:
    """An existing run folder; open it with :meth:`Run.open`."""

    path: Path
    config: Config

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Read a run folder's configuration; CheckpointError if it or the weights are missing or damaged."""
        path = Path(path)
        if not (path / "config.json").is_file():
            raise CheckpointError("this is not a run folder", path=path, fix="pass a folder that `cmic train` wrote")
        if not (path / "model.safetensors").is_file():
            fix = "finish it: `cmic train … --output FOLDER --resume`"
            raise CheckpointError("the run holds no weights yet", path=path, fix=fix)
        return cls(path, parse_config(_read_own(path, "config.json"), path=str(path / "config.json")))

    def model(self, device: torch.device | str = "cpu") -> CMIC:
        """Return the model with the run's best weights, in evaluation mode; CheckpointError if they do not fit."""
        return CMIC.from_pretrained(self.path).to(device)

    @property
    def log(self) -> pd.DataFrame:
        """The training log: step, loss, instance, category, lr, seconds; NaN where a line has no such value."""
        path = self.path / "log.jsonl"
        check_inside(path, self.path, CheckpointError)
        lines = read_limited(path, JSON_LIMIT, CheckpointError).splitlines()
        entries = [parse_json(line, path, CheckpointError, AGAIN) for line in lines]
        if not all(isinstance(entry, dict) for entry in entries):
            raise CheckpointError("a line of the log is not a JSON object", path=path, fix=AGAIN)
        return pd.json_normalize(entries)

    @property
    def manifest(self) -> dict[str, Any]:
        """The benchmark that the run was trained on: name, hash and counts."""
        return _read_own(self.path, "data.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions, date and duration of the training."""
        return _read_own(self.path, "environment.json")


def _read_own(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object of a run folder; raises CheckpointError where it is missing, damaged or a link out of it."""
    check_inside(folder / name, folder, CheckpointError)
    found = read_json(folder / name, CheckpointError, AGAIN)
    if not isinstance(found, dict):
        raise CheckpointError("this is not a JSON object", path=folder / name, fix=AGAIN)
    return found


def load_reference_checkpoint(path: str | Path, config: ModelConfig | None = None) -> CMIC:
    """Return the authors' trained model, in evaluation mode, from a checkpoint of the released code.

    The file is of any of the kinds that :mod:`cmiclib.io.jittor` reads; ``config`` is the architecture, by default the
    released one, ResNet-50 and ResNet-18. Every parameter and every running statistic must be there with its shape:
    CheckpointError lists missing, unexpected and unfit entries.
    """
    config = config or ModelConfig(init="random")
    model = CMIC(config)
    given = {_our_name(name): value for name, value in read_jittor(path).items() if name != UNUSED}
    own = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    faults = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "of another shape": [n for n, value in given.items() if n in own and own[n].shape != value.shape],
    }
    if any(faults.values()):
        shown = {fault: ", ".join(names[:4]) + " and more" * (len(names) > 4) for fault, names in faults.items()}
        lists = [f"{len(names)} {fault}: {shown[fault]}" for fault, names in faults.items() if names]
        raise CheckpointError(
            f"this is not a checkpoint of {config.query_backbone} and {config.view_backbone}; {'; '.join(lists)}",
            path=path, fix="pass a checkpoint of the released model, or a configuration with its backbones",
        )  # fmt: skip
    model.load_state_dict({name: value.float() for name, value in given.items()}, strict=False)
    return model.eval()


def convert_reference_checkpoint(path: str | Path, output: str | Path, config: Config | None = None) -> Run:
    """Write a run folder, new or empty, with the authors' model; ``config`` is by default the released one."""
    output = Path(output)
    check_unused(output)
    config = config or profile("paper")
    model = load_reference_checkpoint(path, config.model)
    model.save_pretrained(output, config)
    write_json(output / "origin.json", {"file": Path(path).name, "sha256": file_sha256(Path(path))})
    return Run.open(output)


def check_unused(folder: Path) -> None:
    """Refuse a folder to write that holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError("this folder is in use", path=folder, fix="give another one, or remove it")


def _our_name(name: str) -> str:
    """Translate a name of the released code."""
    if name == "attention.linear_in.weight":
        return "attention_weight"
    name = name.replace("rendering_encoder.", "view_encoder.", 1)
    return name.replace(".resnet.fc.", ".head.", 1).replace(".resnet.", ".backbone.", 1)
