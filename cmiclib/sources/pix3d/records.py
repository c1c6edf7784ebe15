"""Pix3D's annotation: a list of records, read, checked and selected."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import SourceError
from ...io.files import read_json, shown, usable_path
from .. import listed

CATEGORIES = ("bed", "bookcase", "chair", "desk", "misc", "sofa", "table", "tool", "wardrobe")
PAPER_CATEGORIES = ("bed", "chair", "sofa", "table")
JSON_LIMIT = 1 << 30
FLAGS = ("truncated", "occluded", "slightly_occluded")
_TRUTH = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class Record:
    """One photo of Pix3D with what it shows."""

    img: str  # path of the photo below the root, such as img/bed/0001.png
    mask: str
    category: str
    model: str  # path of the OBJ file, such as model/bed/IKEA_MALM_2/model.obj; empty where it is not known
    flags: tuple[str, ...]  # of truncated (by the photo's border), occluded and slightly_occluded, those that hold

    @property
    def name(self) -> str:
        """``bed/0001``: the photo's path without first folder and extension."""
        return str(PurePosixPath(*PurePosixPath(self.img).parts[1:]).with_suffix(""))

    @property
    def shape_id(self) -> str:
        """``bed/IKEA_MALM_2``: the folder, because the same name occurs in several categories."""
        return "/".join(PurePosixPath(self.model).parts[1:3])


def read_records(path: Path) -> list[Record]:
    """Read ``pix3d.json``, or a file like it; a SourceError lists all records that lack a field or repeat a photo.

    Flags may be strings, as in some copies. A record whose model is not known has an empty ``model``.
    """
    fix = "unpack pix3d.json again, or name another file with --annotation"
    entries = read_json(path, SourceError, fix, JSON_LIMIT)
    if not isinstance(entries, list) or not entries:
        raise SourceError("this is not a list of records", path=path, fix=fix)
    records, problems = [], []
    for number, entry in enumerate(entries):
        try:
            records.append(_record(entry))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            name = entry.get("img", "") if isinstance(entry, dict) else ""
            said = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            problems.append(f"record {number} {name}: {said}")
    names = Counter(record.name for record in records)
    problems += [f"{name} occurs {count} times" for name, count in names.items() if count > 1]
    if problems:
        raise SourceError(listed(problems, "record", " cannot be used"), path=path, fix=fix)
    return records


def _record(entry: dict[str, Any]) -> Record:
    img, mask = _relative(entry["img"]), _relative(entry["mask"])
    model = _relative(entry["model"]) if entry.get("model") else ""
    flags = tuple(flag for flag in FLAGS if _truth(flag, entry.get(flag, False)))
    record = Record(img, mask, str(entry["category"]), model, flags)
    if record.category not in CATEGORIES:
        raise ValueError(f"unknown category '{record.category}'")
    if record.model and (record.model.count("/") < 3 or record.model.split("/")[1] != record.category):
        raise ValueError(f"'{record.model}' is not model/{record.category}/<ID>/<file>.obj")
    if "/" not in record.img:
        raise ValueError(f"'{record.img}' is not img/<category>/<file>")
    return record


def _relative(path: str) -> str:
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or any(c in path for c in "|\0\n"):
        raise ValueError(f"{shown(path)} leads out of the folder")
    if not usable_path(path):
        raise ValueError(f"{shown(path)} cannot be a path")
    return str(pure)


def _truth(flag: str, value: Any) -> bool:
    value = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(value, bool | str | int) or value not in _TRUTH:
        raise ValueError(f"{flag} is {shown(value)}, neither true nor false")
    return _TRUTH[value]


def chosen_categories(text: str) -> tuple[str, ...]:
    """Return the categories that ``all``, ``paper`` or a list such as ``chair,sofa`` names."""
    named = {"all": CATEGORIES, "paper": PAPER_CATEGORIES}.get(text, tuple(text.split(",")))
    if unknown := sorted(set(named) - set(CATEGORIES)):
        fix = f"use all, paper, or some of {','.join(CATEGORIES)}"
        raise SourceError(f"unknown categories: {', '.join(unknown)}", fix=fix)
    return tuple(named)


def select(records: Iterable[Record], categories: Sequence[str], clean: bool = False) -> list[Record]:
    """Return the records of these categories; with ``clean`` only those without truncation and occlusion."""
    return [record for record in records if record.category in categories and not (clean and record.flags)]
