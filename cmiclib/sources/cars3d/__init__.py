"""StanfordCars3D and CompCars3D to a prepared benchmark.

::

    ROOT/Anno3D/<set>/{train,test}_anno.pkl        poses by photo; of StanfordCars {train,test}_anno_v2.pkl, too
    ROOT/StanfordCars/{cars_train,cars_test}/      photos of Stanford Cars
    ROOT/CompCars/image/<make>/<model>/<year>/     photos of CompCars
    ROOT/CAD/02958343/<model_id>/model.obj         car models of ShapeNetCore v1
    ROOT/CAD/{StanfordCars,CompCars}3D.txt         if there: models of the gallery, with or without photos

There are no masks: they are silhouettes of the annotated models, so what stands in front of a car belongs to its mask,
and an error of the pose is an error of the mask. The gallery is every model that the annotation or the list names.
A share of the training photos, chosen by the hash of their names, is taken for validation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...benchmark import Benchmark
from ...benchmark.writer import BenchmarkWriter, facts_digest
from ...errors import SourceError
from ...io.files import check_inside, read_limited
from ..meshes import MeshFile, add_meshes, listed
from ..own.listings import hash_share, inside
from .camera import check_model_id, read_poses
from .photos import CarPhoto, add_photos

SYNSET = "02958343"
"""Cars in ShapeNet."""
LIST_LIMIT = 1 << 20
# ShapeNetCore v1 has +y up; its cars look along +x. The second was found from the one model at hand and its 43 photos:
# with the camera that fits their silhouettes (see cars3d_camera) the +x end of the model is the car's front in each,
# and a model turned end for end does not fit.
UP, FRONT = "+y", "+x"


@dataclass(frozen=True)
class CarSet:
    """One of the two benchmarks.

    Attributes:
        name: of the prepared benchmark.
        folder: of its pickles and of its photos.
        photos: split → folder of its photos.
        versions: version of the annotation → what the names of its pickles end with.
    """

    name: str
    folder: str
    photos: dict[str, str]
    versions: dict[str, str]


STANFORD = CarSet(
    "stanfordcars3d", "StanfordCars", {"train": "cars_train", "test": "cars_test"}, {"v1": "", "v2": "_v2"}
)
COMPCARS = CarSet("compcars3d", "CompCars", {"train": "image", "test": "image"}, {"v1": ""})


class LeftOut(NamedTuple):
    """What could not be used: shape ids and query ids, in order."""

    shapes: list[str]
    queries: list[str]


def prepare_cars3d(
    cars: CarSet,
    root: str | Path,
    output: str | Path,
    *,
    anno: str | Path | None = None,
    photos: str | Path | None = None,
    shapes: str | Path | None = None,
    annotation: str | None = None,
    size: int = 224,
    val: float = 0.1,
    jobs: int = 2,
    allow_missing: bool = False,
    progress: bool = True,
) -> tuple[Benchmark, LeftOut]:
    """Turn StanfordCars3D or CompCars3D into a prepared benchmark; a second call goes on where the first one stopped.

    Args:
        cars: `STANFORD` or `COMPCARS`.
        root: the folder of everything below.
        output: the folder to write; it must not exist yet.
        anno: the folder of the pickles; default: ``ROOT/Anno3D/<set>``.
        photos: the folder with ``cars_train`` and ``cars_test``, or with ``image``; default: ``ROOT/<set>``.
        shapes: the folder with ``02958343``, such as ShapeNetCore.v1; default: ``ROOT/CAD``.
        annotation: v1, or v2 of Stanford's poses, which were refined; default: the newest.
        size: side of photos and views in pixels.
        val: share of the training photos that becomes the validation part.
        jobs: processes.
        allow_missing: leave out photos and models that are missing or cannot be used.
        progress: show bars.

    Returns:
        The benchmark, and what was left out of it; nothing without ``allow_missing``.

    Raises:
        SourceError: photos or models are missing or cannot be used, all of them listed; the annotation is damaged; or a
            file is a link out of its folder.
        StorageError: no space; nothing half-written stays.
    """
    root = Path(root)
    version = annotation or max(cars.versions)
    records = _records(
        cars, Path(anno or root / "Anno3D" / cars.folder), Path(photos or root / cars.folder), version, val
    )
    model_ids = _model_ids(records, root / "CAD" / f"{cars.folder}3D.txt")
    meshes = [_mesh_file(model_id, Path(shapes or root / "CAD")) for model_id in model_ids]
    usable, there = _present(root, records, meshes, allow_missing)

    writer = BenchmarkWriter(
        Path(output), name=cars.name, source=f"{cars.folder}3D of Wang et al. 2018, ShapeNetCore v1",
        licence="research only, as the photos' and ShapeNet's terms state", size=size,
        extra={
            "annotation": version, "val": val,
            "records": facts_digest([(r.query_id, r.split, r.name, r.pose) for r in records]),
        },
    )  # fmt: skip
    broken = add_meshes(writer, there, jobs=jobs, allow_missing=allow_missing, progress=progress)
    models = {mesh.shape_id: mesh.path for mesh in there if writer.has_shape(mesh.shape_id)}
    failed = add_photos(
        writer, usable, models, source=cars.name, jobs=jobs, allow_missing=allow_missing, progress=progress
    )
    left_out = LeftOut(
        [mesh.shape_id for mesh in meshes if not writer.has_shape(mesh.shape_id)],
        [record.query_id for record in records if not writer.has_query(record.query_id)],
    )
    lines = [f"{mesh.path}: no such file" for mesh in meshes if mesh not in there]
    lines += [*(problem for _, problem in broken), *failed]
    lines += [f"{name}: its photo cannot be used, or its model is left out" for name in left_out.queries]
    return writer.finish(lines), left_out


def _records(cars: CarSet, anno: Path, photos: Path, version: str, val: float) -> list[CarPhoto]:
    """Return every record of both splits."""
    if version not in cars.versions:
        raise SourceError(
            f"{cars.name} has no annotation '{version}'", path=anno, fix=f"use one of: {', '.join(cars.versions)}"
        )
    records = []
    for split, folder in cars.photos.items():
        listing = anno / f"{split}_anno{cars.versions[version]}.pkl"
        check_inside(listing, anno, SourceError)
        for name, pose in read_poses(listing).items():
            held = split == "train" and hash_share(name) < val
            query_id = f"{split}/{PurePosixPath(name).with_suffix('')}"
            file = inside(photos, f"{folder}/{name}", listing, "the folder of photos")
            records.append(CarPhoto(query_id, "val" if held else split, file, f"{folder}/{name}", pose))
    return records


def _model_ids(records: Iterable[CarPhoto], names: Path) -> list[str]:
    """Return the models of the gallery, sorted."""
    annotated = {record.pose.model_id for record in records}
    return sorted(annotated | read_model_ids(names)) if names.is_file() else sorted(annotated)


def read_model_ids(names: Path) -> set[str]:
    """Read a list of models, one a line.

    Raises:
        SourceError: it is none.
    """
    check_inside(names, names.parent, SourceError)
    try:
        return {check_model_id(model_id) for model_id in read_limited(names, LIST_LIMIT, SourceError).decode().split()}
    except ValueError as error:
        raise SourceError(
            f"this is no list of models ({error})", path=names, fix="get it again, or remove it"
        ) from None


def _mesh_file(model_id: str, folder: Path) -> MeshFile:
    path = folder / SYNSET / model_id / "model.obj"
    check_inside(path, folder, SourceError)
    return MeshFile(f"car/{model_id}", "car", path, up=UP, front=FRONT, source="ShapeNetCore v1")


def _present(
    root: Path, records: list[CarPhoto], meshes: list[MeshFile], allow_missing: bool
) -> tuple[list[CarPhoto], list[MeshFile]]:
    """Return those whose files are there; refuse if files are missing, or if nothing would come of the others."""
    places = "say where photos and models are with --photos and --shapes"
    photos = [record for record in records if record.file.is_file()]
    models = [mesh for mesh in meshes if mesh.path.is_file()]
    gone = {mesh.path for mesh in meshes} | {record.file for record in records}
    gone -= {mesh.path for mesh in models} | {record.file for record in photos}
    if gone and not allow_missing:
        raise SourceError(
            listed(sorted(map(str, gone)), "files are missing"),
            path=root,
            fix=f"{places}, or leave these out with --allow-missing",
        )
    shown = {mesh.shape_id for mesh in models}
    if not any(record.shape_id in shown for record in photos):
        raise SourceError(
            f"{len(photos)} of {len(records)} photos and {len(models)} of {len(meshes)} models are there, "
            "but no photo together with its model",
            path=root,
            fix=places,
        )
    return photos, models
