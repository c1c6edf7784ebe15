"""Pix3D in its official layout to a prepared benchmark.

::

    ROOT/pix3d.json                          the annotation
    ROOT/img/<category>/<number>.jpg|png     photos
    ROOT/mask/<category>/<number>.png        masks: renderings of the model, so hidden parts are in them, too
    ROOT/model/<category>/<ID>/*.obj         shapes, in the frame +x left, +y up, +z inward

An instance is a folder of ``model``; some hold one OBJ file a pose. A torn mesh is rebuilt from its voxel file. Masks
that have another size than their photo (table/0045, table/1749) are stretched to it, damaged EXIF blocks (bookcase/0039
and others) are ignored.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from ...benchmark import Benchmark
from ...benchmark.splits import OUT, read_split
from ...benchmark.writer import BenchmarkWriter, facts_digest
from ...errors import CMICError, SourceError
from ...io.files import check_inside, leads_inside
from ...io.images import read_mask, read_photo, square_crop
from ..meshes import MeshFile, add_meshes, listed
from ..workers import results
from .frames import load_whole
from .records import FLAGS, PAPER_CATEGORIES, Record, chosen_categories, read_records, select

UP, FRONT = "+y", "-z"  # the file's +z points inward, so the front looks along -z
LICENCE = "CC-BY-4.0"
FIX = "unpack Pix3D again, or leave these records out with --allow-missing"
Meshes = Literal["first", "pose"]


def prepare_pix3d(
    root: str | Path,
    output: str | Path,
    *,
    annotation: str | Path | None = None,
    categories: str = "all",
    clean: bool = False,
    meshes: Meshes = "first",
    split: str | Path = "photo",
    size: int = 224,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> tuple[Benchmark, dict[str, int]]:
    """Turn Pix3D into a prepared benchmark; the gallery is every model folder that holds an OBJ file.

    Args:
        root: the unpacked archive.
        output: the folder to write; it must not exist yet.
        annotation: another file than ``root/pix3d.json``.
        categories: ``all``, ``paper`` (bed, chair, sofa, table), or a list such as ``chair,sofa``.
        clean: leave truncated and occluded photos out.
        meshes: ``first`` takes the first OBJ file of a folder in the order of their names; ``pose`` makes every OBJ
            file of a folder a shape of its own, ``category/ID/file``, in one group.
        split: ``photo`` or ``shape`` of our lists (`cmiclib.benchmark.splits`), or a CSV file; photos that it gives to
            ``none`` are left out and counted.
        size: side of photos and views in pixels.
        jobs: processes.
        allow_missing: leave out records whose photo, mask or model is missing or damaged, and such models.
        progress: show bars.

    Returns:
        The benchmark, and how many records were left out for which reason.

    Raises:
        SourceError: files are missing or damaged, or a record is in no part of the split; all are listed.
        StorageError: no space; nothing half-written stays.
    """
    root, chosen = Path(root), chosen_categories(categories)
    records = select(read_records(Path(annotation) if annotation else root / "pix3d.json"), chosen, clean)
    parts = read_split(split if split not in ("photo", "shape") else f"pix3d-{split}-{_list_of(chosen)}")
    kept_out = {record.name: "left out by the split" for record in records if parts.get(record.name) == OUT}
    records = [record for record in records if record.name not in kept_out]
    shapes = find_shapes(root, chosen, meshes)
    problems = {r.name: reason for r in records if (reason := _missing(root, r, shapes, parts))}
    if problems and not allow_missing:
        raise SourceError(
            listed([f"{name}: {reason}" for name, reason in problems.items()], "records cannot be used"),
            path=root,
            fix=FIX,
        )
    writer = BenchmarkWriter(
        Path(output), name="pix3d", source="Pix3D (Sun et al., CVPR 2018)", licence=LICENCE, size=size,
        extra={
            "categories": list(chosen), "clean": clean, "meshes": meshes, "split": str(split),
            "records": facts_digest([(record, parts.get(record.name)) for record in records]),
        },
    )  # fmt: skip
    broken = add_meshes(writer, shapes.values(), jobs=jobs, allow_missing=allow_missing, progress=progress)
    lost = {mesh.shape_id for mesh, _ in broken}
    problems |= {
        record.name: f"its model cannot be used ({record.model})"
        for record in records
        if record.name not in problems and own_shape(record, shapes) in lost
    }
    kept = [record for record in records if record.name not in problems]
    damaged = _add_photos(writer, root, kept, shapes, parts, jobs, progress)
    if damaged and not allow_missing:
        raise SourceError(listed(damaged, "photos cannot be used"), path=root, fix=FIX)
    reasons = kept_out | problems
    left_out = Counter(reason.partition(" (")[0] for reason in reasons.values())
    lines = [*(problem for _, problem in broken), *(f"{name}: {reason}" for name, reason in reasons.items()), *damaged]
    return writer.finish(lines), dict(left_out) | ({"damaged files": len(damaged)} if damaged else {})


def _list_of(categories: Sequence[str]) -> int:
    """Return which of our lists holds these categories: that of the paper's four, or that of all nine."""
    return 4 if set(categories) <= set(PAPER_CATEGORIES) else 9


