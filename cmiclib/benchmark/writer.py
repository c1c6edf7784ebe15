"""Write a prepared benchmark: shape by shape, resumable, and never half of one under its final name."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import BenchmarkError, StorageError
from ..geometry.render import ViewProtocol
from ..io.atomic import sync_folder
from ..io.files import shown
from . import FLAG_COLUMNS, FORMAT, QUERY_COLUMNS, SHAPE_COLUMNS, Benchmark, array_specs, file_sha256
from .checks import SPLITS, check_views, usable_id

_HEADER = 128  # bytes kept free at the start of each growing array; finish() writes its header there


class BenchmarkWriter:
    """Grow a benchmark in the sibling folder `.<name>.partial`; `finish` checks it and gives it its name.

    A shape or query is complete once its line stands in a journal, written after its arrays. A writer that
    finds a partial folder of the same settings goes on after the last complete line: ask `has_shape` and
    `has_query` before computing. A partial folder of other settings is started anew. When a write fails, most
    often for want of space, StorageError is raised and the partial folder stays for the next call.

    Args:
        path: the final folder; must not exist yet, or be empty.
        name, source, licence: recorded in `benchmark.json`.
        size: side S of views and photos in pixels.
        protocol: how the views were made.
        extra: further entries of `benchmark.json`, and part of the settings that a resumed folder must share.

    Raises:
        BenchmarkError: the final folder exists already.
        StorageError: the partial folder cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        source: str,
        licence: str,
        size: int,
        protocol: ViewProtocol | None = None,
        extra: dict[str, Any] | None = None,
    ):
        self.path = Path(path).absolute()
        self.partial = self.path.parent / f".{self.path.name}.partial"
        self.size = size
        self.protocol = protocol or ViewProtocol()
        self._settings = {
            "format": FORMAT, "name": name, "source": source, "licence": licence, "size": size,
            "protocol": self.protocol.model_dump(mode="json"), **(extra or {}),
        }  # fmt: skip
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise BenchmarkError("exists already", path=self.path, fix="remove it first, or write to another folder")
        with self._storage():
            self._start()

    def _start(self) -> None:
        self._shapes: dict[str, dict[str, Any]] = {}
        self._queries: dict[str, dict[str, Any]] = {}
        settings = self.partial / "settings.json"
        text = json.dumps(self._settings, indent=2, ensure_ascii=False)
        if not settings.is_file() or settings.read_bytes() != text.encode() or not self._resumable():
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            settings.write_text(text, encoding="utf-8")
            self._shapes, self._queries = {}, {}
        for file, (shape, dtype) in self._specs().items():  # cut off what an interruption left behind
            if (self.partial / file).is_file():
                if shape[0] == 0:
                    (self.partial / file).unlink()
                else:
                    os.truncate(self.partial / file, _HEADER + math.prod(shape) * np.dtype(dtype).itemsize)

    def _resumable(self) -> bool:
        """Read both journals; tell whether they, and all arrays that they promise, outlived the interruption.

        After a loss of power a journal may be there without the arrays that were written before it.
        """
        try:
            self._shapes = _read_journal(self.partial / "shapes.jsonl")
            self._queries = _read_journal(self.partial / "queries.jsonl")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        return all(
            (self.partial / file).stat().st_size >= _HEADER + math.prod(shape) * np.dtype(dtype).itemsize
            for file, (shape, dtype) in self._specs().items()
            if (self.partial / file).is_file() and shape[0] > 0
        )

    def has_shape(self, shape_id: str) -> bool:
        """Tell whether this shape is complete already."""
        return shape_id in self._shapes

    def has_query(self, query_id: str) -> bool:
        """Tell whether this query is complete already."""
        return query_id in self._queries

    def add_shape(
        self,
        shape_id: str,
        category: str,
        views: np.ndarray,
        *,
        name: str = "",
        creator: str = "",
        licence: str = "",
        source: str = "",
        group: str = "",
        points: np.ndarray | None = None,
        voxels: np.ndarray | None = None,
        mesh: bytes | None = None,
    ) -> None:
        """Append a shape; either all shapes of a benchmark have points, or none; so for voxels.

        Args:
            shape_id: unique; becomes a path below `meshes/`, so `category/name` is fine.
            category: name of the category.
            views: uint8 (12, S, S).
            name: what people call it.
            creator: who made it.
            licence: SPDX identifier.
            source: where it comes from.
            group: variants of one mesh share it; default: the shape's own id.
            points: float (10000, 3) on the surface of the normalised shape.
            voxels: packed solid grid, `geometry.pack_voxels`, uint8 (128·128·16,).
            mesh: a GLB file for the viewer.

        Raises:
            BenchmarkError: a repeated or unusable id, arrays of another shape, views that are all alike.
            StorageError: the write failed; what was added before stays, and another start goes on from there.
        """
        if not usable_id(shape_id):
            raise BenchmarkError(f"'{shape_id}' cannot be a shape id", fix="use names such as chair/my-chair")
        if shape_id in self._shapes:
            raise BenchmarkError(f"shape '{shape_id}' was added before", fix="shape ids must be unique")
        check_views(views, shape_id)
        arrays = {"views.npy": views, "points.npy": points, "voxels.npy": voxels}
        values = (shape_id, category, name, creator, licence, source, group or shape_id)
        row = dict(zip(SHAPE_COLUMNS, values, strict=True))
        with self._storage():
            if mesh is not None:
                target = self.partial / "meshes" / f"{shape_id}.glb"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(mesh)
            self._append(self._shapes, "shapes.jsonl", shape_id, row, arrays)

    def add_query(
        self,
        query_id: str,
        shape_id: str,
        category: str,
        image: np.ndarray,
        *,
        split: str,
        seen: bool = True,
        truncated: bool = False,
        occluded: bool = False,
        slightly_occluded: bool = False,
        photo: str = "",
        source: str = "",
        amodal: np.ndarray | None = None,
    ) -> None:
        """Append a photo.

        Args:
            query_id: unique.
            shape_id: the shape it shows; several joined by | where any counts as right.
            category: name of the category.
            image: uint8 (4, S, S), RGB and mask (255 everywhere where no mask is known).
            split: train, val or test.
            seen: the shape, or a variant of its group, has training photos.
            truncated: the object is cut off by the photo's border.
            occluded: something hides a good part of it.
            slightly_occluded: something hides a little of it.
            photo: the photo's name in its source, unique unless empty.
            source: where the photo comes from.
            amodal: mask of the whole object in the same crop, uint8 (S, S).

        Raises:
            BenchmarkError: a repeated id, an unknown split, arrays of another shape.
            StorageError: the write failed; what was added before stays, and another start goes on from there.
        """
        if query_id in self._queries:
            raise BenchmarkError(f"query '{query_id}' was added before", fix="query ids must be unique")
        if split not in SPLITS:
            raise BenchmarkError(f"unknown split '{split}'", fix=f"use one of: {', '.join(SPLITS)}")
        known = amodal is not None
        arrays = {
            "queries.npy": image,
            "amodal.npy": amodal if known else np.zeros((self.size, self.size), np.uint8),
        }
        flags = (bool(seen), bool(truncated), bool(occluded), bool(slightly_occluded))
        values = (query_id, shape_id, category, split, *flags, photo, source)
        row = dict(zip(QUERY_COLUMNS, values, strict=True)) | {"amodal": known}
        with self._storage():
            self._append(self._queries, "queries.jsonl", query_id, row, arrays)

    def finish(self, left_out: Sequence[str] = ()) -> Benchmark:
        """Write tables and headers, check the whole, and rename it to its final name.

        Args:
            left_out: what the benchmark lacks, each with the reason; written to `left_out.txt` where there is any.

        Raises:
            BenchmarkError: the benchmark contradicts itself; nothing of it stays.
            StorageError: a write failed; what was added stays, and another start goes on from there.
        """
        with self._storage():
            shapes = pd.DataFrame(self._shapes.values(), columns=list(SHAPE_COLUMNS))
            queries = pd.DataFrame(self._queries.values(), columns=list(QUERY_COLUMNS))
            queries[list(FLAG_COLUMNS)] = queries[list(FLAG_COLUMNS)].astype(bool)
            shapes.to_csv(self.partial / "shapes.csv", index=False, lineterminator="\n")
            queries.to_csv(self.partial / "queries.csv", index=False, lineterminator="\n")
            if not any(row["amodal"] for row in self._queries.values()):
                (self.partial / "amodal.npy").unlink(missing_ok=True)
            for file, (shape, dtype) in self._specs().items():
                if (self.partial / file).is_file() or file in ("views.npy", "queries.npy"):
                    _write_header(self.partial / file, shape, dtype)
            if left_out:
                text = "".join(" ".join(line.split()) + "\n" for line in left_out)
                (self.partial / "left_out.txt").write_text(text, encoding="utf-8", errors="replace")
            hashed = [f for f in ("shapes.csv", "queries.csv", *self._specs()) if (self.partial / f).is_file()]
            meta = self._settings | {
                "shapes": len(shapes),
                "queries": len(queries),
                "sha256": {file: file_sha256(self.partial / file) for file in hashed},
            }
            text = json.dumps(meta, indent=2, ensure_ascii=False)
            (self.partial / "benchmark.json").write_text(text + "\n", encoding="utf-8")
            try:
                Benchmark.open(self.partial, verify=False)
            except BenchmarkError:
                shutil.rmtree(self.partial)
                raise
            _sync(self.partial)
            for name in ("settings.json", "shapes.jsonl", "queries.jsonl"):
                (self.partial / name).unlink(missing_ok=True)
            sync_folder(self.partial)
            if self.path.is_dir():
                self.path.rmdir()
            self.partial.rename(self.path)
            sync_folder(self.path.parent)
        return Benchmark.open(self.path, verify=False)

    def _specs(self) -> dict[str, tuple[tuple[int, ...], type]]:
        return array_specs(len(self._shapes), len(self._queries), self.size, len(self.protocol.azimuths))

    def _append(
        self,
        rows: dict[str, dict[str, Any]],
        journal: str,
        key: str,
        row: dict[str, Any],
        arrays: dict[str, np.ndarray | None],
    ) -> None:
        specs = self._specs()
        try:
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # half a character, which JSON can hold and no other file
            raise BenchmarkError(f"{shown(key)}: one of its texts is none", fix="correct the source") from None
        for file, array in arrays.items():
            shape = specs[file][0][1:]
            if array is not None and array.shape != shape:
                raise BenchmarkError(f"'{key}': {file} takes {shape}, not {array.shape}")
            if rows and (array is not None) != (self.partial / file).is_file():
                raise BenchmarkError(
                    f"'{key}' has {'no ' if array is None else ''}{file.removesuffix('.npy')}, unlike those before",
                    fix="give them for all shapes, or for none",
                )
        for file, array in arrays.items():
            if array is not None:
                with (self.partial / file).open("ab") as stream:
                    if stream.tell() == 0:
                        stream.write(bytes(_HEADER))
                    stream.write(np.ascontiguousarray(array, dtype=specs[file][1]).tobytes())
        with (self.partial / journal).open("ab") as stream:
            stream.write(line)
        rows[key] = row

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot be written ({error.strerror or error})",
                path=self.path,
                fix="free some space and run again: it goes on where it stopped; or choose another folder",
            ) from error


def facts_digest(*facts: object) -> str:
    """Return a hash of names and facts for ``extra``: an interrupted call goes on with the same ones only."""
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _sync(root: Path) -> None:
    """Bring all files below a folder to the disk, then the folders' lists of them."""
    folders = [root]
    for path in root.rglob("*"):
        if path.is_dir():
            folders.append(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    for folder in folders:
        sync_folder(folder)


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by id, in order; a last line that an interruption cut off is removed from the file."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    complete = content.rpartition(b"\n")[0]
    if (length := len(complete) + 1 if complete else 0) < len(content):
        os.truncate(path, length)  # not written anew, which a full disk would not allow
    rows = [json.loads(line) for line in complete.split(b"\n") if line]
    return {row.get("query_id", row["shape_id"]): row for row in rows}


def _write_header(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    prefix = np.lib.format.magic(1, 0) + (_HEADER - 10).to_bytes(2, "little")
    path.touch()
    with path.open("r+b") as file:
        file.write(prefix + repr(header).ljust(_HEADER - 11).encode("latin-1") + b"\n")
