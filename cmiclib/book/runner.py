"""Run the chapters whose inputs changed, by papermill, and keep the record that chapter 15 shows.

A chapter's key is a hash of everything that its result depends on: its script, the code that it imports, the versions
of the packages that matter, the configuration, the benchmark, its parameters, the files that it reads, and the keys of
the chapters it needs. ``outputs/<profile>/provenance.json`` holds the keys and seconds of finished chapters. A chapter
with the same key and status "ok" there does not run again. Two chapters run side by side where the machine allows it,
because few of them keep two cores busy; one that measures times has the machine for itself.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..config import profile as profile_config
from ..errors import BookError, StorageError
from ..io.atomic import write_json
from ..io.code import PACKAGE
from ..io.files import read_json
from ..io.lock import alone
from ..io.provenance import environment, package_versions
from .chapters import Chapter, check_parameters, read_book, selected
from .imports import Library
from .kernels import PlainKernelManager, counting, end_all
from .notebooks import derive, without_iri_grammar
from .schedule import Clock, side_by_side, usual_number

KERNEL_ENVIRONMENT = {
    # Waiting threads sleep instead of spinning: two chapters side by side get a quarter more done, one alone about a
    # tenth less. It holds for all chapters, because kernels are forked after OpenMP has read it.
    "GOMP_SPINCOUNT": "0",
    # Each redraw of a progress bar becomes an output of the executed notebook.
    "TQDM_MININTERVAL": "30",
    # Tells a chapter that no reader is at its kernel: see `cmiclib.book.OpenChapter.live`.
    "CMIC_REPORT": "1",
}
RECORD = "provenance.json"


@dataclass(frozen=True)
class Result:
    """The chapters that one call of `reproduce` ran, and those that it did not."""

    ran: list[str]
    failed: list[str]
    skipped: list[str]
    current: list[str]
    outputs: str = "outputs"


@dataclass(frozen=True)
class Job:
    """A chapter with what it shall run with; ``key`` hashes everything that its result depends on."""

    chapter: Chapter
    key: str
    parameters: dict[str, Any]
    hashes: dict[str, str]
    target: Path

    def is_done(self, entry: dict[str, Any]) -> bool:
        """Tell from the chapter's record whether it ran like this."""
        return entry.get("status") == "ok" and entry["key"] == self.key and self.target.exists()


class Ran(NamedTuple):
    """How a chapter ended."""

    error: str  # its name and message, or empty
    used: dict[str, float]  # seconds in the kernel's code and in the system, pages touched


