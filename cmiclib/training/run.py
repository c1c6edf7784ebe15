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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..benchmark import file_sha256
from ..config import Config, ModelConfig, parse_config, profile
from ..errors import CheckpointError
from ..io.atomic import write_atomically, write_json
from ..io.files import JSON_LIMIT, check_inside, check_regular, parse_json, read_json, read_limited
from ..io.jittor import read_jittor
from ..model import CMIC

AGAIN = "train again, or copy the run folder again"
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
        file = self.path / "model.safetensors"
        check_inside(file, self.path, CheckpointError)
        check_regular(file, CheckpointError)
        try:
            stored = load_file(file)
            state = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
            dim = self.config.model.dim
            if "attention_weight" not in state or state["attention_weight"].shape != (dim, dim):
                raise RuntimeError(f"they have no attention_weight of {dim} × {dim} numbers")
            model = CMIC(self.config.model)
            model.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"the weights cannot be used: {error}", path=file, fix=AGAIN) from None
        return model.to(device).eval()

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
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError("this folder is in use", path=output, fix="give another one, or remove it")
    config = config or profile("paper")
    model = load_reference_checkpoint(path, config.model)
    write_json(output / "config.json", config.model_dump(mode="json"))
    write_json(output / "origin.json", {"file": Path(path).name, "sha256": file_sha256(Path(path))})
    save_weights(output / "model.safetensors", model)
    return Run.open(output)


def _our_name(name: str) -> str:
    """Translate a name of the released code."""
    if name == "attention.linear_in.weight":
        return "attention_weight"
    name = name.replace("rendering_encoder.", "view_encoder.", 1)
    return name.replace(".resnet.fc.", ".head.", 1).replace(".resnet.", ".backbone.", 1)


def save_weights(path: Path, model: CMIC) -> None:
    """Write the weights as safetensors, atomically."""
    # Cloned, because safetensors refuses two names of one shared layer.
    state = {name: value.detach().contiguous().cpu().clone() for name, value in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))
