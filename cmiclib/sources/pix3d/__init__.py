"""Pix3D in its official layout to a prepared benchmark.

::

    ROOT/pix3d.json                          the annotation
    ROOT/img/<category>/<number>.jpg|png     photos
    ROOT/mask/<category>/<number>.png        masks: renderings of the model, so they show hidden parts as well
    ROOT/model/<category>/<ID>/*.obj         shapes, in the frame +x left, +y up, +z inward

An instance is a folder of ``model``; some hold one OBJ file for each pose. A torn mesh is rebuilt from its voxel file.
Masks of another size than their photo (table/0045, table/1749) are stretched to it, damaged EXIF blocks
(bookcase/0039 and others) are ignored.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from ...benchmark.splits import OUT, read_split
from ...benchmark.writer import BenchmarkWriter
from ...errors import SourceError
from ...io.files import check_inside, leads_inside
from ...io.images import read_mask, read_photo, square_crop
from .. import DEFAULT, Prepared, PrepareOptions, listed
from ..building import build
from ..meshes import MeshFile, prepare_mesh
from ..photos import Cut, PhotoFile
from .frames import load_whole, voxel_file
from .records import PAPER_CATEGORIES, Record, chosen_categories, read_records, select

UP, FRONT = "+y", "-z"  # the file's +z points inward, so the front looks along -z
LICENCE = "CC-BY-4.0"
Meshes = Literal["first", "pose"]


def prepare_pix3d(
    root: str | Path,
    output: str | Path,
    options: PrepareOptions = DEFAULT,
    *,
    annotation: str | Path | None = None,
    categories: str = "all",
    clean: bool = False,
    meshes: Meshes = "first",
    split: str | Path = "photo",
) -> Prepared:
    """Turn Pix3D into a prepared benchmark; the gallery is every model folder that holds an OBJ file.

    ``annotation`` is another file than ``root/pix3d.json``. ``categories`` is ``all``, ``paper`` (bed, chair, sofa,
    table), or a list such as ``chair,sofa``. ``clean`` drops truncated and occluded photos. ``meshes``: ``first`` takes
    the first OBJ file of a folder in the order of their names; ``pose`` makes every OBJ file of a folder a shape of its
    own, ``category/ID/file``, in one group. ``split`` is ``photo`` or ``shape`` of our lists
    (`cmiclib.benchmark.splits`), or a CSV file; photos that it gives to ``none`` are left out. A SourceError lists
    files that are missing or damaged, and records that are in no part of the split.
    """
    root, chosen = Path(root), chosen_categories(categories)
    records = select(read_records(Path(annotation) if annotation else root / "pix3d.json"), chosen, clean)
    paper = 4 if set(chosen) <= set(PAPER_CATEGORIES) else 9  # which of our lists holds these categories
    parts = read_split(split if split not in ("photo", "shape") else f"pix3d-{split}-{paper}")
    left_out = [f"{r.name}: left out by the split" for r in records if parts.get(r.name) == OUT]
    records = [record for record in records if parts.get(record.name) != OUT]
    shapes, empty = find_shapes(root, chosen, meshes)
    problems = {r.name: reason for r in records if (reason := _missing(root, r, shapes, parts))}
    lines = [f"{name}: {reason}" for name, reason in problems.items()]
    if lines and not options.allow_missing:
        fix = "unpack Pix3D again, or leave these records out with --allow-missing"
        raise SourceError(listed(lines, "record", " cannot be used"), path=root, fix=fix)
    photos = [photo_file(root, r, shapes, parts[r.name]) for r in records if r.name not in problems]
    writer = BenchmarkWriter(
        output, name="pix3d", source="Pix3D (Sun et al., CVPR 2018)", licence=LICENCE, size=options.size,
        extra={"categories": list(chosen), "clean": clean, "meshes": meshes, "split": str(split)},
    )  # fmt: skip
    return build(writer, list(shapes.values()), photos, options, [*left_out, *empty, *lines])


def find_shapes(
    root: Path, categories: Iterable[str], meshes: Meshes = "first"
) -> tuple[dict[str, MeshFile], list[str]]:
    """Return the gallery, shape id → OBJ file, and one line for each folder of ``model`` that holds none."""
    shapes, empty = dict[str, MeshFile](), list[str]()
    for category in categories:
        for folder in sorted((root / "model" / category).glob("*/")):
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".obj")
            empty += [] if files else [f"{folder}: no OBJ file"]
            for path in (folder, *files):
                check_inside(path, root, SourceError)
            for path in files[:1] if meshes == "first" else files:
                group = f"{category}/{folder.name}"
                shape_id = group if meshes == "first" or len(files) == 1 else f"{group}/{path.stem}"
                shapes[shape_id] = MeshFile(
                    shape_id, category, path, UP, FRONT, name=folder.name, licence=LICENCE, source="Pix3D",
                    group=group if shape_id != group else "", also=(voxel_file(path),),
                    make=partial(prepare_mesh, load=load_whole),
                )  # fmt: skip
    if not shapes:
        fix = "give the folder that holds pix3d.json and model/"
        raise SourceError("no OBJ file in model/<category>/<ID>/", path=root, fix=fix)
    return shapes, empty


def own_shape(record: Record, shapes: Mapping[str, MeshFile]) -> str:
    """Return the shape that a record shows, named after its OBJ file or its folder; empty where there is neither."""
    own = f"{record.shape_id}/{PurePosixPath(record.model).stem}"
    return next((shape_id for shape_id in (own, record.shape_id) if shape_id in shapes), "")


def _missing(root: Path, record: Record, shapes: Mapping[str, MeshFile], parts: Mapping[str, str]) -> str:
    """Return why a record cannot be used, the file in brackets; empty: it can."""
    if not record.model:
        return "its model is not known"
    if not own_shape(record, shapes):
        return f"no model ({record.model})"
    for kind, path in (("photo", record.img), ("mask", record.mask)):
        if not (root / path).is_file():
            return f"no {kind} ({path})"
        if not leads_inside(root / path, root):
            return f"its {kind} is a link out of the folder ({path})"
    return "" if record.name in parts else "in no part of the split"


def photo_file(root: Path, record: Record, shapes: Mapping[str, MeshFile], split: str) -> PhotoFile:
    """Return the photo of a record."""
    return PhotoFile(
        record.name, root / record.img, (own_shape(record, shapes),), record.category, split, photo=record.img,
        mask=root / record.mask, source="Pix3D", flags=record.flags, cut=cut_record,
    )  # fmt: skip


def cut_record(photo: PhotoFile, size: int = 224) -> Cut:
    """Cut the square around a photo's mask."""
    assert photo.mask
    image, mask = read_photo(photo.path), read_mask(photo.mask)
    if mask.shape == image.shape[1::-1] and mask.shape != image.shape[:2]:  # drawn on the photo as its pixels lie
        image = read_photo(photo.path, upright=False)
    if mask.shape != image.shape[:2]:
        mask = np.asarray(Image.fromarray(mask).resize(image.shape[1::-1], Image.Resampling.NEAREST))
    crop = square_crop(image, mask, size=size)
    return Cut(crop, amodal=crop[3])
