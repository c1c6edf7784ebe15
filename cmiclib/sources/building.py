"""From lists of files to a finished benchmark: what every source does at the end."""

import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..benchmark.writer import BenchmarkWriter
from ..errors import CMICError, SourceError
from ..io.protocol import ViewProtocol
from . import Prepared, PrepareOptions, listed
from .meshes import MeshFile
from .photos import PhotoFile
from .workers import Defect, results

T = TypeVar("T", MeshFile, PhotoFile)


def build(
    writer: BenchmarkWriter,
    meshes: Sequence[MeshFile],
    photos: Iterable[PhotoFile],
    options: PrepareOptions,
    left_out: Iterable[str] = (),
    *,
    trained: Collection[str] = (),
    threads: bool = False,
) -> Prepared:
    """Add shapes and photos to a benchmark and finish it; what an interrupted call has added is kept.

    The writer has no shapes yet, or those of a gallery that was copied. A shape that is left out takes its photos with
    it. ``left_out`` is what was left out before, each with its reason; ``trained`` are groups that have training photos
    elsewhere; ``threads`` are used instead of processes where the work is unpacking. A SourceError lists all shapes or
    photos that cannot be used; what was made of the others stays for the next call.
    """
    lines = list(left_out)
    with writer, _naming(lines):
        broken = add_shapes(writer, meshes, options, threads)
        if meshes and len(broken) == len(meshes):
            raise SourceError(f"no shape can be used; {listed(list(broken.values()), 'problem')}", fix="repair them")
        lines += broken.values()
        kept = []
        for photo in photos:
            own = tuple(name for name in photo.shape_ids if name not in broken)
            lines += [f"{photo.path}: its shape {name} is left out" for name in photo.shape_ids if name in broken]
            if own:
                kept.append(replace(photo, shape_ids=own))
        lines += [problem for _, problem in _add(writer, kept, "photo", options, threads)]
        return Prepared(writer.finish(lines, trained), lines)


@contextlib.contextmanager
def _naming(left_out: list[str]) -> Iterator[None]:
    """Add what was left out to the message of an error that ends a preparation, where no `left_out.txt` tells it."""
    try:
        yield
    except SourceError as error:
        also = f"; {listed(left_out, 'other file')}" if left_out else ""
        raise SourceError(error.problem + also, path=error.path, fix=error.fix) from None


def add_shapes(
    writer: BenchmarkWriter, meshes: Iterable[MeshFile], options: PrepareOptions, threads: bool = False
) -> dict[str, str]:
    """Add shapes, in order; return id → reason of those that ``allow_missing`` leaves out, instead of an error."""
    return {mesh.shape_id: problem for mesh, problem in _add(writer, meshes, "shape", options, threads)}


def _add(
    writer: BenchmarkWriter, items: Iterable[T], what: str, options: PrepareOptions, threads: bool
) -> list[tuple[T, str]]:
    """Make something of each item that is needed and add it; return those of which nothing can be made, and why."""
    todo, problems, log = [item for item in items if item.needed(writer)], [], Path(f"{writer.path}.errors.log")
    make = partial(_make, size=writer.size, protocol=writer.protocol)
    with results(make, todo, f"{what}s", options, threads=threads, together=_files_shared) as made:
        for item, result in made:
            if isinstance(result, CMICError):
                also = f"; {log} holds the traceback" if isinstance(result, Defect) else ""
                problems.append((item, f"{result.path or item.path}: {result.problem}{also}"))
                if len(problems) == 1 and options.progress and options.allow_missing:  # the others wait for the end
                    tqdm.write(f"left out: {problems[0][1]}", sys.stderr)
                if isinstance(result, Defect):
                    with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                        file.write(f"{item.path}\n{result.trace}\n")
            else:
                item.add(writer, result)
    if problems and not options.allow_missing:
        lines = [problem for _, problem in problems]
        raise SourceError(listed(lines, what, " cannot be used"), fix="repair them, or pass --allow-missing")
    return problems


def _make(item: T, size: int, protocol: ViewProtocol) -> Any:
    return item.cut(item, size) if isinstance(item, PhotoFile) else item.make(item, size, protocol)


def _files_shared(item: T) -> object:
    return (isinstance(item, PhotoFile) and item.also) or id(item)
