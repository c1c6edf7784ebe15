"""Run the chapters whose inputs changed, by papermill, and keep the record that chapter 15 shows.

A chapter's key is a hash of all that its result depends on: its script, the library, the profile's configuration, the
benchmark, its parameters, ``data/results`` if its script names that folder, and the keys of the chapters it needs.
Keys and seconds of finished chapters stand in ``outputs/<profile>/provenance.json``; a chapter with the same key and
status "ok" there is not run again.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import profile as profile_config
from ..errors import BookError, StorageError
from ..io.atomic import write_atomically
from ..io.files import read_json
from ..io.lock import alone
from .chapters import Chapter, check_parameters, read_book, selected
from .notebooks import derive

KERNEL_ENVIRONMENT = {
    # Threads that wait for one another soon sleep instead of spinning: on a quiet machine that costs little, on a busy
    # one spinning makes training several times slower.
    "GOMP_SPINCOUNT": "10000",
    # Each redraw of a progress bar becomes an output of the executed notebook.
    "TQDM_MININTERVAL": "30",
    # A chapter can tell that nobody sits before it: see `cmiclib.book.OpenChapter.live`.
    "CMIC_REPORT": "1",
}


@dataclass(frozen=True)
class Result:
    """What one call of `reproduce` did, chapter by chapter."""

    ran: list[str]
    failed: list[str]
    skipped: list[str]
    current: list[str]


def digest(*parts: Any) -> str:
    """Return a hexadecimal hash of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def library_hash() -> str:
    """Return one hash of the text of every module of this package, and of the style and script beside them."""
    package = Path(__file__).parents[1]
    texts = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".css", ".js"))
    return digest([[str(path.relative_to(package)), path.read_text("utf-8")] for path in texts])


def stored_hash(root: Path) -> str:
    """Return one hash of the published and stored results in ``data/results``."""
    return digest([[path.name, path.read_text("utf-8")] for path in sorted((root / "data/results").glob("*.json"))])


