"""Your own shapes, and photos of them if there are any: a folder of meshes to a prepared benchmark.

::

    INPUT/chair/my-chair.obj            any depth; the shape's id is "chair/my-chair", its category "chair"
    PHOTOS/chair/my-chair/kitchen.jpg   a folder for each shape, or a table photos.csv
    MASKS/chair/my-chair/kitchen.png    white where the object is; kitchen_mask.png and the like will do as well

Without the folder structure, a table ``shape_id, category`` names the categories.
"""

import re
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ...benchmark.writer import BenchmarkWriter
from ...errors import SourceError
from ...io.files import leads_inside
from ...io.formats import FORMATS
from ...io.images import ENDINGS
from ...io.protocol import frame_rotation
from .. import DEFAULT, Prepared, PrepareOptions, listed
from ..building import build
from ..meshes import MeshFile
from ..photos import PhotoFile, cut_photo
from .listings import read_listing
from .overview import write_overview
from .photo_lists import OF_MESHES, find_photos, visible_files

FACTS = ("name", "creator", "licence", "source", "group")
OTHER = "misc"
"""Category of meshes that lie in no folder."""


NAMES = {
    ".gltf": rb'"uri"\s*:\s*"([^":]{1,200})"', ".obj": rb"(?m)^[ \t]*mtllib[ \t]+([^\r\n]{1,200})",
    ".mtl": rb"(?mi)^[ \t]*map_Kd[ \t]+([^\r\n]{1,200})", ".ply": rb"(?i)texturefile[ \t]+([^\r\n]{1,200})",
}  # fmt: skip
"""What names files that lie beside a mesh or its materials; a regular expression for each ending."""


def prepare_folder(
    root: str | Path,
    output: str | Path,
    options: PrepareOptions = DEFAULT,
    *,
    categories: Path | None = None,
    up: str = "+y",
    front: str = "+z",
    photos: Path | None = None,
    masks: Path | None = None,
    val: float = 0.1,
    test: float = 0.2,
    automatic: bool = False,
) -> Prepared:
    """Turn a folder of meshes, with or without photos, into a prepared benchmark; an interrupted call can be repeated.

    Args:
        root: the folder of meshes, searched to any depth.
        output: the folder to write; it must not exist yet.
        options: size, jobs, and whether to leave out meshes and photos that cannot be used.
        categories: a table, see :func:`find_meshes`.
        up: the axis that points up in the meshes, or rules for some files: ``+y``, ``*.stl=+z``, ``+z, chair/*=+y``.
        front: the axis that the objects' fronts look along, likewise.
        photos: see :func:`cmiclib.sources.own.photo_lists.find_photos`.
        masks: a folder of masks, see there; photos without any mask get 255 everywhere.
        val: share of the photos for validation.
        test: share of the photos for the test.
        automatic: find masks for photos without one; the query's source then says so.

    Raises:
        SourceError: meshes, tables or photos are missing or cannot be used; all are listed.
        MeshError: up and front are not two different axes.
    """
    root = Path(root)
    meshes, left_out = find_meshes(root, categories, up, front)
    queries: list[PhotoFile] = []
    if photos:
        named = {mesh.shape_id: mesh.category for mesh in meshes}
        lack = automatic or options.allow_missing
        queries, others = find_photos(photos, masks, named, val=val, test=test, masks_may_lack=lack)
        left_out += others
    if automatic:
        queries = [replace(photo, cut=partial(cut_photo, automatic=True)) for photo in queries]
    writer = BenchmarkWriter(
        output, name=root.resolve().name, source="a folder of meshes", licence="see shapes.csv", size=options.size,
        extra={"up": up, "front": front, "automatic_masks": automatic},
    )  # fmt: skip
    prepared = build(writer, meshes, queries, options, left_out)
    write_overview(prepared.benchmark)
    return prepared


