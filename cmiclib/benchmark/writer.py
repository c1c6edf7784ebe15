"""Write a prepared benchmark: row by row, resumable, and never half of one under its final name."""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import BenchmarkError, StorageError
from ..io.atomic import sync_folder, write_json
from ..io.files import read_json
from ..io.lock import alone
from ..io.protocol import PROTOCOL, ViewProtocol
from . import FLAG_COLUMNS, FORMAT, QUERY_COLUMNS, SHAPE_COLUMNS, Benchmark, array_specs, file_sha256
from .checks import SPLITS, check_views, usable_id
from .growing import GrowingTable


class BenchmarkWriter(AbstractContextManager["BenchmarkWriter"]):
    """Grow a benchmark in the sibling folder `.<name>.partial`; `finish` checks it and gives it its name.

    The arrays of a row are appended to files `*.part`, then its line to a journal: only then the row is complete. A
    writer that finds a partial folder of the same settings goes on after the last complete row. `needs_shape` and
    `needs_query` announce what the benchmark shall hold, in its order, and tell what of it is still to be added; rows
    of an earlier call that nobody announces are not in the benchmark. When anything fails, the partial folder stays
    for the next call. Use it as a context, or call `close`: it locks the partial folder.

    It is a BenchmarkError if the final folder exists, the partial one has other settings, or another process writes.
    """

    def __init__(
        self,
        path: str | Path,  # the final folder; must not exist yet, or be empty
        *,
        name: str,
        source: str,
        licence: str,
        size: int,  # side S of views and photos in pixels
        protocol: ViewProtocol = PROTOCOL,  # how the views were made
        extra: dict[str, Any] | None = None,  # further entries of benchmark.json, and of the settings
    ):
        self.path = Path(path).absolute()
        self.partial = self.path.parent / f".{self.path.name}.partial"
        self.size, self.protocol = size, protocol
        self._settings = {
            "format": FORMAT, "name": name, "source": source, "licence": licence, "size": size,
            "protocol": self.protocol.model_dump(mode="json"), **(extra or {}),
        }  # fmt: skip
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise BenchmarkError("exists already", path=self.path, fix="remove it first, or write to another folder")
        specs = array_specs(1, 1, size, len(protocol.azimuths))
        rows = {file: (shape[1:], dtype) for file, (shape, dtype) in specs.items()}
        queries = {file: rows.pop(file) for file in ("queries.npy", "amodal.npy")}
        with ExitStack() as lock, self._storage():
            lock.enter_context(alone(self.partial, BenchmarkError))
            self._check_settings()
            self._shapes = GrowingTable(self.partial, "shapes", rows)
            self._queries = GrowingTable(self.partial, "queries", queries)
            self._lock = lock.pop_all()

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; what was added stays for the next writer of this path."""
        self._lock.close()

    def needs_shape(self, shape_id: str, origin: str = "") -> bool:
        """Announce a shape; tell whether it is still to be added, or again: its `origin_of` is another one."""
        return self._shapes.needs(shape_id, origin)

    def needs_query(self, query_id: str, origin: str = "") -> bool:
        """Announce a photo; tell whether it is still to be added, as `needs_shape` does."""
        return self._queries.needs(query_id, origin)

    def add_shape(
        self,
        shape_id: str,  # unique; becomes a path below meshes/, so category/name is fine
        category: str,
        views: np.ndarray,  # uint8 (12, S, S)
        *,
        name: str = "",  # what people call it
        creator: str = "",
        licence: str = "",  # SPDX identifier
        source: str = "",  # where it comes from
        group: str = "",  # variants of one mesh share it; default: the shape's own id
        points: np.ndarray | None = None,  # float (10000, 3) on the surface of the normalised shape
        voxels: np.ndarray | None = None,  # packed solid grid, geometry.pack_voxels, uint8 (128·128·16,)
        mesh: bytes | None = None,  # a GLB file for the viewer
    ) -> None:
        """Append a shape; either all shapes of a benchmark have points, or none; the same holds for voxels.

        A repeated or unusable id, arrays of another shape or views that are empty are a BenchmarkError.
        """
        if not usable_id(shape_id):
            raise BenchmarkError(f"'{shape_id}' cannot be a shape id", fix="use names such as chair/my-chair")
        check_views(views, shape_id)
        arrays = {"views.npy": views, "points.npy": points, "voxels.npy": voxels}
        values = (shape_id, category, name, creator, licence, source, group or shape_id)
        with self._storage():
            if mesh is not None:
                target = self.partial / "meshes" / f"{shape_id}.glb"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(mesh)
            self._shapes.add(shape_id, dict(zip(SHAPE_COLUMNS, values, strict=True)), arrays)

    def add_query(
        self,
        query_id: str,  # unique
        shape_id: str,  # the shape it shows; several joined by | where any counts as right
        category: str,
        image: np.ndarray,  # uint8 (4, S, S), RGB and mask (255 everywhere where no mask is known)
        *,
        split: str,  # train, val or test
        truncated: bool = False,  # the object is cut off by the photo's border
        occluded: bool = False,  # something hides a good part of it
        slightly_occluded: bool = False,  # something hides a little of it
        photo: str = "",  # the photo's name in its source, unique unless empty
        source: str = "",  # where the photo comes from
        amodal: np.ndarray | None = None,  # mask of the whole object in the same crop, uint8 (S, S)
    ) -> None:
        """Append a photo; a repeated id, an unknown split or arrays of another shape are a BenchmarkError."""
        if split not in SPLITS:
            raise BenchmarkError(f"unknown split '{split}'", fix=f"use one of: {', '.join(SPLITS)}")
        known = amodal is not None
        arrays = {"queries.npy": image, "amodal.npy": amodal if known else np.zeros((self.size, self.size), np.uint8)}
        flags = (False, bool(truncated), bool(occluded), bool(slightly_occluded))  # finish() knows what is seen
        values = (query_id, shape_id, category, split, *flags, photo, source)
        row = dict(zip(QUERY_COLUMNS, values, strict=True)) | {"amodal": known}
        with self._storage():
            self._queries.add(query_id, row, arrays)

    def finish(self, left_out: Sequence[str] = (), trained: Collection[str] = ()) -> Benchmark:
        """Write tables and headers, check the whole, and rename it to its final name.

        A photo is marked seen where a training photo shows its shape, or a variant in its group; ``trained`` are groups
        that have training photos elsewhere. What the benchmark lacks, ``left_out`` with reasons, is put in a text file.
        """
        with self._storage():
            try:
                self._write(left_out, set(trained))
                Benchmark.open(self.partial, verify=False)
                _sync(self.partial)
                if os.name == "nt":
                    self.close()  # Windows renames no folder that holds an open file
                if self.path.is_dir():
                    self.path.rmdir()
                self.partial.rename(self.path)
            except BaseException:
                self._shapes.take_back()
                self._queries.take_back()
                raise
            sync_folder(self.path.parent)
        self.close()
        dropped = self._shapes.rows.keys() - {row["shape_id"] for row in self._shapes.chosen()}
        parts = [part.name for table in (self._shapes, self._queries) for part in table.parts.values()]
        kept = ["settings.json", "shapes.jsonl", "queries.jsonl", ".lock", ".lock-holder", *parts]
        for name in (*kept, *(f"meshes/{shape_id}.glb" for shape_id in dropped)):
            with suppress(OSError):  # the benchmark is complete: what stays costs space only
                (self.path / name).unlink(missing_ok=True)
        return Benchmark.open(self.path, verify=False)

    def _write(self, left_out: Sequence[str], trained: set[str]) -> None:
        """Make a benchmark of the partial folder; the parts and journals stay what they are."""
        rows = self._queries.chosen()
        shapes = pd.DataFrame(self._shapes.chosen(), columns=list(SHAPE_COLUMNS))
        queries = pd.DataFrame(rows, columns=list(QUERY_COLUMNS))
        group = dict(zip(shapes["shape_id"], shapes["group"], strict=True))
        groups = [{group.get(name, name) for name in row["shape_id"].split("|")} for row in rows]
        trained = trained.union(*(own for own, row in zip(groups, rows, strict=True) if row["split"] == "train"))
        queries["seen"] = [not own.isdisjoint(trained) for own in groups]
        queries[list(FLAG_COLUMNS)] = queries[list(FLAG_COLUMNS)].astype(bool)
        shapes.to_csv(self.partial / "shapes.csv", index=False, lineterminator="\n")
        queries.to_csv(self.partial / "queries.csv", index=False, lineterminator="\n")
        arrays = {"views.npy", "queries.npy", *(self._shapes.arrays if len(shapes) else ())}
        arrays |= {"amodal.npy"} if any(row["amodal"] for row in rows) else set()
        for table in (self._shapes, self._queries):
            for file in arrays & table.specs.keys():
                table.place(file)
        (self.partial / "left_out.txt").unlink(missing_ok=True)
        if left_out:
            text = "".join(" ".join(line.split()) + "\n" for line in left_out)
            (self.partial / "left_out.txt").write_text(text, encoding="utf-8", errors="replace")
        hashed = ("shapes.csv", "queries.csv", *(file for file in array_specs(0, 0, 0, 0) if file in arrays))
        digests = {file: file_sha256(self.partial / file) for file in hashed}
        meta = self._settings | {"shapes": len(shapes), "queries": len(queries), "sha256": digests}
        text = json.dumps(meta, indent=2, ensure_ascii=False)
        (self.partial / "benchmark.json").write_text(text + "\n", encoding="utf-8")

    def _check_settings(self) -> None:
        """Write the settings, but refuse a partial folder with rows of other settings."""
        file, own = self.partial / "settings.json", json.loads(json.dumps(self._settings))
        if not any(self.partial.glob("*.jsonl")):
            write_json(file, own)
        fix = f"repeat that call with its own settings, or remove the folder {self.partial} to start anew"
        found = read_json(file, BenchmarkError, fix)
        if found != own:
            found = found if isinstance(found, dict) else {}
            pairs = {name: (json.dumps(found.get(name)), json.dumps(own.get(name))) for name in own | found}
            said = [f"{name} was {old:.60}, now {new:.60}" for name, (old, new) in pairs.items() if old != new]
            problem = f"an interrupted call with other settings left its work here: {'; '.join(said)}"
            raise BenchmarkError(problem, path=self.partial, fix=fix)

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fix = "free some space and run again: it goes on where it stopped; or choose another folder"
            raise StorageError(f"cannot be written ({error.strerror or error})", path=self.path, fix=fix) from error


def _sync(root: Path) -> None:
    """Bring all files below a folder to the disk, then the folders' lists of them."""
    paths = [root, *root.rglob("*")]
    for path in paths:
        if path.is_file():
            with path.open("r+b") as stream:  # Windows syncs no file that is open for reading only
                os.fsync(stream.fileno())
    for folder in filter(Path.is_dir, paths):
        sync_folder(folder)
