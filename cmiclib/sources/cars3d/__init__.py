"""StanfordCars3D and CompCars3D to a prepared benchmark.

::

    ROOT/Anno3D/<set>/{train,test}_anno.pkl        poses by photo; for StanfordCars also {train,test}_anno_v2.pkl
    ROOT/StanfordCars/{cars_train,cars_test}/      photos of Stanford Cars
    ROOT/CompCars/image/<make>/<model>/<year>/     photos of CompCars
    ROOT/CAD/02958343/<model_id>/model.obj         car models of ShapeNetCore v1
    ROOT/CAD/{StanfordCars,CompCars}3D.txt         models of the gallery, with or without photos; optional

The masks are silhouettes of the annotated models, so what stands in front of a car belongs to its mask,
and an error of the pose is an error of the mask. The gallery is every model that the annotation or the list names.
A share of the training photos, chosen by the hash of their names, is taken for validation.
"""

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...benchmark.writer import BenchmarkWriter
from ...errors import SourceError
from ...geometry import load_mesh
from ...geometry.rays import Rays
from ...io.files import check_inside, read_limited
from ...io.images import read_photo, square_crop
from .. import DEFAULT, Prepared, PrepareOptions, listed
from ..building import build
from ..meshes import MeshFile
from ..own.listings import hash_share, inside
from ..photos import Cut, PhotoFile, torn_apart
from .camera import Pose, check_model_id, read_poses, silhouette

SYNSET = "02958343"  # cars in ShapeNet
LIST_LIMIT = 1 << 20
FINEST = 3  # photos wider than three crops are reduced first: the crop keeps no more pixels than that
# ShapeNetCore v1 has +y up; its cars look along +x. The second was found from one model and its 43 photos: with the
# camera that fits their silhouettes (see .camera), the +x end of the model is the car's front in each photo, and a
# model turned end for end does not fit.
UP, FRONT = "+y", "+x"


class CarSet(NamedTuple):
    """One of the two benchmarks."""

    name: str  # of the prepared benchmark
    folder: str  # of its pickles and of its photos
    photos: dict[str, str]  # split → folder
    versions: dict[str, str]  # version of the annotation → what the names of its pickles end with


STANFORD = CarSet(
    "stanfordcars3d", "StanfordCars", {"train": "cars_train", "test": "cars_test"}, {"v1": "", "v2": "_v2"}
)
COMPCARS = CarSet("compcars3d", "CompCars", {"train": "image", "test": "image"}, {"v1": ""})


def prepare_cars3d(
    cars: CarSet,
    root: str | Path,
    output: str | Path,
    options: PrepareOptions = DEFAULT,
    *,
    anno: str | Path | None = None,
    photos: str | Path | None = None,
    shapes: str | Path | None = None,
    annotation: str | None = None,
    val: float = 0.1,
) -> Prepared:
    """Turn StanfordCars3D or CompCars3D into a prepared benchmark; a second call goes on where the first one stopped.

    ``root`` has the folders above, unless they are given: ``anno``, that of the pickles; ``photos``, that with
    ``cars_train`` and ``cars_test``, or with ``image``; ``shapes``, that with ``02958343``, such as ShapeNetCore.v1.
    ``annotation`` is v1, or v2 of Stanford's poses, which were refined; default: the newest. ``val`` is the share of
    the training photos that becomes the validation part. A SourceError lists all photos and models that are missing or
    cannot be used, and photos in both splits.
    """
    root, version = Path(root), annotation or max(cars.versions)
    models = Path(shapes or root / "CAD")
    listing = Path(anno or root / "Anno3D" / cars.folder)
    found = _photos(cars, listing, Path(photos or root / cars.folder), models, version, val)
    names = root / "CAD" / f"{cars.folder}3D.txt"
    shape_ids = {photo.shape_ids[0] for photo in found}
    shape_ids |= {f"car/{model_id}" for model_id in read_model_ids(names)} if names.is_file() else set()
    meshes = [
        MeshFile(shape_id, "car", _model(shape_id, models), UP, FRONT, source="ShapeNetCore v1")
        for shape_id in sorted(shape_ids)
    ]
    for mesh in meshes:
        check_inside(mesh.path, models, SourceError)
    there, usable, left_out = _present(root, meshes, found, options)
    writer = BenchmarkWriter(
        output, name=cars.name, source=f"{cars.folder}3D of Wang et al. 2018, ShapeNetCore v1",
        licence="research only, as the photos' and ShapeNet's terms state", size=options.size,
        extra={"annotation": version, "val": val},
    )  # fmt: skip
    return build(writer, there, usable, options, left_out)