def find_shapes(root: Path, categories: Iterable[str], meshes: Meshes = "first") -> dict[str, MeshFile]:
    """Return the gallery, shape id → OBJ file: every folder of ``model`` that holds one.

    Raises:
        SourceError: there is none, or one is a link out of the folder.
    """
    shapes: dict[str, MeshFile] = {}
    for category in categories:
        for folder in sorted((root / "model" / category).glob("*/")):
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".obj")
            for path in (folder, *files):
                check_inside(path, root, SourceError)
            for path in files[:1] if meshes == "first" else files:
                group = f"{category}/{folder.name}"
                shape_id = group if meshes == "first" or len(files) == 1 else f"{group}/{path.stem}"
                shapes[shape_id] = MeshFile(
                    shape_id, category, path, UP, FRONT, name=folder.name, licence=LICENCE,
                    source="Pix3D", group=group if shape_id != group else "", load=load_whole,
                )  # fmt: skip
    if not shapes:
        raise SourceError(
            "no OBJ file in model/<category>/<ID>/", path=root, fix="give the folder that holds pix3d.json and model/"
        )
    return shapes


def own_shape(record: Record, shapes: Mapping[str, MeshFile]) -> str:
    """Return the shape that a record shows: its OBJ file where that is one, else its folder; empty where neither is."""
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


def _add_photos(
    writer: BenchmarkWriter,
    root: Path,
    records: Sequence[Record],
    shapes: Mapping[str, MeshFile],
    parts: Mapping[str, str],
    jobs: int,
    progress: bool,
) -> list[str]:
    """Add the photos, those of training first; return what is wrong with those that cannot be read."""
    ordered = sorted(records, key=lambda record: parts[record.name] != "train")
    todo = [record for record in ordered if not writer.has_query(record.name)]
    there = [record for record in ordered if writer.has_query(record.name)]
    trained = {record.shape_id for record in there if parts[record.name] == "train"}
    cut = partial(crop_record, root=root, size=writer.size)
    problems = []
    with results(cut, todo, jobs=jobs, what="photos", progress=progress) as crops:
        for record, crop in crops:
            if isinstance(crop, CMICError):
                problems.append(f"{record.name}: {crop.problem}")
                continue
            if parts[record.name] == "train":
                trained.add(record.shape_id)
            flags = {flag: getattr(record, flag) for flag in FLAGS}
            writer.add_query(
                record.name, own_shape(record, shapes), record.category, crop, split=parts[record.name],
                seen=record.shape_id in trained, photo=record.img, source="Pix3D", amodal=crop[3], **flags,
            )  # fmt: skip
    return problems


def crop_record(record: Record, root: Path, size: int = 224) -> np.ndarray:
    """Return the square crop around a record's mask, uint8 (4, size, size).

    Raises:
        ImageError: photo or mask cannot be read, or the mask is empty.
    """
    photo, mask = read_photo(root / record.img), read_mask(root / record.mask)
    if mask.shape == photo.shape[1::-1] and mask.shape != photo.shape[:2]:  # drawn on the photo as its pixels lie
        photo = read_photo(root / record.img, upright=False)
    if mask.shape != photo.shape[:2]:
        mask = np.asarray(Image.fromarray(mask).resize(photo.shape[1::-1], Image.Resampling.NEAREST))
    return square_crop(photo, mask, size=size)
