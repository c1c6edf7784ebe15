"""Your own shapes, and photos of them if there are any: a folder of meshes to a prepared benchmark.

::

    INPUT/chair/my-chair.obj            any depth; the shape's id is "chair/my-chair", its category "chair"
    PHOTOS/chair/my-chair/kitchen.jpg   a folder for each shape, or a table photos.csv
    MASKS/chair/my-chair/kitchen.png    white where the object is

Without the folder structure, a table ``shape_id, category`` names the categories.
"""

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...benchmark import Benchmark
from ...benchmark.writer import BenchmarkWriter, facts_digest
from ...errors import SourceError
from ...geometry import frame_rotation
from ..meshes import MeshFile, add_meshes, listed
from ..photos import PhotoFile, add_photos
from .listings import read_listing
from .photo_lists import find_photos, visible_files

MESHES = (".obj", ".glb", ".ply", ".stl", ".off")
FACTS = ("name", "creator", "licence", "source", "group")
OTHER = "misc"
"""Category of meshes that lie in no folder."""


class Prepared(NamedTuple):
    """A benchmark, and what was left out of it."""

    benchmark: Benchmark
    left_out: list[str]  # each with its reason; empty without `allow_missing`


def prepare_folder(
    root: str | Path,
    output: str | Path,
    *,
    categories: Path | None = None,
    up: str = "+y",
    front: str = "+z",
    photos: Path | None = None,
    masks: Path | None = None,
    size: int = 224,
    val: float = 0.1,
    test: float = 0.2,
    automatic: bool = False,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> Prepared:
    """Turn a folder of meshes, with or without photos, into a prepared benchmark; an interrupted call can be repeated.

    Args:
        root: the folder of meshes, searched to any depth.
        output: the folder to write; it must not exist yet.
        categories: a table, see :func:`find_meshes`.
        up: the axis that points up in all meshes.
        front: the axis that the objects' fronts look along.
        photos: see :func:`cmiclib.sources.own.photo_lists.find_photos`.
        masks: a folder of masks; photos without any mask get 255 everywhere.
        size: side of photos and views in pixels.
        val: share of the photos for validation.
        test: share of the photos for the test.
        automatic: find masks for photos without one; the query's source then says so.
        jobs: processes.
        allow_missing: leave out meshes and photos that cannot be used.
        progress: show bars.

    Raises:
        SourceError: meshes, tables or photos that are missing or cannot be used; all are listed.
        MeshError: axes that are none.
        StorageError: no space; nothing half-written stays.
    """
    root = Path(root)
    frame_rotation(up, front)
    meshes = find_meshes(root, categories, up, front)
    category = {mesh.shape_id: mesh.category for mesh in meshes}
    lack = automatic or allow_missing
    queries = find_photos(photos, masks, category, val=val, test=test, masks_may_lack=lack) if photos else []
    writer = BenchmarkWriter(
        output, name=root.resolve().name, source="a folder of meshes", licence="see shapes.csv", size=size,
        extra={"up": up, "front": front, "automatic_masks": automatic, "files": _digest(meshes, queries)},
    )  # fmt: skip
    broken = add_meshes(writer, meshes, jobs=jobs, allow_missing=allow_missing, progress=progress)
    lost = {mesh.shape_id for mesh, _ in broken}
    if len(lost) == len(meshes):
        raise SourceError("none of the meshes can be used", path=root, fix="leave out --allow-missing to see why")
    left_out = [problem for _, problem in broken]
    kept = [photo for photo in queries if not lost & set(photo.shape_ids)]
    left_out += [f"{photo.path}: its shape is left out" for photo in queries if lost & set(photo.shape_ids)]
    groups = {mesh.shape_id: mesh.group or mesh.shape_id for mesh in meshes}
    left_out += add_photos(
        writer, kept, groups, automatic=automatic, jobs=jobs, allow_missing=allow_missing, progress=progress
    )
    return Prepared(writer.finish(left_out), left_out)


def find_meshes(root: Path, categories: Path | None = None, up: str = "+y", front: str = "+z") -> list[MeshFile]:
    """Return the meshes below a folder, sorted by id: the path without the ending.

    Args:
        root: OBJ, GLB, PLY, STL and OFF are looked for.
        categories: a CSV table with a row for each shape and the columns ``shape_id, category`` and, if wanted,
            ``name, creator, licence, source, group``. Default: a shape's category is the first folder of its path, or
            "misc".
        up: the axis that points up.
        front: the axis that the objects' fronts look along.

    Raises:
        SourceError: no meshes, two of one id, ids that cannot be used, or a table that does not fit; all are listed.
    """
    if not root.is_dir():
        raise SourceError("this is not a folder", path=root, fix="correct the path")
    files = defaultdict(list)
    for path in visible_files(root, MESHES):
        files[str(path.with_suffix(""))].append(path)
    if not files:
        raise SourceError(
            "there are no meshes", path=root, fix=f"put files with the ending {', '.join(MESHES)} into it"
        )
    if same := [" and ".join(map(str, paths)) for paths in files.values() if len(paths) > 1]:
        raise SourceError(
            listed(same, "shapes have two files"), path=root, fix="rename or remove one of the files of each"
        )
    if odd := [shape_id for shape_id in files if set("|\\\n\0") & set(shape_id)]:
        raise SourceError(listed(odd, "names cannot be shape ids"), path=root, fix="rename them, without | and \\")
    facts = _facts(categories, list(files)) if categories else {name: {"category": _folder(name)} for name in files}
    return [
        MeshFile(name, path=root / path, up=up, front=front, **facts[name])  # type: ignore[arg-type]
        for name, (path,) in files.items()
    ]


def _folder(shape_id: str) -> str:
    parts = PurePosixPath(shape_id).parts
    return parts[0] if len(parts) > 1 else OTHER


def _facts(table: Path, shape_ids: list[str]) -> dict[str, dict[str, str]]:
    """Return shape id → the other columns of its row."""
    rows = read_listing(table, ("shape_id", "category"), FACTS)
    facts = {row["shape_id"]: {name: text for name, text in row.items() if name != "shape_id"} for row in rows}
    problems = [f"there is no mesh '{name}'" for name in facts if name not in set(shape_ids)]
    problems += [f"'{name}' has no row" for name in shape_ids if name not in facts]
    problems += [f"'{name}' has no category" for name in facts if not facts[name]["category"]]
    if len(facts) < len(rows):
        names = [row["shape_id"] for row in rows]
        problems += [f"'{name}' has {names.count(name)} rows" for name in facts if names.count(name) > 1]
    if problems:
        raise SourceError(
            listed(problems, "problems with the table of categories"),
            path=table,
            fix=f"write one row for each mesh; ids are paths without the ending, such as '{shape_ids[0]}'",
        )
    return facts


def _digest(meshes: list[MeshFile], photos: list[PhotoFile]) -> str:
    """Return a hash of what the benchmark is made from."""
    facts = [(m.shape_id, m.category, m.name, m.creator, m.licence, m.source, m.group) for m in meshes]
    cuts = [(p.query_id, p.shape_ids, p.split, p.mask is not None, p.box) for p in photos]
    return facts_digest(facts, cuts)