def digest(*parts: Any) -> str:
    """Return a hexadecimal hash of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def inputs_hash(root: Path, chapter: Chapter) -> str:
    """Hash the inputs of a chapter's header, and ``data/results`` where the script names that folder."""
    patterns = [*chapter.inputs, *(["data/results/*.json"] if "data/results" in chapter.text else [])]
    found = {path for pattern in patterns for path in root.glob(pattern)}
    files = {file for path in found for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()}
    return digest([[file.relative_to(root).as_posix(), file_hash(file)] for file in sorted(files)])


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reproduce(
    root: Path, *, profile: str = "demo", benchmark: str = "sweethome", outputs: str = "outputs",
    benchmark_hash: Callable[[], str], chapters: list[str] | None = None, parameters: dict[str, Any] | None = None,
    library: Path = PACKAGE, say: Callable[[str], None] = print, at_once: int | None = None,
) -> Result:  # fmt: skip
    """Run what changed, ``at_once`` chapters side by side, by default as `usual_number` says.

    Executed notebooks go to ``outputs/<profile>/notebooks``.

    With ``OVERRIDES`` among the parameters, everything goes to a folder of its own instead, ``Result.outputs``, and
    chapters that these cannot change are copied from ``outputs`` if they ran there.

    A chapter that fails keeps its notebook up to the error. Chapters that need it are skipped, others run. A chapter
    that is not asked for keeps its notebook and is marked as stale in the record if its key changed.

    ``root`` holds ``_toc.yml`` and ``book/``. Profile, benchmark and outputs are parameters of each chapter, as
    :func:`cmiclib.book.open_chapter` takes them; of the further ``parameters`` each goes to the chapters that take it.
    With ``chapters`` only these run, and what they need. ``benchmark_hash`` gives the hash of the benchmark's content;
    it is called once, after everything else was checked. ``library`` is the package whose code the chapters import.

    BookError: a chapter or parameter that does not exist, or another run at work in the same folder. ConfigError: no
    such profile, or ``OVERRIDES`` that do not fit it.
    """
    book = read_book(root)
    todo = selected(book, chapters or [])
    check_parameters(todo, parameters or {})
    overrides = (parameters or {}).get("OVERRIDES", [])
    plain, changed = profile_config(profile), profile_config(profile, overrides)
    baseline, outputs = outputs, f"{outputs}/experiments/{changed.digest()}" if overrides else outputs
    given = {"PROFILE": profile, "BENCHMARK": benchmark, "OUTPUTS": outputs} | (parameters or {})
    folder, finished_folder = root / outputs / profile, root / baseline / profile
    with alone(folder, BookError):
        data, versions, code = benchmark_hash(), digest(package_versions()), Library(library)
        earlier = read_record(folder)
        done: dict[str, dict[str, Any]] = earlier.get("chapters", {})
        record = {"profile": profile, "benchmark": benchmark, "chapters": done, "html": earlier.get("html", {})}
        record |= {"overrides": overrides} if overrides else {}
        others = read_record(finished_folder).get("chapters", {}) if overrides else {}
        for gone in set(done) - {chapter.name for chapter in book}:
            del done[gone]
        jobs, made, result = dict[str, Job](), dict[str, Any](), Result([], [], [], [], outputs)
        for chapter in book:
            own = {name: value for name, value in given.items() if name in chapter.parameters}
            settings = (changed if "OVERRIDES" in own else plain).digest()
            hashes = {
                "code": code.digest(chapter.text), "packages": versions, "config": settings, "benchmark": data,
                "inputs": inputs_hash(root, chapter),
            }  # fmt: skip
            needed = [jobs[need].key for need in chapter.needs]
            key = digest(chapter.text, hashes, own, needed)
            target = folder / "notebooks" / f"{chapter.name}.ipynb"
            if chapter.name in others:  # as it ran without the overrides, if they do not reach it
                there = finished_folder / "notebooks" / target.name
                twin = digest(chapter.text, hashes, own | {"OUTPUTS": baseline}, needed)
                if Job(chapter, twin, own, hashes, there).is_done(others[chapter.name]):
                    key = twin
                    if chapter in todo:
                        target.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(there, target)
                        done[chapter.name] = dict(others[chapter.name])
            jobs[chapter.name] = job = Job(chapter, key, own, hashes, target)
            entry = done.get(chapter.name, {})
            entry.pop("stale", None)
            if chapter not in todo and entry and entry["key"] != key:
                entry["stale"] = True
            elif chapter in todo and job.is_done(entry):
                result.current.append(chapter.name)
        left = [chapter for chapter in todo if chapter.name not in result.current]
        at_once = at_once or usual_number(profile)
        clock = Clock(expected_seconds(root, profile, done), at_once)

        def run(chapter: Chapter) -> Ran:
            return execute(chapter, jobs[chapter.name].parameters, jobs[chapter.name].target, root)

        def began(chapter: Chapter) -> None:
            job, number = jobs[chapter.name], len(todo) - len(left) + 1
            left.remove(chapter)
            made.update({} if made else {"commit": commit(root), "environment": environment()})
            clock.begin(chapter.name)
            say(f"[{number:2}/{len(todo)}] {chapter.name} …{clock.left([each.name for each in left])}")
            entry = {"key": job.key, "status": "running", "parameters": job.parameters, "hashes": job.hashes}
            done[chapter.name] = entry
            write_json(folder / RECORD, record)

        def ended(chapter: Chapter, ran: Ran) -> bool:
            entry, seconds, error = done[chapter.name], round(clock.end(chapter.name), 1), ran.error
            entry |= {name: round(value, 1) for name, value in ran.used.items()}
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            entry |= {"status": "failed" if error else "ok", "seconds": seconds, "finished": finished, **made}
            (result.failed if error else result.ran).append(chapter.name)
            say(f"        {chapter.name} {'failed after' if error else 'took'} {seconds:.1f} s{error and f': {error}'}")
            write_json(folder / RECORD, record)
            return not error

        def skipped(chapter: Chapter, missing: list[str]) -> None:
            left.remove(chapter)
            say(f"        {chapter.name} skipped, it needs {', '.join(missing)}")
            result.skipped.append(chapter.name)
            jobs[chapter.name].target.unlink(missing_ok=True)
            done[chapter.name] = {"key": jobs[chapter.name].key, "status": "skipped", "seconds": 0.0}
            write_json(folder / RECORD, record)

        side_by_side(list(left), at_once, run, began, ended, skipped, end_all)
        write_json(folder / RECORD, record)
    if result.current:
        say(f"{len(result.current)} of {len(todo)} chapters are up to date")
    return result


