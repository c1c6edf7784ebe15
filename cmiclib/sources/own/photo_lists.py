"""Which photos a folder holds, what they show and which split they belong to.

Either the photos of a shape lie in the folder ``<photos>/<shape_id>/``, or a table lists them: ``photos.csv`` with the
columns ``photo, shape_id`` and, if wanted, ``mask, split, x0, y0, x1, y1``, paths below the table's folder. Two rows
may name one photo: two objects, each with its mask or box.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...benchmark.checks import SPLITS
from ...errors import SourceError
from ...io.files import check_inside
from ...io.meshes import FORMATS
from .. import listed
from ..photos import PhotoFile, torn_apart
from .listings import hash_share, inside, numbered, read_listing

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
) -> tuple[list[PhotoFile], list[str]]:
    """Return the photos of a folder, sorted by name, or of a table, in its order; and in words what is left out.

    Args:
        photos: a folder with a folder of photos for each shape, a folder with a ``photos.csv``, or such a table.
        masks: a folder with a mask for each photo, of the same relative path, ending in ``.png``; for a table, the
            folder that its masks are in.
        categories: shape id → category, of all shapes.
        val: share of the photos for validation, chosen by the hash of their names where no split is given.
        test: share for the test.
        masks_may_lack: a photo may have no file in ``masks``.

    Raises:
        SourceError: no photos, shares that sum to more than 1, or photos of unknown shapes, missing files, unusable
            rows; all are listed.
    """
    if not (val >= 0 and test >= 0 and val + test <= 1):
        raise SourceError(
            f"the shares for validation and test are {val} and {test}", fix="give shares that sum to 1 at most"
        )
    if not photos.exists():
        raise SourceError("there is no such folder or table of photos", path=photos, fix="correct the path")
    table = photos / TABLE if (photos / TABLE).is_file() else photos
    root, left_out = table.parent, list[str]()
    if table != photos:
        check_inside(table, photos, SourceError)
    if table.is_dir():
        root = table
        paths, left_out = visible_files(root, IMAGES, (*FORMATS, ".mtl"))
        rows = [{"photo": str(path), "shape_id": str(path.parent)} for path in paths]
    else:
        rows = read_listing(table, ("photo", "shape_id"), ("mask", "split", *BOX))
    found, problems = list[PhotoFile](), list[str]()
    for row in rows:
        try:
            photo = _photo(row, table, root, masks, categories)
            if photo.mask and not photo.mask.is_file():
                if not masks_may_lack:
                    raise SourceError(f"{photo.photo}: there is no mask {photo.mask}")
                left_out.append(f"{photo.mask}: no such mask; {photo.photo} comes without one")
                photo = replace(photo, mask=None)
            found.append(replace(photo, split=photo.split or _split(photo.photo, val, test)))
        except SourceError as error:
            problems.append(error.problem)
    problems += torn_apart(found)
    if problems:
        raise SourceError(
            listed(problems, "problem", " with photos"),
            path=table,
            fix="correct them; shape ids are paths of meshes without their ending, such as "
            f"'{next(iter(categories))}', and masks may be missing with --auto-mask or --allow-missing",
        )
    if not found:
        raise SourceError("there are no photos", path=photos, fix="put them into a folder for each shape, <shape id>/")
    return numbered(found), left_out


def visible_files(
    root: Path, endings: tuple[str, ...], passed_over: tuple[str, ...] = ()
) -> tuple[list[PurePosixPath], list[str]]:
    """Return the files below a folder with one of these endings, in any case, as sorted relative paths.

    Names that begin with a dot are passed over, because systems hide files of their own there.

    Files with an ending of ``passed_over`` need no mention; each other file, and each linked folder, which is not
    followed, becomes a line of the second result.

    Raises:
        SourceError: a file is a link that leads out of the folder.
    """
    found, others = [], []
    for name, folders, files in os.walk(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        links = [Path(name, folder) for folder in folders if Path(name, folder).is_symlink()]
        others += [f"{path}: a linked folder is not followed" for path in links]
        for path in (Path(name, file) for file in files if not file.startswith(".")):
            if path.suffix.lower() in endings and path.is_file():
                check_inside(path, root, SourceError)
                found.append(PurePosixPath(path.relative_to(root).as_posix()))
            elif path.suffix.lower() not in passed_over:
                others.append(f"{path}: not a file of the kind {', '.join(endings)}")
    return sorted(found), sorted(others)


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
        query_id=str(PurePosixPath(name).with_suffix("")), path=path, shape_ids=shape_ids,
        category=categories[shape_ids[0]], split=split, photo=name,
        mask=inside(masks or root, mask, table) if mask else None, box=_box(name, [row.get(side, "") for side in BOX]),
    )  # fmt: skip


def _box(name: str, sides: list[str]) -> tuple[float, float, float, float] | None:
    if not any(sides):
        return None
    try:
        x0, y0, x1, y1 = map(float, sides)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (x0 < x1 and y0 < y1):  # also where one is NaN
        raise SourceError(f"{name}: the box {','.join(sides)} is not x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def _split(name: str, val: float, test: float) -> str:
    share = hash_share(name)
    return "test" if share < test else "val" if share < test + val else "train"
