"""What a training starts from and leaves behind at each moment: states, the log, and what a new start removes."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ..benchmark import Benchmark
from ..config import Config
from ..errors import CheckpointError, StorageError
from ..io.atomic import write_atomically, write_json
from ..io.files import check_stored
from ..weights import init_digest
from .run import Run

STATE, BEFORE = "checkpoint/state.pt", "state-before.pt"
WEIGHTS, FINISHED, CODE = "model.safetensors", "environment.json", "code.json"
LEFT = (
    STATE, f"checkpoint/{BEFORE}", FINISHED, CODE, "failed.json", "metrics.json", WEIGHTS, "log.jsonl", "origin.json",
)  # fmt: skip
"""Files of an earlier training or conversion, besides its indices."""


def identity(config: Config, benchmark: Benchmark) -> str:
    """Say what a run depends on besides the code; CheckpointError where ``model.init`` names a missing file."""
    return f"{config.digest()} {benchmark.hash} {init_digest(config.model)}".rstrip()


def manifest(benchmark: Benchmark) -> dict[str, Any]:
    """Say which data a run saw: name, hash and counts."""
    counts = {split: len(benchmark.rows(split)) for split in ("train", "val", "test")}
    return {"benchmark": benchmark.name, "hash": benchmark.hash, "shapes": len(benchmark.shapes), "photos": counts}


def is_finished(path: Path, config: Config, benchmark: Benchmark) -> bool:
    """Tell whether a folder holds this finished run; CheckpointError where it holds another finished one."""
    if not (path / FINISHED).is_file() or not (path / WEIGHTS).is_file():
        return False
    run = Run.open(path)
    if run.config != config or run.manifest.get("hash") != benchmark.hash:
        raise _another("the finished run in this folder", path)
    return True


def _another(what: str, path: Path) -> CheckpointError:
    fix = "give the same ones again, or another run folder"
    return CheckpointError(f"{what} belongs to another configuration or benchmark", path=path, fix=fix)


def open_state(path: Path, run: str, code: str, resume: bool, other_code: bool = False) -> dict[str, Any]:
    """Return the state that a training in the run folder ``path`` starts from; nothing is changed yet.

    ``run`` is its :func:`identity`, ``code`` the digest of the method's code. With ``resume`` it is the folder's last
    state, if there is one; with ``other_code`` also one of other code, and the state remembers both. CheckpointError
    where the folder holds what a new start would erase, or a state of another run or of other code.
    """
    new = {"run": run, "step": 0, "best": -1.0, "seconds": 0.0, "code": [{"step": 0, "code": code}]}
    has_state = any((path / name).is_file() for name in (STATE, f"checkpoint/{BEFORE}"))
    if not resume and (has_state or (path / WEIGHTS).is_file()):
        fix = "pass --resume to go on with it, give another folder, or remove this one"
        raise CheckpointError("this folder holds a training already", path=path, fix=fix)
    if has_state:
        state = load_state(path / STATE)
        if state["run"] != run:
            raise _another("the resume state", path / STATE)
        codes = state.setdefault("code", [{"step": 0, "code": "unknown"}])
        if codes[-1]["code"] != code:
            if not other_code:
                raise CheckpointError(
                    "the method's code has changed since this training was interrupted", path=path / STATE,
                    fix="check out the code that it began with, train in another folder, or pass --other-code to go on "
                    "with two states of the code; code.json then says so",
                )  # fmt: skip
            codes.append({"step": state["step"], "code": code})
        return state
    if any((path / name).is_file() for name in (FINISHED, "origin.json")):
        problem = "this folder holds weights, but no state to go on from"
        raise CheckpointError(problem, path=path, fix="give another folder")
    if (path / WEIGHTS).is_file():
        warnings.warn(f"{path} holds no state to go on from; training starts again at step 1", stacklevel=3)
    return new


def prepare(path: Path, state: dict[str, Any]) -> None:
    """Leave in a run folder what belongs to the state: all of it, or nothing where training starts anew."""
    stale = [*path.glob(".*.tmp"), *path.glob("checkpoint/.*.tmp")]
    if state["step"] == 0:
        stale += [*(path / name for name in LEFT), *path.glob("index-*.safetensors")]
    for file in stale:
        file.unlink(missing_ok=True)
    cut_log(path / "log.jsonl", state["step"])
    write_json(path / CODE, state["code"])


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resume state (tensors, numbers, strings) atomically; the one before stays, and both if this fails."""

    def write(temporary: Path) -> None:
        torch.save(state, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if path.is_file():  # from here to the renaming there is only the one before
            path.replace(path.with_name(BEFORE))

    write_atomically(path, write)


def load_state(path: Path) -> dict[str, Any]:
    """Read a resume state (never more than tensors and plain containers), or, if it is damaged, the one before it."""
    before = path.with_name(BEFORE)
    try:
        return _load_state(path)
    except CheckpointError as error:
        if not before.is_file():
            raise
        state = _load_state(before)
        warnings.warn(f"{error.problem}; training goes on from the state before it, {before}", stacklevel=2)
        return state


def _load_state(path: Path) -> dict[str, Any]:
    try:
        check_stored(path)
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (after check_stored)
        if not isinstance(state, dict):
            raise TypeError("it holds no table")
        return state
    except Exception as error:
        problem = f"the resume state cannot be read ({type(error).__name__})"
        fix = "remove this folder or train in another one; --resume needs a state"
        raise CheckpointError(problem, path=path, fix=fix) from None


def cut_log(log: Path, step: int) -> None:
    """Remove the lines after ``step``, and all from the first damaged one on, that an interrupted run left."""
    kept = []
    for line in log.read_text(errors="replace").split("\n")[:-1] if log.is_file() else []:
        try:
            done = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError):  # a power loss leaves zeros, or half of what was written
            break
        if done <= step:
            kept.append(f"{line}\n")
    log.write_text("".join(kept))


def append_log(log: Path, line: dict[str, Any]) -> None:
    """Add one line to the log; raises StorageError where the disk is full."""
    try:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        fix = "make room, then run again with --resume"
        raise StorageError(f"could not be written ({error})", path=log, fix=fix) from None