def expected_seconds(root: Path, profile: str, done: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return how long each chapter took: here, or else, for the demo, on the machine of the stored results."""
    stored: dict[str, float] = {}
    with suppress(BookError, OSError):
        if profile == "demo":
            stored = read_json(root / "data" / "results" / "demo.json", BookError, "restore it")["seconds"]
    return stored | {name: entry["seconds"] for name, entry in done.items() if entry.get("status") == "ok"}


def execute(chapter: Chapter, parameters: dict[str, Any], target: Path, root: Path) -> Ran:
    """Run one chapter in the root, in a thread of its own.

    The executed notebook is written to ``target`` either way. What the chapter writes to stderr (progress bars) is
    shown live when this runs in a terminal.
    """
    without_iri_grammar()
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    target.parent.mkdir(parents=True, exist_ok=True)
    for name, value in KERNEL_ENVIRONMENT.items():  # the kernel inherits it
        os.environ.setdefault(name, value)
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    manager, error = counting(), ""
    try:
        papermill.execute_notebook(
            nbformat.from_dict(derive(chapter.path)), target, parameters, kernel_name="python3",
            resources={"metadata": {"path": str(root)}},  # `cwd` would move the whole process there
            progress_bar=False, stderr_file=sys.stderr if sys.stderr.isatty() else None,
            start_timeout=600,  # seconds; on a busy machine imports take long
            extra_arguments=["--log-level=CRITICAL"],  # errors come back in the notebook
            kernel_manager_class=manager if forks else PlainKernelManager,
        )  # fmt: skip
    except papermill.PapermillExecutionError as raised:
        error = f"{raised.ename}: {raised.evalue}"
    except DeadKernelError:
        error = "DeadKernelError: its process was killed, most often because memory ran out"
    except OSError as raised:
        fix = "make room on the disk, then run again: chapters that are done are not repeated"
        raise StorageError(f"could not be written ({raised.strerror or raised})", path=target, fix=fix) from None
    return Ran(error, manager.used)


def read_record(folder: Path) -> dict[str, Any]:
    """Return ``provenance.json`` of a profile's outputs, or an empty record; BookError if it is damaged."""
    path, fix = folder / RECORD, "remove it, then run again"
    if not path.exists():
        return {}
    record = read_json(path, BookError, fix=fix)
    entries = record.get("chapters", {}) if isinstance(record, dict) else None
    listed = entries.values() if isinstance(entries, dict) else [None]
    if not all(isinstance(entry, dict) and {"key", "status"} <= entry.keys() for entry in listed):
        raise BookError("this is not the record of a run", path=path, fix=fix)
    return record


def commit(root: Path) -> str | None:
    """Return git's name of the commit, with a ``+`` when files differ from it; None outside a repository."""
    name = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=root, capture_output=True, text=True)
    return name.stdout.strip() if name.returncode == 0 else None
