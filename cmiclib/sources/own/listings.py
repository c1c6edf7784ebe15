"""What readers of raw folders share: tables in CSV files, paths that stay inside a folder, shares by name."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...errors import SourceError
from ...io.files import leads_inside, read_limited, shown, usable_path
from ..photos import PhotoFile

LIMIT = 64 << 20


def read_listing(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a CSV file with a header, separated by commas, in UTF-8; columns may stand in any order.

    Returns:
        For each row, column → text without surrounding spaces; empty for optional columns that the file lacks.

    Raises:
        SourceError: unreadable, other columns, or rows of another length; all of these are named.
    """
    data = read_limited(path, LIMIT, SourceError)
    try:
        file = io.StringIO(data.decode("utf-8-sig"), newline="")
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (ValueError, csv.Error) as error:
        raise SourceError(f"this table cannot be read ({error})", path=path, fix="save it as CSV in UTF-8") from None
    header = rows[0] if rows else []
    if not set(needed) <= set(header) <= {*needed, *optional} or len(set(header)) < len(header):
        raise SourceError(
            f"its columns are {', '.join(header) or 'missing'}",
            path=path,
            fix=f"use commas, and the columns {', '.join(needed)}"
            + (f" and, if you like, {', '.join(optional)}" if optional else ""),
        )
    lengths = [f"row {i} has {len(row)} fields" for i, row in enumerate(rows, 1) if row and len(row) != len(header)]
    if lengths:
        raise SourceError(
            f"{'; '.join(lengths[:12])}; the header has {len(header)}", path=path, fix="put texts with commas in quotes"
        )
    empty = dict.fromkeys(optional, "")
    return [empty | dict(zip(header, row, strict=True)) for row in rows[1:] if any(row)]


def inside(root: Path, relative: str, file: Path, of: str = "the folder") -> Path:
    """Return a path below ``root``, which ``file`` names with slashes; ``of`` names the root in messages.

    Raises:
        SourceError: the path is absolute, has a ``..``, leads out of the folder by a link, or is not a path.
    """
    path, fix = PurePosixPath(relative), f"use paths below {of}'s root"
    if not usable_path(relative):
        raise SourceError(f"{shown(relative)} cannot be a path", path=file, fix=fix)
    if path.is_absolute() or ".." in path.parts or not leads_inside(root / path, root):
        raise SourceError(f"'{relative}' leads out of {of}", path=file, fix=fix)
    return root / path


def hash_share(name: str) -> float:
    """Return a number in [0, 1) that depends on the name only: the same file falls into the same split anywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def numbered(photos: Iterable[PhotoFile]) -> list[PhotoFile]:
    """Return photos whose ids are unique: the second of an id ends with ``#2``, and so on."""
    used, found = Counter[str](), []
    for photo in photos:
        used[photo.query_id] += 1
        number = f"#{used[photo.query_id]}" if used[photo.query_id] > 1 else ""
        found.append(replace(photo, query_id=photo.query_id + number))
    return found