def reproduce(
    root: Path,
    *,
    profile: str = "demo",
    benchmark: str = "sweethome",
    outputs: str = "outputs",
    benchmark_hash: Callable[[], str],
    chapters: list[str] | None = None,
    parameters: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> Result:
    """Run what changed; executed notebooks go to ``outputs/<profile>/notebooks``.

    A chapter that fails keeps its notebook up to the error; chapters that need it are skipped, others run.

    Args:
        root: the folder that holds ``_toc.yml`` and ``book/``.
        profile: name of a configuration profile, a parameter of each chapter.
        benchmark: ``sweethome`` or the folder of a prepared benchmark, likewise.
        outputs: folder for results, relative to the root.
        benchmark_hash: gives the hash of the benchmark's content; called once, after the other checks.
        chapters: run only these and what they need.
        parameters: further values for parameters; each goes to the chapters that take it.
        say: receives lines of progress.

    Raises:
        BookError: a chapter or parameter that does not exist, or another run at work in the same folder.
        ConfigError: no such profile.
    """
    book = read_book(root)
    todo = selected(book, chapters or [])
    given = {"PROFILE": profile, "BENCHMARK": benchmark, "OUTPUTS": outputs} | (parameters or {})
    check_parameters(todo, given)
    config = profile_config(profile)
    folder = root / outputs / profile
    with alone(folder, BookError):
        hashes = {"library": library_hash(), "config": config.digest(), "benchmark": benchmark_hash()}
        record = read_record(folder) | {
            "profile": profile,
            "benchmark": benchmark,
            "hashes": hashes,
        }
        done = record.setdefault("chapters", {})
        for gone in set(done) - {chapter.name for chapter in book}:
            del done[gone]
        keys: dict[str, str] = {}
        result = Result([], [], [], [])
        for number, chapter in enumerate(todo, 1):
            own = {name: value for name, value in given.items() if name in chapter.parameters}
            stored = stored_hash(root) if "data/results" in chapter.text else None
            keys[chapter.name] = digest(chapter.text, hashes, own, stored, [keys[need] for need in chapter.needs])
            target = folder / "notebooks" / f"{chapter.name}.ipynb"
            head = f"[{number:2}/{len(todo)}] {chapter.name}"
            if missing := [need for need in chapter.needs if need in result.failed + result.skipped]:
                say(f"{head}: skipped, it needs {', '.join(missing)}")
                result.skipped.append(chapter.name)
                target.unlink(missing_ok=True)
                done[chapter.name] = {"key": keys[chapter.name], "status": "skipped", "seconds": 0.0}
            elif is_current(done.get(chapter.name), keys[chapter.name]) and target.exists():
                result.current.append(chapter.name)
            else:
                say(f"{head} …")
                if not result.ran + result.failed:
                    record |= {"commit": commit(root), "environment": environment()}
                done[chapter.name] = {"key": keys[chapter.name], "status": "running"}
                write_record(folder, record)
                started = time.perf_counter()
                error = execute(chapter, own, target, root)
                seconds = round(time.perf_counter() - started, 1)
                finished = datetime.now(UTC).isoformat(timespec="seconds")
                done[chapter.name] |= {"status": "failed" if error else "ok", "seconds": seconds, "finished": finished}
                (result.failed if error else result.ran).append(chapter.name)
                say(f"{' ' * len(head)} {'failed after' if error else 'took'} {seconds:.1f} s{error and f': {error}'}")
            write_record(folder, record)
    if result.current:
        say(f"{len(result.current)} of {len(todo)} chapters are up to date")
    return result


def environment() -> dict[str, Any]:
    """Return machine, versions and date; imported late, because it brings torch in."""
    from ..io.provenance import environment

    return dict(environment())


def is_current(entry: dict[str, Any] | None, key: str) -> bool:
    """Tell whether a chapter's last run was complete and had the same inputs."""
    return entry is not None and entry["status"] == "ok" and entry["key"] == key


def execute(chapter: Chapter, parameters: dict[str, Any], target: Path, root: Path) -> str:
    """Run one chapter in the root; return its error's name and message, or an empty string.

    The executed notebook is written to ``target`` either way. What the chapter writes to stderr (progress bars) is
    shown live when this runs in a terminal.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    target.parent.mkdir(parents=True, exist_ok=True)
    for name, value in KERNEL_ENVIRONMENT.items():  # the kernel inherits it
        os.environ.setdefault(name, value)
    try:
        papermill.execute_notebook(
            nbformat.from_dict(derive(chapter.path)),
            target,
            parameters,
            kernel_name="python3",
            cwd=root,
            progress_bar=False,
            extra_arguments=["--log-level=CRITICAL"],  # errors come back in the notebook
            stderr_file=sys.stderr if sys.stderr.isatty() else None,
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return "DeadKernelError: its process was killed, most often for want of memory"
    except OSError as error:
        raise _storage(error, target) from None
    return ""


def _storage(error: OSError, path: Path) -> StorageError:
    return StorageError(
        f"could not be written ({error.strerror or error})",
        path=path,
        fix="make room on the disk, then run again: chapters that are done are not repeated",
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Return ``provenance.json`` of a profile's outputs, or an empty record.

    Raises:
        BookError: it is damaged.
    """
    path = folder / "provenance.json"
    if not path.exists():
        return {}
    record = read_json(path, BookError, fix="remove it, then run again")
    entries = record.get("chapters", {}) if isinstance(record, dict) else None
    if not isinstance(entries, dict) or not all(
        isinstance(e, dict) and {"key", "status"} <= e.keys() for e in entries.values()
    ):
        raise BookError("this is no record of a run", path=path, fix="remove it, then run again")
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace ``provenance.json`` in one step.

    Raises:
        StorageError: the disk is full; the record stays as it was.
    """
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "provenance.json", lambda temporary: temporary.write_text(text, "utf-8"))


def commit(root: Path) -> str | None:
    """Return git's name of the commit, with a ``+`` when files differ from it; None outside a repository."""
    name = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=root, capture_output=True, text=True)
    return name.stdout.strip() if name.returncode == 0 else None
