"""The prepared benchmark: one folder format for every data set, checked when opened, memory-mapped.

    benchmark.json   name, source, licence, view protocol, image size, counts, sha256 of every array and table
    shapes.csv       a row for each shape of the gallery; row i belongs to views[i], points[i], voxels[i]
    queries.csv      a row for each photo; row i belongs to images[i], amodal[i]
    views.npy        uint8   (N, 12, S, S)        grayscale views
    queries.npy      uint8   (Q, 4, S, S)         RGB and mask of the square crop (mask 255 everywhere: not known)
    amodal.npy       uint8   (Q, S, S)            mask of the object and its hidden parts (0 everywhere: not known)
    points.npy       float16 (N, 10000, 3)        points on the surface of the normalised shape
    voxels.npy       uint8   (N, 128·128·16)      packed bits of the solid grid
    meshes/<shape_id>.glb                         a simplified mesh for the viewer

The last four are optional. `cmiclib.benchmark.writer` makes such a folder.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ..errors import BenchmarkError, MissingArrayError
from ..io.files import check_inside, map_array, read_json, read_table, shown
from ..io.protocol import ViewProtocol
from .checks import FIX, SPLITS, check_gallery, check_tables, damaged

FORMAT = 1
POINTS = 10_000
VOXELS = 128
SHAPE_COLUMNS = ("shape_id", "category", "name", "creator", "licence", "source", "group")
FLAG_COLUMNS = ("seen", "truncated", "occluded", "slightly_occluded")
QUERY_COLUMNS = ("query_id", "shape_id", "category", "split", *FLAG_COLUMNS, "photo", "source")
HIDDEN = "|hidden"
"""Stands for the shape and the category of a test photo in what training gets; no shape has such an id."""
TABLES = {"shapes.csv": SHAPE_COLUMNS, "queries.csv": QUERY_COLUMNS}


def array_specs(shapes: int, queries: int, size: int, views: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Return file name → (shape, dtype) of every array that a benchmark may hold."""
    return {
        "views.npy": ((shapes, views, size, size), np.uint8),
        "queries.npy": ((queries, 4, size, size), np.uint8),
        "amodal.npy": ((queries, size, size), np.uint8),
        "points.npy": ((shapes, POINTS, 3), np.float16),
        "voxels.npy": ((shapes, VOXELS**3 // 8), np.uint8),
    }


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A prepared benchmark on disk; open it with `Benchmark.open`."""

    path: Path
    meta: dict[str, Any]
    shapes: pd.DataFrame
    queries: pd.DataFrame
    arrays: dict[str, np.ndarray]
    all_categories: list[str] | None = None  # the categories that count, where the tables do not show them all
    all_photographed: np.ndarray | None = None  # the same of `photographed`, bool (N,)

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> "Benchmark":
        """Open a folder and check counts, shapes, dtypes, ids and splits; a BenchmarkError says what is wrong.

        With ``verify`` also compare the sha256 of every array and table (about a second for 500 MB), and look for
        shapes whose views are empty.
        """
        path = Path(path)
        meta = _read_meta(path)
        if verify:
            _check_hashes(path, meta["sha256"])
        shapes, queries = (_read_table(path / name) for name in TABLES)
        arrays = _open_arrays(path, meta)
        check_tables(shapes, queries, path)
        for name, count in (("shapes", len(shapes)), ("queries", len(queries))):
            if meta[name] != count:
                raise damaged(path / f"{name}.csv", f"{count} rows, but benchmark.json says {meta[name]}")
        if verify:
            check_gallery(arrays["views.npy"], shapes["shape_id"], path / "views.npy")
        return cls(path, meta, shapes, queries, arrays)

    @property
    def name(self) -> str:
        """Name of the benchmark."""
        return self.meta["name"]

    @property
    def size(self) -> int:
        """Side of views and photos in pixels."""
        return self.meta["size"]

    @property
    def protocol(self) -> ViewProtocol:
        """How the views were made."""
        return ViewProtocol(**self.meta["protocol"])

    @property
    def hash(self) -> str:
        """One hexadecimal digest of all arrays and both tables."""
        text = "".join(f"{name} {digest}\n" for name, digest in sorted(self.meta["sha256"].items()))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def views(self) -> np.ndarray:
        """Grayscale views, uint8 (N, 12, S, S)."""
        return self._array("views.npy")

    @property
    def images(self) -> np.ndarray:
        """Photos with their masks, uint8 (Q, 4, S, S)."""
        return self._array("queries.npy")

    @property
    def amodal(self) -> np.ndarray:
        """Masks of whole objects, uint8 (Q, S, S); all zero where not known. Raises MissingArrayError."""
        return self._array("amodal.npy")

    @property
    def points(self) -> np.ndarray:
        """Surface points, float16 (N, 10000, 3), farthest vertex at 1. Raises MissingArrayError."""
        return self._array("points.npy")

    @property
    def voxels(self) -> np.ndarray:
        """Packed solid grids, uint8 (N, 128·128·16); `geometry.unpack_voxels`. Raises MissingArrayError."""
        return self._array("voxels.npy")

    def _array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            fix = "prepare it again from meshes, or leave out what needs this array"
            raise MissingArrayError(f"the benchmark '{self.name}' has no {name}", path=self.path, fix=fix)
        return self.arrays[name]

    def mesh_path(self, shape_id: str) -> Path:
        """Return the path of a shape's simplified mesh. Raises MissingArrayError."""
        path = self.path / "meshes" / f"{shape_id}.glb"
        if not path.is_file():
            fix = "prepare the benchmark again from meshes"
            raise MissingArrayError(f"no mesh of shape '{shape_id}'", path=path, fix=fix)
        check_inside(path, self.path, BenchmarkError)
        return path

    @cached_property
    def categories(self) -> list[str]:
        """All category names of shapes and queries, sorted; category codes are positions in this list."""
        return self.all_categories or sorted(set(self.shapes["category"]) | set(self.queries["category"]))

    def rows(self, split: Literal["train", "val", "test", "all"] = "all", seen: bool | None = None) -> np.ndarray:
        """Return rows of `queries` and `images` of a split, int64, ascending.

        ``seen`` keeps only queries whose shape has (True) or does not have (False) a training photo.
        """
        if split not in (*SPLITS, "all"):
            raise BenchmarkError(f"unknown split '{split}'", fix=f"use one of: {', '.join(SPLITS)}, all")
        keep = np.ones(len(self.queries), bool) if split == "all" else (self.queries["split"] == split).to_numpy()
        if seen is not None:
            keep = keep & (self.queries["seen"].to_numpy() == seen)
        return np.flatnonzero(keep)

    @cached_property
    def photographed(self) -> np.ndarray:
        """Whether any photo of any split shows the shape, bool (N,)."""
        if self.all_photographed is not None:
            return self.all_photographed
        return self.shapes["shape_id"].isin(self.queries["shape_id"].str.split("|").explode()).to_numpy()

    def without_test_labels(self) -> "Benchmark":
        """Return the benchmark as training gets it: without the shapes and categories that the test photos show.

        Which shapes have photos at all stays known, so that training takes no shape of a test photo for a distractor.
        """
        queries = self.queries.copy()
        queries.loc[queries["split"] == "test", ["shape_id", "category"]] = HIDDEN
        return replace(self, queries=queries, all_categories=self.categories, all_photographed=self.photographed)

    def relevant(self, rows: np.ndarray) -> np.ndarray:
        """Return bool (len(rows), N): the shape is the query's own (or any of several joined by ``|``)."""
        index = {shape_id: i for i, shape_id in enumerate(self.shapes["shape_id"])}
        out = np.zeros((len(rows), len(self.shapes)), bool)
        for i, ids in enumerate(self.queries["shape_id"].to_numpy()[rows]):
            if ids == HIDDEN:
                raise BenchmarkError("training asks what a test photo shows", path=self.path, fix="use train and val")
            out[i, [index[shape_id] for shape_id in ids.split("|")]] = True
        return out

    def group_relevant(self, rows: np.ndarray) -> np.ndarray:
        """Return bool (len(rows), N): the shape is the query's own or a variant of the same group."""
        group, names = pd.factorize(self.shapes["group"])  # (N,), (G,)
        query, shape = np.nonzero(self.relevant(rows))
        wanted = np.zeros((len(rows), len(names)), bool)  # (len(rows), G)
        wanted[query, group[shape]] = True
        return wanted[:, group]

    def query_category(self, rows: np.ndarray) -> np.ndarray:
        """Return category codes of these queries, int64 (len(rows),)."""
        return self._codes(self.queries["category"].to_numpy()[rows])

    def shape_category(self) -> np.ndarray:
        """Return category codes of all shapes, int64 (N,)."""
        return self._codes(self.shapes["category"].to_numpy())

    def _codes(self, names: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.array(self.categories), names.astype(str)).astype(np.int64)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_meta(path: Path) -> dict[str, Any]:
    file = path / "benchmark.json"
    if not file.is_file():
        fix = "make one with `cmic prepare SOURCE --output DIR`, or correct the path"
        raise BenchmarkError("no prepared benchmark here (benchmark.json is missing)", path=path, fix=fix)
    check_inside(file, path, BenchmarkError)
    meta = read_json(file, BenchmarkError, FIX)
    try:
        if meta["format"] != FORMAT:
            raise damaged(file, f"format {shown(meta['format'])}, this version reads {FORMAT}")
        ViewProtocol(**meta["protocol"])
        _Facts.model_validate(meta)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(file, f"cannot be read ({type(error).__name__}: {error!s:.300})") from None
    if unknown := set(meta["sha256"]) - {*TABLES, *array_specs(0, 0, 0, 0)}:
        raise damaged(file, f"lists the file {shown(min(unknown))}, which no benchmark has")
    return meta


class _Facts(BaseModel):
    """The entries of ``benchmark.json`` that every benchmark has."""

    model_config = ConfigDict(strict=True)

    name: str
    source: str
    licence: str
    size: Annotated[int, Field(ge=1, le=4096)]
    shapes: Annotated[int, Field(ge=0, le=10**8)]
    queries: Annotated[int, Field(ge=0, le=10**8)]
    sha256: dict[str, str]


def _read_table(path: Path) -> pd.DataFrame:
    _check_there(path)
    table = read_table(path, list(TABLES[path.name]), BenchmarkError, FIX)
    flags = [column for column in FLAG_COLUMNS if column in table]
    if odd := set(table[flags].to_numpy().flat) - {"True", "False"}:
        raise damaged(path, f"cannot be read ({min(odd)!r} is neither True nor False)")
    return table.assign(**{column: table[column] == "True" for column in flags})


def _open_arrays(path: Path, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    specs = array_specs(meta["shapes"], meta["queries"], meta["size"], len(meta["protocol"]["azimuths"]))
    arrays = {}
    for name, (shape, dtype) in specs.items():
        if name not in meta["sha256"] and name not in ("views.npy", "queries.npy"):
            continue
        _check_there(path / name)
        array = map_array(path / name, BenchmarkError, FIX)
        if array.shape != shape or array.dtype != dtype:
            raise damaged(path / name, f"is {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}")
        arrays[name] = array
    return arrays


def _check_there(file: Path) -> None:
    if not file.is_file():
        raise damaged(file, "is missing")
    check_inside(file, file.parent, BenchmarkError)


def _check_hashes(path: Path, expected: dict[str, str]) -> None:
    files = [path / name for name in expected]
    for file in files:
        _check_there(file)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        for file, digest in zip(files, pool.map(file_sha256, files), strict=True):
            if digest != expected[file.name]:
                raise damaged(file, f"sha256 is {digest[:12]}…, not {expected[file.name][:12]}…: damaged or edited")
