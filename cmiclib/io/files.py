"""Read files from strangers: regular files only, up to a limit, and nothing outside their folder.

A folder that somebody else packed may hold links, pipes, files that claim to be far larger than they are, and lists of
names that lead elsewhere. A reader returns data of a known size, or raises one CMICError that names the file. Each
takes the class of that error (``error``) and what the user can do (``fix``).
"""

import io
import json
import math
import mmap
import os
import stat
import zipfile
from collections.abc import Sequence
from itertools import accumulate, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ..errors import CMICError

Error = type[CMICError]

JSON_LIMIT = 64 << 20
TABLE_LIMIT = 1 << 30
MOST_COLUMNS = 1000
NUMBERS = "biuf"
"""Kinds of numpy types that are numbers: no objects, texts or records."""


def read_limited(path: Path, limit: int, error: Error) -> bytes:
    """Read a whole file of at most ``limit`` bytes; a folder, a pipe or a larger file is an error."""
    size = check_regular(path, error, limit)
    try:
        with path.open("rb") as file:
            data = file.read(size + 1)  # a growing file fills no more than this
    except OSError as problem:
        raise error(f"cannot be read ({reason(problem)})", path=path, fix="check the path") from None
    if len(data) > size:
        raise error("the file grows while it is read", path=path, fix="wait until it is complete")
    return data


def check_content(data: bytes, path: Path, error: Error) -> None:
    """Refuse what stands in a file's place: nothing, a pointer of Git LFS, a web page.

    Raises:
        CMICError: of class ``error``.
    """
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not data:
        raise error("the file is empty", path=path, fix="download or export it again")
    if start.startswith(b"version https://git-lfs"):
        problem = "this is a pointer of Git LFS, not the file itself"
        raise error(problem, path=path, fix="run 'git lfs pull' in the repository that it comes from")
    if start.startswith((b"<!doctype html", b"<html")):
        problem = "this is a web page (HTML), not the file itself"
        raise error(problem, path=path, fix="download it again; the page may ask you to sign in")


def reason(problem: Exception) -> str:
    """Return what the system says is wrong, without the path that it adds: web pages show no paths."""
    return getattr(problem, "strerror", None) or str(problem)


def check_regular(path: Path, error: Error, limit: int | None = None, fix: str = "check the path") -> int:
    """Return a file's size in bytes; refuse folders, pipes, devices, and files of more than ``limit`` bytes."""
    try:
        found = path.stat()
    except (OSError, ValueError) as problem:  # ValueError: a name with a zero byte
        raise error(f"cannot be read ({reason(problem)})", path=path, fix=fix) from None
    if not stat.S_ISREG(found.st_mode):
        raise error("this is not a regular file", path=path, fix=fix)
    if limit is not None and found.st_size > limit:
        size = f"{found.st_size / 1e9:.2g} GB"
        raise error(f"the file has {size}, more than such a file can have", path=path, fix="check the path")
    return found.st_size


def check_inside(path: Path, root: Path, error: Error) -> None:
    """Refuse a path that leads out of ``root`` by ``..`` or by a link; the root itself may be a link."""
    if not leads_inside(path, root):
        fix = "put the file itself there, without links and '..'"
        raise error("leads out of the folder that it belongs to", path=path, fix=fix)


def leads_inside(path: Path, root: Path) -> bool:
    """Tell whether a path lies below ``root`` once all links are followed."""
    try:
        if os.name == "posix" and path.is_relative_to(root):  # resolving thousands of photos would take seconds
            below = path.relative_to(root).parts
            steps = islice(accumulate(below, os.path.join, initial=str(root)), 1, None)
            if ".." not in below and "\0" not in str(path) and not any(map(os.path.islink, steps)):
                return True
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # a zero byte, circular links
        return False


def usable_path(text: str) -> bool:
    """Tell whether a text can be a relative path with slashes on any system; where it leads is not checked."""
    try:
        lengths = [len(part.encode()) for part in text.split("/")]
    except UnicodeEncodeError:  # half a character: JSON can hold it, a file system cannot
        return False
    named = PurePosixPath(text).name not in ("", "..")
    return named and max(lengths) <= 255 and len(text) <= 2048 and not any(c in text for c in "\0\n")


