"""Which photos a folder holds, what they show and which split they belong to.

Either the photos of a shape lie in the folder ``<photos>/<shape_id>/``, or a table lists them: ``photos.csv`` with the
columns ``photo, shape_id`` and, if wanted, ``mask, split, x0, y0, x1, y1``, paths below the table's folder. Two rows
may name one photo: two objects, each with its mask or box.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ...benchmark.checks import SPLITS
from ...errors import SourceError
from ...io.files import check_inside
from ...io.formats import FORMATS, REFUSED, WAY_OUT
from ...io.images import ENDINGS
from .. import listed
from ..photos import PhotoFile, torn_apart
from .listings import hash_share, inside, numbered, read_listing

TABLE = "photos.csv"
OF_MESHES = (".mtl", ".bin")
"""Endings of files that belong to a mesh."""
MASK_NAMES = tuple(f"{sign}{word}" for word in ("mask", "masks", "matte", "alpha", "seg", "label") for sign in "_-.")
"""How the name of a mask may go on after its photo's."""
MASK_FOLDERS = ("masks", "mask")
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
        masks: a folder with a mask for each photo, of the same relative path but for its ending, and `MASK_NAMES`; for
            a table, the folder that its masks are in. Without it, masks of such names count that lie beside their
            photo, in a folder ``masks`` there, or in one beside ``photos``.
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
    _names.cache_clear()  # a folder may have changed since another call
    if table.is_dir():
        root = table
        paths, left_out = visible_files(root, ENDINGS, (*FORMATS, *OF_MESHES))
        rows = [{"photo": str(path), "shape_id": str(path.parent)} for path in _without_masks(paths)]
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
        also = f"; {listed(left_out, 'other file')}" if left_out else ""
        fix = "put them into a folder for each shape, <shape id>/; save others as JPEG"
        raise SourceError(f"there are no photos{also}", path=photos, fix=fix)
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
            if os.fsencode(path).decode("utf-8", "replace") != str(path):
                others.append(f"{str(path)!a}: this name is not UTF-8; rename it")
            elif path.suffix.lower() in endings and path.is_file():
                check_inside(path, root, SourceError)
                found.append(PurePosixPath(path.relative_to(root).as_posix()))
            elif path.suffix.lower() not in passed_over:
                kind = REFUSED.get(path.suffix.lower())
                others.append(f"{path}: {f'{kind} is not read; {WAY_OUT}' if kind else 'this ending is not read'}")
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
    mask = None
    if row.get("mask"):
        mask = inside(masks or root, row["mask"], table)
    elif masks or table == root:
        mask = find_mask(root, PurePosixPath(name), masks)
    return PhotoFile(
        query_id=str(PurePosixPath(name).with_suffix("")), path=path, shape_ids=shape_ids,
        category=categories[shape_ids[0]], split=split, photo=name,
        mask=mask, box=_box(name, [row.get(side, "") for side in BOX]),
    )  # fmt: skip


def find_mask(root: Path, photo: PurePosixPath, masks: Path | None) -> Path | None:
    """Return the mask of a photo below ``root``; where ``masks`` has none, the name that it should have there."""
    plain, marked = (photo.stem,), tuple(photo.stem + name for name in MASK_NAMES)
    if masks:
        places = [(masks / photo.parent, (*plain, *marked, photo.name))]
    else:
        here = root / photo.parent
        places = [(here, marked), *((here / name, (*plain, *marked)) for name in MASK_FOLDERS)]
        places += [(root.parent / name / photo.parent, (*plain, *marked)) for name in MASK_FOLDERS]
    for folder, stems in places:
        names = _names(folder)
        for name in (stem + ending for stem in stems for ending in (".png", *ENDINGS)):
            if name.lower() in names:
                found = folder / names[name.lower()]
                check_inside(found, masks or root.parent, SourceError)
                return found
    return masks / photo.with_suffix(".png") if masks else None


@lru_cache(maxsize=64)
def _names(folder: Path) -> dict[str, str]:
    """Return the files of a folder, by their names in small letters."""
    return {path.name.lower(): path.name for path in folder.iterdir()} if folder.is_dir() else {}


def _without_masks(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """Leave out what lies in a folder of masks, and what has another's name and one of `MASK_NAMES`."""
    plain = {str(path.with_suffix("")) for path in paths}
    ends = tuple(MASK_NAMES)
    return [
        path
        for path in paths
        if not set(path.parts[:-1]) & set(MASK_FOLDERS)
        and not any(
            path.stem.endswith(end) and str(path.with_name(path.stem.removesuffix(end))) in plain for end in ends
        )
    ]


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
