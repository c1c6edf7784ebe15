"""A folder of meshes as a gallery without photos: what was made of a file is kept, by the file's content.

The cache holds, beside a finished benchmark for each state of a folder (``galleries/``),

    files.json   path → size, time and digest: an unchanged file is not read again
    shapes/…     views and a small mesh of one content, or why nothing can be made of it

so a new file costs its own rendering only. A gallery replaces the one that the same folder had before, and what nobody
has used for `DAYS` days is removed when something new is made. Removing the cache loses time and nothing else.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ...benchmark import Benchmark, file_sha256
from ...benchmark.writer import BenchmarkWriter
from ...errors import CMICError, MeshError, PassingError, SourceError
from ...io.atomic import write_atomically
from ...io.code import code_digest
from ...io.files import read_json
from ...io.lock import in_turn
from ...io.protocol import ViewProtocol
from .. import PrepareOptions
from ..building import build
from ..meshes import MeshFile, Shape, prepare_mesh
from .folder import find_meshes
from .overview import write_overview

DAYS = 60
CODE = ("geometry", "io/files", "io/formats", "io/images", "io/meshes", "io/protocol", "sources/meshes")
"""The modules and rooms that decide what is made of a mesh file."""


class KeptGallery(NamedTuple):
    """A folder's meshes as a benchmark, whose ``meta["digests"]`` tells what each shape's views depend on."""

    benchmark: Benchmark
    files: dict[str, Path]  # shape id → its mesh file
    left_out: list[str]  # what cannot be used, each with its reason


def cache_folder() -> Path:
    """Return the user's folder for what can be made again."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "cmic"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cmic"


def keep_gallery(
    folder: Path,
    cache: Path,
    options: PrepareOptions,
    *,
    category: str | None = None,
    up: str = "+y",
    front: str = "+z",
) -> KeptGallery:
    """Return the gallery of a folder of meshes, searched to any depth; what cannot be used is left out.

    Args:
        folder: OBJ, GLB and the other formats of :mod:`cmiclib.io.meshes`; the first folder of a path is the category.
        cache: a folder that this function may fill, shared by all folders of meshes.
        options: the size of the views in pixels, the number of processes, and whether to show bars.
        category: take only the shapes of this category.
        up: the axis that points up in the meshes, or rules for some files, as in `prepare_folder`.
        front: the axis that the objects' fronts look along, likewise.

    Raises:
        SourceError: no meshes, none that can be used, none of the category, or none of a pattern.
        MeshError: up and front are not two different axes.
        StorageError: the disk is full.
    """
    meshes, left_out = find_meshes(folder, None, up, front, twice=True)
    if category is not None:
        known, meshes = {mesh.category for mesh in meshes}, [mesh for mesh in meshes if mesh.category == category]
        if not meshes:
            problem, fix = f"there are no shapes of the category '{category}'", f"use one of {', '.join(sorted(known))}"
            raise SourceError(problem, path=folder, fix=fix)
    with in_turn(cache / "lock"):
        digests = _digests(meshes, cache / "files.json", options.size)
        place = digest_of([str(folder.resolve()), category, options.size, up, front])[:10]  # left_out.txt names paths
        path = cache / "galleries" / f"{place}-{digest_of(list(digests.items()))}"
        if path.is_dir() and not all((cache / "shapes" / digest).is_file() for digest in digests.values()):
            shutil.rmtree(path)  # something failed that says nothing about the file, or was removed
        new = not path.is_dir()
        if new:
            made = [
                replace(mesh, make=partial(_kept_shape, digest=digests[mesh.shape_id], cache=cache)) for mesh in meshes
            ]
            name, size = folder.resolve().name, options.size
            writer = BenchmarkWriter(
                path, name=name, source="a folder of meshes", licence="see the files", size=size,
                extra={"digests": digests},
            )  # fmt: skip
            write_overview(build(writer, made, [], replace(options, allow_missing=True)).benchmark)
        for used in (path, *(cache / "shapes" / digest for digest in digests.values())):
            with suppress(OSError):
                os.utime(used)
        if new:
            _prune(cache, place, path)
    gone = path / "left_out.txt"
    left_out = left_out + (gone.read_text("utf-8").splitlines() if gone.is_file() else [])
    files = {mesh.shape_id: mesh.path for mesh in meshes}
    return KeptGallery(Benchmark.open(path, verify=False), files, left_out)