def parse_json(data: bytes | str, path: Path, error: Error, fix: str) -> Any:
    """Parse JSON, however deep it claims to nest."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise error(f"cannot be read as JSON ({problem})", path=path, fix=fix) from None


def read_json(path: Path, error: Error, fix: str, limit: int = JSON_LIMIT) -> Any:
    """Read a JSON file of at most ``limit`` bytes."""
    return parse_json(read_limited(path, limit, error), path, error, fix)


def read_table(path: Path, columns: Sequence[str], error: Error, fix: str, limit: int = TABLE_LIMIT) -> pd.DataFrame:
    """Read these columns of a CSV file, all values as text; a column that is missing is an error."""
    return parse_table(read_limited(path, limit, error), path, columns, error, fix)


def parse_table(data: bytes, path: Path, columns: Sequence[str], error: Error, fix: str) -> pd.DataFrame:
    """Parse CSV as :func:`read_table` does."""
    try:
        if data.partition(b"\n")[0].count(b",") > MOST_COLUMNS:  # pandas compares names in quadratic time
            raise ValueError(f"it has more than {MOST_COLUMNS} columns")
        table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8")  # noqa: TID251 (the one place)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"the column {missing[0]} is missing")
        if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus columns for an index
            raise ValueError("rows are longer than the header")
        return table[list(columns)]
    except (ValueError, OverflowError, MemoryError, RecursionError) as problem:
        raise error(f"this table cannot be read ({problem})", path=path, fix=fix) from None


def map_array(path: Path, error: Error, fix: str) -> np.ndarray:
    """Map an array of numbers in an ``.npy`` file into memory, read-only; its length must be what its header says."""
    check_regular(path, error)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if dtype.kind not in NUMBERS or any(not isinstance(side, int) or side < 0 for side in shape):
                raise ValueError(f"it holds {dtype} {shape}, not an array of numbers")
            if math.prod(shape) == 0:
                return np.zeros(shape, dtype)
            start, order = file.tell(), "F" if fortran else "C"
            if (size := os.fstat(file.fileno()).st_size - start) != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{size} bytes are not {dtype} {shape}")
            return np.memmap(file, dtype, "r", start, shape, order)  # type: ignore[call-overload, no-any-return]  # noqa: TID251 (the one place)
    except Exception as problem:  # a header in Python's notation fails in many ways
        raise error(f"is truncated or not an array ({problem})", path=path, fix=fix) from None


def read_member(archive: zipfile.ZipFile, name: str, limit: int, error: Error, fix: str) -> bytes:
    """Unpack one file of a zip, of at most ``limit`` bytes."""
    path = Path(archive.filename or "")
    try:
        claimed = archive.getinfo(name).file_size
        if claimed > limit:
            raise error(f"'{name}' unpacks to {claimed / 1e6:.0f} MB, more than it can have", path=path, fix=fix)
        return archive.read(name)  # at most what the zip's table claims
    except CMICError:
        raise
    except Exception as problem:  # damaged zips fail in many ways: zlib.error, struct.error, NotImplementedError, …
        raise error(f"'{name}' cannot be unpacked ({problem})", path=path, fix=fix) from None


def check_stored(path: Path) -> None:
    """Refuse, with a ValueError, what is not a zip or is compressed: torch's files, read as they are, cannot grow."""
    if not path.is_file():
        raise ValueError("not a regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as problem:  # damaged zips fail in many ways
        raise ValueError(f"not a zip ({problem})") from None
    if any(member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size for member in members):
        raise ValueError("its content is compressed")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its content overlaps")


def shown(value: Any) -> str:
    """Return a value from a file for a message: numbers and texts in short, of anything else its type."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    if isinstance(value, str | bytes):
        return repr(value[:60])
    return f"a {type(value).__name__}"


def release_pages(array: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back to the system; other arrays stay as they are.

    The system takes pages back when memory is short, but until then they count as the process's.
    """
    mapped = getattr(array, "_mmap", None)  # a slice has it as well
    only_read = getattr(array, "mode", None) == "r"  # other modes may hold changes
    if isinstance(mapped, mmap.mmap) and only_read and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
