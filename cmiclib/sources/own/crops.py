"""Photos against shapes that are prepared already: a list of crops and a gallery to a benchmark for the test only.

The list is JSON: ``[{"img": "crops/1.jpg", "category": "chair", "model_ids": ["IKEA_POANG_2"]}, …]``. An image's path
is below the list's folder. Any of the ids counts as right; they may stand with or without the category in front, as in
``chair/IKEA_POANG_2``.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ...benchmark import Benchmark
from ...benchmark.growing import origin_of
from ...benchmark.writer import BenchmarkWriter
from ...errors import BenchmarkError, SourceError
from ...io.files import check_inside, read_json, read_limited
from ...io.meshes import MESH_LIMIT
from .. import DEFAULT, Prepared, PrepareOptions, listed
from ..building import build
from ..photos import PhotoFile, cut_photo
from .listings import inside, numbered


def prepare_crops(
    queries: str | Path,
    gallery: str | Path,
    output: str | Path,
    options: PrepareOptions = DEFAULT,
    *,
    root: str | Path | None = None,
    automatic: bool = False,
) -> Prepared:
    """Pair photos with the gallery of a prepared benchmark, whose size they take; all of them are for the test.

    A query counts as seen where the gallery's own benchmark has training photos of its shape or of a variant; its
    category is that of its first shape.

    Args:
        queries: the list.
        gallery: the folder of a prepared benchmark; its shapes are copied.
        output: the folder to write; it must not exist yet.
        options: jobs, and whether to leave out ids that the gallery lacks and photos that cannot be used.
        root: the folder that the images' paths are below; default: the list's.
        automatic: find masks; the query's source then says so. Else the mask is 255 everywhere.

    Raises:
        SourceError: a list that does not fit, photos that are missing, ids that the gallery lacks; all are listed.
        BenchmarkError: the gallery is missing or damaged.
    """
    queries, shapes = Path(queries), Benchmark.open(gallery)
    categories = dict(zip(shapes.shapes["shape_id"], shapes.shapes["category"], strict=True))
    listing = read_crops(queries, Path(root) if root is not None else queries.parent)
    photos, lacking, left_out = _resolve(listing, categories, partial(cut_photo, automatic=automatic))
    if lacking and not options.allow_missing:
        raise SourceError(
            listed(lacking, "id", f" not in the gallery '{shapes.name}'", most=len(lacking)),
            path=queries,
            fix="correct them, give another gallery, or leave these out with --allow-missing",
        )
    if not photos:
        problem = f"no photo shows a shape of the gallery '{shapes.name}'"
        raise SourceError(problem, path=queries, fix="give another gallery")
    writer = BenchmarkWriter(
        output, name=queries.stem, source=f"photos of {queries.name}, gallery of {shapes.name}",
        licence=shapes.meta["licence"], size=shapes.size, protocol=shapes.protocol,
        extra={"gallery": shapes.hash, "automatic_masks": automatic},
    )  # fmt: skip
    groups = shapes.shapes["group"].to_numpy()
    trained = set(groups[shapes.relevant(shapes.rows("train")).any(axis=0)])
    with writer:
        copy_gallery(writer, shapes)
        return build(writer, [], photos, options, left_out, trained=trained)


def read_crops(path: Path, root: Path) -> list[PhotoFile]:
    """Read a list of photos, whose paths are below ``root``; ids are as they stand there.

    Raises:
        SourceError: not a list of such entries, paths that leave the root, missing files; all are listed.
    """
    fix = 'write a list of {"img": …, "category": …, "model_ids": [ … ]}'
    entries = read_json(path, SourceError, fix)
    if not isinstance(entries, list) or not entries:
        raise SourceError("this is not a list of photos", path=path, fix=fix)
    found, problems = list[PhotoFile](), list[str]()
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_photo(entry, root, path))
        except SourceError as error:
            problems.append(f"entry {number}: {error.problem}")
    if problems:
        raise SourceError(listed(problems, "problem"), path=path, fix=fix)
    return numbered(found)


def copy_gallery(writer: BenchmarkWriter, gallery: Benchmark) -> None:
    """Add all shapes of a benchmark to a new one of the same size and view protocol; those it has cost nothing.

    Raises:
        StorageError: the write failed.
    """
    for row, shape in enumerate(gallery.shapes.to_dict("records")):
        name = str(shape["shape_id"])
        mesh = gallery.path / "meshes" / f"{name}.glb"
        check_inside(mesh, gallery.path, BenchmarkError)
        if writer.needs_shape(name, origin_of(gallery.hash, files=[mesh])):
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
            raise SourceError(f"its '{field}' is missing or not a text")
    ids = entry.get("model_ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) and name for name in ids):
        raise SourceError("its 'model_ids' is missing or not a list of ids")
    image, name = inside(root, entry["img"], path), entry["img"]
    if not image.is_file():
        raise SourceError(f"there is no photo {image}")
    query_id = str(PurePosixPath(name).with_suffix(""))
    return PhotoFile(query_id, image, tuple(ids), entry["category"], "test", photo=name, source=path.stem)


def _resolve(
    photos: list[PhotoFile], categories: Mapping[str, str], cut: Any
) -> tuple[list[PhotoFile], list[str], list[str]]:
    """Return the photos with the gallery's ids and category; the ids that it lacks; and what is left out with them."""
    known, lacking, left_out = [], dict[str, None](), []  # a dictionary names each id once, in order
    for photo in photos:
        own = []
        for name in photo.shape_ids:
            full = next((i for i in (name, f"{photo.category}/{name}") if i in categories), None)
            if full is None:
                full = name if "/" in name else f"{photo.category}/{name}"
                lacking[full] = None
                left_out.append(f"{photo.path}: the gallery has no shape {full}")
            else:
                own.append(full)
        if own:
            ids = tuple(dict.fromkeys(own))
            known.append(replace(photo, shape_ids=ids, category=categories[ids[0]], cut=cut))
        else:
            left_out.append(f"{photo.path}: its shape is not in the gallery")
    return known, list(lacking), left_out
