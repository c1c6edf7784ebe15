"""Photos against shapes that are prepared already: a list of crops and a gallery to a benchmark for the test only.

The list is JSON: ``[{"img": "crops/1.jpg", "category": "chair", "model_ids": ["IKEA_POANG_2"]}, …]``. An image's path
is below the list's folder. Any of the ids counts as right; they may stand with or without the category in front, as in
``chair/IKEA_POANG_2``.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...benchmark import Benchmark
from ...benchmark.writer import BenchmarkWriter, facts_digest
from ...errors import BenchmarkError, SourceError
from ...io.files import check_inside, read_json, read_limited
from ...io.meshes import MESH_LIMIT
from ..meshes import listed
from ..photos import PhotoFile, add_photos
from .folder import Prepared
from .listings import inside


def prepare_crops(
    queries: str | Path,
    gallery: str | Path,
    output: str | Path,
    *,
    root: str | Path | None = None,
    automatic: bool = False,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> Prepared:
    """Pair photos with the gallery of a prepared benchmark, whose size they take; all of them are for the test.

    A query counts as seen where the gallery's own benchmark has training photos of its shape or of a variant.

    Args:
        queries: the list.
        gallery: the folder of a prepared benchmark; its shapes are copied.
        output: the folder to write; it must not exist yet.
        root: the folder that the images' paths are below; default: the list's.
        automatic: find masks; the query's source then says so. Else the mask is 255 everywhere.
        jobs: processes.
        allow_missing: leave out ids that the gallery lacks, photos that have no other, and photos that cannot be used.
        progress: show bars.

    Raises:
        SourceError: a list that does not fit, photos that are missing, ids that the gallery lacks; all are listed.
        BenchmarkError: the gallery is missing or damaged.
        StorageError: no space; nothing half-written stays.
    """
    queries, shapes = Path(queries), Benchmark.open(gallery)
    photos = read_crops(queries, Path(root) if root is not None else queries.parent)
    known, lacking = _resolve(photos, set(shapes.shapes["shape_id"]))
    if lacking and not allow_missing:
        raise SourceError(
            listed(lacking, f"ids are not in the gallery '{shapes.name}'", most=len(lacking)),
            path=queries,
            fix="correct them, give another gallery, or leave these out with --allow-missing",
        )
    if not known:
        raise SourceError(
            f"no photo shows a shape of the gallery '{shapes.name}'", path=queries, fix="give another gallery"
        )
    cuts = [(p.query_id, p.photo, p.shape_ids, p.category, p.split, p.mask is not None, p.box) for p in known]
    writer = BenchmarkWriter(
        output, name=queries.stem, source=f"photos of {queries.name}, gallery of {shapes.name}",
        licence=shapes.meta["licence"], size=shapes.size, protocol=shapes.protocol,
        extra={"gallery": shapes.hash, "automatic_masks": automatic, "photos": facts_digest(cuts)},
    )  # fmt: skip
    copy_gallery(writer, shapes)
    groups = dict(zip(shapes.shapes["shape_id"], shapes.shapes["group"], strict=True))
    trained = {groups[name] for row in shapes.rows("train") for name in shapes.queries["shape_id"][row].split("|")}
    failed = add_photos(
        writer, known, groups, trained=trained, automatic=automatic, jobs=jobs, allow_missing=allow_missing,
        progress=progress,
    )  # fmt: skip
    kept = {photo.query_id for photo in known}
    skipped = [f"{photo.path}: its shape is not in the gallery" for photo in photos if photo.query_id not in kept]
    return Prepared(writer.finish(skipped + failed), skipped + failed)


def read_crops(path: Path, root: Path) -> list[PhotoFile]:
    """Read a list of photos; ids are as they stand there.

    Args:
        path: the JSON file.
        root: the folder that the images' paths are below.

    Raises:
        SourceError: not a list of such entries, paths that leave the root, missing files; all are listed.
    """
    fix = 'write a list of {"img": …, "category": …, "model_ids": [ … ]}'
    entries = read_json(path, SourceError, fix)
    if not isinstance(entries, list) or not entries:
        raise SourceError("this is not a list of photos", path=path, fix=fix)
    found, problems, used = [], [], Counter[str]()
    for number, entry in enumerate(entries, 1):
        try:
            photo = _photo(entry, root, path)
        except SourceError as error:
            problems.append(f"entry {number}: {error.problem}")
            continue
        used[photo.query_id] += 1
        suffix = f"#{used[photo.query_id]}" if used[photo.query_id] > 1 else ""
        found.append(replace(photo, query_id=photo.query_id + suffix))
    if problems:
        raise SourceError(listed(problems, "entries cannot be used"), path=path, fix=fix)
    return found


def copy_gallery(writer: BenchmarkWriter, gallery: Benchmark) -> None:
    """Add all shapes of a benchmark to a new one of the same size and view protocol; those it has cost nothing.

    Raises:
        StorageError: the write failed.
    """
    for row, shape in enumerate(gallery.shapes.to_dict("records")):
        name = str(shape["shape_id"])
        if not writer.has_shape(name):
            mesh = gallery.path / "meshes" / f"{name}.glb"
            check_inside(mesh, gallery.path, BenchmarkError)
            writer.add_shape(
                **{str(column): str(text) for column, text in shape.items()},
                views=gallery.views[row],
                points=gallery.points[row] if "points.npy" in gallery.arrays else None,
                voxels=gallery.voxels[row] if "voxels.npy" in gallery.arrays else None,
                mesh=read_limited(mesh, MESH_LIMIT, BenchmarkError) if mesh.is_file() else None,
            )


def _photo(entry: Any, root: Path, path: Path) -> PhotoFile:
    if not isinstance(entry, dict):
        raise SourceError(f"{entry!r:.40} is not an object with fields")
    for field in ("img", "category"):
        if not isinstance(entry.get(field), str) or not entry[field]:
            raise SourceError(f"its '{field}' is missing or no text")
    ids = entry.get("model_ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) and name for name in ids):
        raise SourceError("its 'model_ids' is missing or no list of ids")
    image = inside(root, entry["img"], path)
    if not image.is_file():
        raise SourceError(f"there is no photo {image}")
    name = entry["img"]
    query_id = str(PurePosixPath(name).with_suffix(""))
    return PhotoFile(query_id, image, tuple(ids), entry["category"], "test", photo=name, source=path.stem)


def _resolve(photos: list[PhotoFile], shape_ids: set[str]) -> tuple[list[PhotoFile], list[str]]:
    """Return the photos with the gallery's own ids, those that have any, and the ids that the gallery lacks."""
    known, lacking = [], dict[str, None]()  # keeps the order, names each id once
    for photo in photos:
        own = []
        for name in photo.shape_ids:
            full = next((i for i in (name, f"{photo.category}/{name}") if i in shape_ids), None)
            if full is None:
                lacking[f"{photo.category}/{name}" if "/" not in name else name] = None
            else:
                own.append(full)
        if own:
            known.append(replace(photo, shape_ids=tuple(dict.fromkeys(own))))
    return known, list(lacking)