def _prune(cache: Path, place: str, path: Path) -> None:
    """Remove earlier galleries of a folder, and what nobody has used for a long time."""
    oldest = time.time() - DAYS * 86400
    with suppress(OSError):
        for gallery in (cache / "galleries").iterdir():
            old = gallery.name.startswith(place) or gallery.stat().st_mtime < oldest
            if old and gallery.is_dir() and gallery != path and not gallery.name.startswith("."):
                shutil.rmtree(gallery, ignore_errors=True)
        for shape in (cache / "shapes").iterdir():
            if shape.stat().st_mtime < oldest:
                shape.unlink()
        for vectors in (cache / "vectors").glob("*/*"):
            if not (cache / "shapes" / vectors.name).is_file():
                vectors.unlink()


def digest_of(facts: Any) -> str:
    """Return a digest of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _digests(meshes: Sequence[MeshFile], table: Path, size: int) -> dict[str, str]:
    """Return shape id → a digest of content and frame; only files that are new or were changed are read."""
    known: dict[str, Any] = {}
    with suppress(SourceError):  # a damaged table costs reading the files again
        known = dict(read_json(table, SourceError, "remove it")) if table.is_file() else {}
    digests = {mesh.shape_id: _digest(mesh, known, size) for mesh in meshes}
    write_atomically(table, lambda temporary: temporary.write_text(json.dumps(known), "ascii"))
    return digests


def _digest(mesh: MeshFile, known: dict[str, Any], size: int) -> str:
    contents = [_content(file, known) for file in (mesh.path, *mesh.also) if file.is_file()]
    facts = [mesh.path.suffix.lower(), mesh.up, mesh.front, size, _code(), find_spec("cascadio") is not None]
    return digest_of([contents, *facts])


@cache
def _code() -> str:
    return code_digest(CODE)


def _content(file: Path, known: dict[str, Any]) -> str:
    found, key = file.stat(), str(file.resolve())
    stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]  # renaming changes the last two
    if not isinstance(known.get(key), list) or known[key][:-1] != stamp:
        try:
            known[key] = [*stamp, file_sha256(file)]
        except OSError:  # the mesh's reader will say so
            return f"unreadable {file}"
    return str(known[key][-1])


def _kept_shape(mesh: MeshFile, size: int, protocol: ViewProtocol, *, digest: str, cache: Path) -> Shape:
    """Return views and small mesh of a file, made once; so is the finding that nothing can be made of it."""
    file = cache / "shapes" / digest
    if not file.is_file():
        facts, arrays = {"problem": "", "fix": "", "note": ""}, {"none": np.zeros(1)}
        try:
            made = prepare_mesh(mesh, size, protocol, measured=False)
            arrays, facts["note"] = {"views": made.views, "mesh": np.frombuffer(made.mesh or b"", np.uint8)}, made.note
        except PassingError:
            raise
        except CMICError as error:
            facts |= {"problem": error.problem, "fix": error.fix or ""}
        if _digest(mesh, {}, size) != digest:
            raise PassingError("the file was changed while it was read", path=mesh.path, fix="search again")
        write_atomically(file, lambda temporary: save_file(arrays, temporary, facts))
    with safe_open(file, framework="np") as stored:
        facts = stored.metadata()
        if facts["problem"]:
            raise MeshError(facts["problem"], path=mesh.path, fix=facts["fix"])
        return Shape(stored.get_tensor("views"), mesh=stored.get_tensor("mesh").tobytes(), note=facts["note"])
