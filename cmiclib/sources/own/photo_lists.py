"""Which photos a folder holds, what they show and which split they belong to.

Either the photos of a shape lie in the folder ``<photos>/<shape_id>/``, or a table lists them: ``photos.csv`` with the
columns ``photo, shape_id`` and, if wanted, ``mask, split, x0, y0, x1, y1``, paths below the table's folder. Two rows
may name one photo: two objects, each with its mask or box.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...benchmark.checks import SPLITS
from ...errors import SourceError
from ...io.files import check_inside
from ..meshes import listed
from ..photos import PhotoFile
from .listings import hash_share, inside, read_listing

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
TABLE = "photos.csv"
BOX = ("x0", "y0", "x1", "y1")


def find_photos(
    photos: Path,
    masks: Path | None,
    categories: Mapping[str, str],
    *,
    val: float,
    test: float,
    masks_may_lack: bool = False,
) -> list[PhotoFile]:
    """Return the photos of a folder, sorted by name, or of a table, in its order.

    Args:
        photos: a folder with a folder of photos for each shape, a folder with a ``photos.csv``, or such a table.
        masks: a folder with a mask for each photo, of the same relative path, ending in ``.png``; for a table, the
            folder that its masks are in.
        categories: shape id → category, of all shapes.
        val: share of the photos for validation, chosen by the hash of their names where no split is given.
        test: share for the test.
        masks_may_lack: a photo may have no file in ``masks``.

    Raises:
        SourceError: no photos, shares of more than all, or photos of unknown shapes, missing files, unusable rows;
            all are listed.
    """
    if not (val >= 0 and test >= 0 and val + test <= 1):
        raise SourceError(
            f"the shares for validation and test are {val} and {test}", fix="give shares that sum to 1 at most"
        )
    if not photos.exists():
        raise SourceError("there is no such folder or table of photos", path=photos, fix="correct the path")
    table = photos / TABLE if (photos / TABLE).is_file() else photos
    root = table if table.is_dir() else table.parent
    if table != photos:
        check_inside(table, photos, SourceError)
    rows = (
        _folder_rows(table) if table.is_dir() else read_listing(table, ("photo", "shape_id"), ("mask", "split", *BOX))
    )
    found, problems, used = [], [], Counter[str]()
    for row in rows:
        try:
            photo = _photo(row, table, root, masks, categories)
            if not row.get("split"):
                photo = replace(photo, split=_split(photo.photo, val, test))
            if photo.mask and not photo.mask.is_file():
                if not masks_may_lack:
                    raise SourceError(f"{photo.photo}: there is no mask {photo.mask}")
                photo = replace(photo, mask=None)
        except SourceError as error:
            problems.append(error.problem)
            continue
        used[photo.query_id] += 1
        number = f"#{used[photo.query_id]}" if used[photo.query_id] > 1 else ""
        found.append(replace(photo, query_id=photo.query_id + number))
    problems += _torn_apart(found)
    if problems:
        raise SourceError(
            listed(problems, "problems with photos"),
            path=table,
            fix="correct them; shape ids are paths of meshes without their ending, such as "
            f"'{next(iter(categories))}', and masks may lack with --auto-mask or --allow-missing",
        )
    if not found:
        raise SourceError("there are no photos", path=photos, fix="put them into a folder for each shape, <shape id>/")
    return found


def visible_files(root: Path, endings: tuple[str, ...]) -> list[PurePosixPath]:
    """Return the files below a folder with one of these endings, in any case, as sorted relative paths.

    Names that begin with a dot are left out: systems hide files of their own there.

    Raises:
        SourceError: one of them is a link that leads out of the folder.
    """
    paths = (PurePosixPath(path.relative_to(root).as_posix()) for path in root.rglob("*") if path.is_file())
    found = sorted(
        path
        for path in paths
        if path.suffix.lower() in endings and not any(part.startswith(".") for part in path.parts)
    )
    for path in found:
        check_inside(root / path, root, SourceError)
    return found


def _folder_rows(root: Path) -> list[dict[str, str]]:
    return [{"photo": str(path), "shape_id": str(path.parent)} for path in visible_files(root, IMAGES)]


def _photo(
    row: dict[str, str], table: Path, root: Path, masks: Path | None, categories: Mapping[str, str]
) -> PhotoFile:
    """Return what a row says, checked, with the row's own split."""
    name, shape_ids = row["photo"], tuple(row["shape_id"].split("|"))
    path = inside(root, name, table)
    if not path.is_file():
        raise SourceError(f"{name}: there is no such photo")
    if unknown := [shape_id for shape_id in shape_ids if shape_id not in categories]:
        raise SourceError(f"{name}: there is no shape '{unknown[0]}'")
    split = row.get("split", "")
    if split not in ("", *SPLITS):
        raise SourceError(f"{name}: unknown split '{split}'")
    mask = row.get("mask") or (str(PurePosixPath(name).with_suffix(".png")) if masks else "")
    return PhotoFile(
        query_id=str(PurePosixPath(name).with_suffix("")),
        path=path,
        shape_ids=shape_ids,
        category=categories[shape_ids[0]],
        split=split,
        photo=name,
        mask=inside(masks or root, mask, table) if mask else None,
        box=_box(name, [row.get(side, "") for side in BOX]),
    )


def _box(name: str, sides: list[str]) -> tuple[float, float, float, float] | None:
    if not any(sides):
        return None
    try:
        x0, y0, x1, y1 = map(float, sides)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (x0 < x1 and y0 < y1):  # also where one is not a number
        raise SourceError(f"{name}: the box {','.join(sides)} is not x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def _split(name: str, val: float, test: float) -> str:
    share = hash_share(name)
    return "test" if share < test else "val" if share < test + val else "train"


def _torn_apart(photos: list[PhotoFile]) -> list[str]:
    """Return problems of photos that stand in the training split and in another one."""
    splits = defaultdict(set)
    for photo in photos:
        splits[photo.photo].add(photo.split)
    return [
        f"{name} is in the splits {', '.join(sorted(used))}"
        for name, used in splits.items()
        if "train" in used and len(used) > 1
    ]
