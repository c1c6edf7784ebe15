"""A table that grows row by row with its arrays: a row is complete once its line stands in a journal.

The arrays are in files `*.part`, the journal's line i belonging to their row i; of two lines for one id the later one
counts. Nothing that is complete is ever changed, so an interruption loses only the row that was being written.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BenchmarkError
from ..io.files import shown

_HEADER = 128  # bytes at the start of each array, for the header that it gets at the end


class GrowingTable:
    """A table in a partial folder, read up to the last complete row of the journal ``name``.

    ``specs`` tells of each array's file the shape and type of one of its rows.
    """

    def __init__(self, folder: Path, name: str, specs: Mapping[str, tuple[tuple[int, ...], type]]):
        self.folder, self.journal, self.specs = folder, folder / f"{name}.jsonl", specs
        self.bytes = {file: math.prod(shape) * np.dtype(dtype).itemsize for file, (shape, dtype) in specs.items()}
        self.parts = {file: folder / f"{file}.part" for file in specs}
        self.wanted: dict[str, str] = {}  # id → origin, in the order of the finished table
        self.rows: dict[str, tuple[int, dict[str, Any]]] = {}  # id → its row in the arrays, its line
        self.lines = self.length = 0  # of the journal, and its bytes
        self.arrays: list[str] = []  # files that every row is in
        self.take_back()
        self._read()

    def _read(self) -> None:
        """Read the journal up to a line that is damaged or whose arrays are not there, and cut off the rest."""
        content = self.journal.read_bytes() if self.journal.is_file() else b""
        sizes = {file: part.stat().st_size if part.is_file() else 0 for file, part in self.parts.items()}
        for line in content.split(b"\n")[:-1]:
            try:
                row = json.loads(line)
                if any(sizes[file] < _HEADER + (self.lines + 1) * self.bytes[file] for file in row["arrays"]):
                    break
                self._keep(row, len(line) + 1)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                break
        if self.length < len(content):
            os.truncate(self.journal, self.length)  # not written anew, which a full disk would not allow

    def _keep(self, row: dict[str, Any], length: int) -> None:
        self.rows[row.get("query_id", row["shape_id"])] = self.lines, row
        self.arrays, self.lines, self.length = row["arrays"], self.lines + 1, self.length + length

    def needs(self, key: str, origin: str) -> bool:
        """Note that the table shall have a row, made of ``origin``; tell whether it is still to be added."""
        self.wanted[key] = origin
        return not self.has(key)

    def has(self, key: str) -> bool:
        """Tell whether a row is complete and made of what it shall be made of."""
        return key in self.rows and self.rows[key][1]["origin"] == self.wanted.get(key, "")

    def add(self, key: str, row: dict[str, Any], arrays: Mapping[str, np.ndarray | None]) -> None:
        """Append a row; a repeated id, arrays of another shape or other arrays than before are a BenchmarkError."""
        given = {file: array for file, array in arrays.items() if array is not None}
        if self.has(key):
            raise BenchmarkError(f"'{key}' was added before", fix="ids must be unique")
        for file, array in given.items():
            if array.shape != self.specs[file][0]:
                raise BenchmarkError(f"'{key}': {file} takes {self.specs[file][0]}, not {array.shape}")
        if self.lines and (odd := sorted(set(given) ^ set(self.arrays))):
            problem = (
                f"'{key}' has {'' if odd[0] in given else 'no '}{odd[0].removesuffix('.npy')}, unlike those before"
            )
            fix = f"give them for all shapes, or for none; if an earlier call did otherwise, remove {self.folder}"
            raise BenchmarkError(problem, fix=fix)
        row = row | {"origin": self.wanted.setdefault(key, ""), "arrays": list(given)}
        try:
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # half a character, which JSON can hold and no other file
            raise BenchmarkError(f"{shown(key)}: one of its texts is not valid Unicode", fix="correct it") from None
        for file, array in given.items():
            data = np.ascontiguousarray(array, dtype=self.specs[file][1]).tobytes()
            _write_at(self.parts[file], _HEADER + self.lines * self.bytes[file], data)
        _write_at(self.journal, self.length, line)
        self._keep(row, len(line))

    def chosen(self) -> list[dict[str, Any]]:
        """Return the complete rows among those that are wanted, in order."""
        return [self.rows[key][1] for key in self.wanted if self.has(key)]

    def place(self, file: str) -> None:
        """Give an array its final name: to its part itself where the order fits, else to a copy in order."""
        part, target, step = self.parts[file], self.folder / file, self.bytes[file]
        places = [self.rows[key][0] for key in self.wanted if self.has(key)]
        if places and places == list(range(self.lines)):
            part.rename(target)
            os.truncate(target, _HEADER + self.lines * step)
        else:
            part.touch()
            with target.open("wb") as out, part.open("rb") as rows:
                out.write(bytes(_HEADER))
                for place in places:
                    rows.seek(_HEADER + place * step)
                    out.write(rows.read(step))
        (shape, dtype), numpy = self.specs[file], np.lib.format
        header = {
            "descr": numpy.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (len(places), *shape),
        }
        prefix = numpy.magic(1, 0) + (_HEADER - 10).to_bytes(2, "little")
        _write_at(target, 0, prefix + repr(header).ljust(_HEADER - 11).encode("latin-1") + b"\n")

    def take_back(self) -> None:
        """Undo `place`: the parts alone count until the folder has its final name."""
        for file, part in self.parts.items():
            if part.is_file():
                (self.folder / file).unlink(missing_ok=True)
            elif (self.folder / file).is_file():
                (self.folder / file).rename(part)


def _write_at(path: Path, place: int, data: bytes) -> None:
    """Write at a place in a file, over what an interruption left there."""
    path.touch()
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(data)


def origin_of(*facts: object, files: Iterable[Path] = ()) -> str:
    """Return a digest of what a row is made of: of facts, and of place, size and time of files."""
    stamps: list[object] = []
    for file in files:
        try:
            found = file.stat()
            stamps.append((str(file.resolve()), found.st_size, found.st_mtime_ns))
        except (OSError, ValueError):
            stamps.append(str(file))
    return hashlib.sha256(repr((facts, stamps)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