def _photos(cars: CarSet, anno: Path, photos: Path, models: Path, version: str, val: float) -> list[PhotoFile]:
    """Return every photo of both splits, those of one model one after the other."""
    if version not in cars.versions:
        fix = f"use one of: {', '.join(cars.versions)}"
        raise SourceError(f"{cars.name} has no annotation '{version}'", path=anno, fix=fix)
    found = []
    for split, folder in cars.photos.items():
        listing = anno / f"{split}_anno{cars.versions[version]}.pkl"
        check_inside(listing, anno, SourceError)
        for name, pose in read_poses(listing).items():
            held = split == "train" and hash_share(name) < val
            file = inside(photos, f"{folder}/{name}", listing, "the folder of photos")
            query_id, shape_id = f"{split}/{PurePosixPath(name).with_suffix('')}", f"car/{pose.model_id}"
            found.append(PhotoFile(
                query_id, file, (shape_id,), "car", "val" if held else split, photo=f"{folder}/{name}",
                source=cars.name, facts=pose, also=(_model(shape_id, models),), cut=cut_car,
            ))  # fmt: skip
    if torn := torn_apart(found):
        raise SourceError(listed(torn, "photo", " in two splits"), path=anno, fix="list each photo in one split")
    return sorted(found, key=lambda photo: photo.shape_ids)


def read_model_ids(names: Path) -> set[str]:
    """Read a list of models, one on each line."""
    check_inside(names, names.parent, SourceError)
    try:
        return {check_model_id(model_id) for model_id in read_limited(names, LIST_LIMIT, SourceError).decode().split()}
    except ValueError as error:
        fix = "get it again, or remove it"
        raise SourceError(f"this is not a list of models ({error})", path=names, fix=fix) from None


def _model(shape_id: str, folder: Path) -> Path:
    return folder / SYNSET / shape_id.removeprefix("car/") / "model.obj"


def _present(
    root: Path, meshes: list[MeshFile], photos: list[PhotoFile], options: PrepareOptions
) -> tuple[list[MeshFile], list[PhotoFile], list[str]]:
    """Return those whose files are there, and what is not; refuse if nothing would come of them."""
    places = "say where photos and models are with --photos and --shapes"
    models = [mesh for mesh in meshes if mesh.path.is_file()]
    shown = {mesh.shape_id for mesh in models}
    here = [photo for photo in photos if photo.path.is_file()]
    usable = [photo for photo in here if photo.shape_ids[0] in shown]
    gone = sorted(
        {m.path for m in meshes} - {m.path for m in models} | {p.path for p in photos} - {p.path for p in here}
    )
    if gone and not options.allow_missing:
        fix = f"{places}, or leave these out with --allow-missing"
        raise SourceError(listed(list(map(str, gone)), "file", " missing"), path=root, fix=fix)
    if not usable:
        there = f"{len(here)} of {len(photos)} photos and {len(models)} of {len(meshes)} models are there"
        raise SourceError(f"{there}, but no photo together with its model", path=root, fix=places)
    left_out = [f"{path}: no such file" for path in gone]
    left_out += [f"{photo.path}: its model is missing" for photo in here if photo.shape_ids[0] not in shown]
    return models, usable, left_out


def cut_car(photo: PhotoFile, size: int) -> Cut:
    """Cut the square around the silhouette of a photo's model; its fact is the pose, its further file the model."""
    pose, (model,) = photo.facts, photo.also
    assert isinstance(pose, Pose)
    rgb = read_photo(photo.path)
    if rgb.shape[1] > FINEST * size:
        height = max(1, round(rgb.shape[0] * FINEST * size / rgb.shape[1]))
        rgb = np.asarray(Image.fromarray(rgb).resize((FINEST * size, height), Image.Resampling.BILINEAR))
    mask = silhouette(_scene(model, model.stat().st_mtime_ns), pose, rgb.shape[1], rgb.shape[0])
    if not mask.any():
        problem = f"its annotated pose shows nothing of {photo.shape_ids[0]}"
        raise SourceError(problem, path=photo.path, fix="correct the annotation")
    return Cut(square_crop(rgb, mask, size=size))


@lru_cache(maxsize=1)  # the photos of one model come one after the other
def _scene(model: Path, changed: int) -> Rays:
    return Rays(load_mesh(model))  # in the frame of its file, as the poses are