def find_meshes(
    root: Path, categories: Path | None = None, up: str = "+y", front: str = "+z", twice: bool = False
) -> tuple[list[MeshFile], list[str]]:
    """Return the meshes below a folder, sorted by id, the path without the ending; and in words what else is there.

    ``up`` and ``front`` are as in :func:`prepare_folder`. Two files of one id are refused, or with ``twice`` are two
    shapes, whose ids keep the ending.

    ``categories`` is a CSV table with a row for each shape and the columns ``shape_id, category`` and, if wanted,
    ``name, creator, licence, source, group``. Without it, the category is the first folder of the path, or "misc".

    Raises:
        SourceError: no meshes, two of one id, unusable ids, a table that does not fit, or a pattern without meshes.
        MeshError: up and front are not two different axes.
    """
    if not root.is_dir():
        raise SourceError("this is not a folder", path=root, fix="correct the path")
    files: dict[str, list[PurePosixPath]] = defaultdict(list)
    paths, others = visible_files(root, FORMATS, (*ENDINGS, *OF_MESHES))
    for path in paths:
        files[str(path.with_suffix(""))].append(path)
    if not files:
        rest = f"; {listed(others, 'other file')}" if others else ""
        raise SourceError(f"there are no meshes{rest}", path=root, fix=f"put {', '.join(FORMATS)} files into it")
    if twice:
        known = {str(p) if len(group) > 1 else name: [p] for name, group in files.items() for p in group}
        files = known if len(known) == len(paths) else {str(p): [p] for p in paths}
    if same := [" and ".join(map(str, paths)) for paths in files.values() if len(paths) > 1]:
        raise SourceError(listed(same, "shape", " with two files"), path=root, fix="rename or remove one file of each")
    odd = [shape_id for shape_id in files if set("|\\\n\r\0") & set(shape_id)]
    if twice:
        others += [f"{str(root / files.pop(name)[0])!a}: this name cannot be a shape's; rename it" for name in odd]
    elif odd:
        raise SourceError(listed(odd, "name", " cannot be a shape id"), path=root, fix="rename them, without | and \\")
    facts = _facts(categories, list(files)) if categories else {name: {"category": _folder(name)} for name in files}
    axes = {name: (_axis(path, up, "+y"), _axis(path, front, "+z")) for name, (path,) in files.items()}
    for pair in dict.fromkeys([*axes.values()]):
        frame_rotation(*pair)
    for pattern in (rule.rpartition("=")[0].strip() for text in (up, front) for rule in text.split(",") if "=" in rule):
        if not any(fnmatchcase(str(path).lower(), pattern.lower()) for (path,) in files.values()):
            raise SourceError(f"no mesh matches '{pattern}'", path=root, fix="correct --up or --front")
    meshes = []
    for name, (path,) in files.items():
        also, (top, face) = _beside(root / path), axes[name]
        meshes.append(MeshFile(name, path=root / path, up=top, front=face, also=also, **facts[name]))  # type: ignore[arg-type]
    return meshes, others


def _axis(path: PurePosixPath, rules: str, usual: str) -> str:
    """Return the axis of a file: of the last rule that fits; a rule without a pattern fits all."""
    for rule in rules.split(","):
        pattern, given, axis = rule.strip().rpartition("=")
        if not given or fnmatchcase(str(path).lower(), pattern.strip().lower()):
            usual = axis.strip()
    return usual


def _beside(file: Path) -> tuple[Path, ...]:
    """Return the files that a mesh file is read with: materials of an OBJ, buffers of a glTF, pictures."""
    pattern, found = NAMES.get(file.suffix.lower()), dict[Path, None]()
    if pattern is None:
        return ()
    with suppress(OSError, ValueError):
        with file.open("rb") as stream:
            start = stream.read(1 << 24 if file.suffix.lower() == ".gltf" else 1 << 16)
        for name in re.findall(pattern, start):
            text = name.decode("utf-8", "surrogateescape").strip()
            path = file.parent / (unquote(text) if file.suffix.lower() == ".gltf" else text.replace("\\", "/"))
            if path != file and leads_inside(path, file.parent):
                found |= dict.fromkeys((path, *(_beside(path) if file.suffix.lower() == ".obj" else ())))
    return tuple(found)


def _folder(shape_id: str) -> str:
    parts = PurePosixPath(shape_id).parts
    return parts[0] if len(parts) > 1 else OTHER


def _facts(table: Path, shape_ids: list[str]) -> dict[str, dict[str, str]]:
    """Return shape id → the other columns of its row."""
    rows = read_listing(table, ("shape_id", "category"), FACTS)
    facts = {row["shape_id"]: {name: text for name, text in row.items() if name != "shape_id"} for row in rows}
    count = Counter(row["shape_id"] for row in rows)
    problems = [f"there is no mesh '{name}'" for name in facts if name not in set(shape_ids)]
    problems += [f"'{name}' has no row" for name in shape_ids if name not in facts]
    problems += [f"'{name}' has no category" for name in facts if not facts[name]["category"]]
    problems += [f"'{name}' has {count[name]} rows" for name in facts if count[name] > 1]
    if problems:
        raise SourceError(
            listed(problems, "problem", " with the table of categories"),
            path=table,
            fix=f"write one row for each mesh; ids are paths without the ending, such as '{shape_ids[0]}'",
        )
    return facts
