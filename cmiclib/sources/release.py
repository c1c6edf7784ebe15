"""The authors' released archive, in its own layout, to a prepared benchmark.

::

    ROOT/<name>_train.json, <name>_test.json   lists of {"img", "mask", "category", "model", …}; paths are below ROOT
    ROOT/rendering_<name>.pkl                  dict[category][instance] → 12 gray views, PIL images or uint8 arrays
    ROOT/model_std_bin128/<category>/<instance>.binvox     voxels; optional
    ROOT/model_std_ptc10k_npy/<category>/<instance>.npy    at least 10,000 points; optional

Photos are cropped already. The instance is the last but one component of ``model``. The gallery is everything in the
renderings, as in the released evaluation. The archive has no validation photos: a share of the training photos, chosen
by the hash of their names, is taken for it.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..benchmark import POINTS, VOXELS
from ..benchmark.checks import usable_id
from ..benchmark.writer import BenchmarkWriter
from ..errors import SourceError
from ..geometry import pack_voxels
from ..io.files import check_inside, map_array, read_json, read_limited, shown
from ..io.images import read_mask, read_photo, square_crop
from ..io.pickles import StandIn, load_pickle
from ..io.protocol import ViewProtocol
from . import DEFAULT, Prepared, PrepareOptions, listed
from .building import build
from .meshes import MeshFile, Shape
from .own.listings import hash_share, inside
from .photos import Cut, PhotoFile

VIEWS = 12
JSON_LIMIT, PICKLE_LIMIT = 1 << 28, 8 << 30
BINVOX_LIMIT = 2 * VOXELS**3 + 4096  # bytes: a grid of single runs, and a header
FOLDERS = {"model_std_ptc10k_npy": ".npy", "model_std_bin128": ".binvox"}  # of points and voxels
MASK_FOLDERS = {"pix3d": "mask_ocrnet"}
"""The folder that the released training code puts in place of a training mask's first one; ``mask`` elsewhere."""
FIX = "unpack the archive again"


def prepare_release(
    root: str | Path, output: str | Path, options: PrepareOptions = DEFAULT, *, val: float = 0.1
) -> Prepared:
    """Turn one benchmark of the authors' archive, such as ``data/pix3d``, into a prepared benchmark.

    ``val`` is the share of the training photos that becomes the validation part. A SourceError lists all files that are
    missing or damaged and all photos whose shape is not in the renderings.
    """
    root = Path(root)
    train, test, renderings = (_only(root, name) for name in ("*_train.json", "*_test.json", "rendering_*.pkl"))
    name, gallery = train.name.removesuffix("_train.json").lower(), read_renderings(renderings)
    entries = [
        photo for split, file in (("train", train), ("test", test)) for photo in _photos(root, name, split, file, val)
    ]
    problems = {photo.query_id: reason for photo in entries if (reason := _missing(photo, gallery))}
    if problems and not options.allow_missing:
        fix = f"{FIX}, or leave these photos out with --allow-missing"
        raise SourceError(listed(list(problems.values()), "photo", " cannot be used"), path=root, fix=fix)
    folders = {root / folder: ending for folder, ending in FOLDERS.items() if (root / folder).is_dir()}
    meshes = []
    for shape_id, views in gallery.items():
        also = tuple(folder / f"{shape_id}{ending}" for folder, ending in folders.items())
        for path in also:
            check_inside(path, root, SourceError)
        category, make = shape_id.partition("/")[0], partial(_shape, views=views)
        meshes.append(MeshFile(shape_id, category, renderings, also=also, make=make))
    photos = [photo for photo in entries if photo.query_id not in problems]
    writer = BenchmarkWriter(
        output, name=name, source="released archive of CMIC", licence="as the archive states", size=options.size
    )
    return build(writer, meshes, photos, options, problems.values())


def _shape(mesh: MeshFile, size: int, protocol: ViewProtocol, views: list[np.ndarray]) -> Shape:
    resized = [Image.fromarray(view).resize((size, size), Image.Resampling.BILINEAR) for view in views]
    files = {path.suffix: path for path in mesh.also}
    points = read_points(files[".npy"]) if ".npy" in files else None
    voxels = pack_voxels(read_binvox(files[".binvox"])) if ".binvox" in files else None
    return Shape(np.stack([np.asarray(view) for view in resized]), points, voxels)


def cut_whole(photo: PhotoFile, size: int) -> Cut:
    """Take a photo as it is, with its mask."""
    assert photo.mask
    rgb = read_photo(photo.path)
    return Cut(square_crop(rgb, read_mask(photo.mask, rgb), (0, 0, *rgb.shape[1::-1]), margin=0, size=size))


class _Picture(StandIn):
    """A stand-in for a PIL image."""

    def __init__(self, *_: Any):
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        _, mode, (width, height), _, data = state[:5]
        if mode != "L" or not isinstance(data, bytes) or len(data) != width * height:
            raise ValueError(f"it holds a picture of mode {shown(mode)}; views are gray")
        self.array = np.frombuffer(data, np.uint8).reshape(height, width)


PICTURES: dict[tuple[str, str], Callable[..., Any]] = {
    **dict.fromkeys([("builtins", "object"), ("__builtin__", "object")], StandIn),
    **dict.fromkeys([("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"), ("PIL.Image", "Image")], _Picture),
    **dict.fromkeys([("PIL.PngImagePlugin", "PngImageFile"), ("PIL.JpegImagePlugin", "JpegImageFile")], _Picture),
}


def read_renderings(path: Path) -> dict[str, list[np.ndarray]]:
    """Read the pickle of views: ``category/instance`` → 12 uint8 (H, W), in the order of the file.

    Only gray images and uint8 arrays are ever built from it; anything else is a SourceError.
    """
    content = load_pickle(read_limited(path, PICKLE_LIMIT, SourceError), path, SourceError, PICTURES)
    if not isinstance(content, dict) or not all(isinstance(shapes, dict) for shapes in content.values()):
        raise SourceError("it does not hold views by category and instance", path=path, fix=FIX)
    gallery = {}
    for category, shapes in content.items():
        for instance, views in shapes.items():
            said = f"{shown(category)}, {shown(instance)}"
            try:
                arrays = [np.asarray(view.array if isinstance(view, _Picture) else view) for view in views]
            except TypeError:
                arrays = []
            if len(arrays) != VIEWS or any(a.ndim != 2 or a.dtype != np.uint8 or a.size == 0 for a in arrays):
                raise SourceError(f"{said} does not have {VIEWS} gray views", path=path, fix=FIX)
            name = f"{category}/{instance}" if isinstance(category, str) and isinstance(instance, str) else ""
            if not usable_id(name):
                raise SourceError(f"{said} cannot name a shape", path=path, fix=FIX)
            gallery[name] = arrays
    return gallery


def _only(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        fix = "give the folder of one benchmark of the archive, such as data/pix3d"
        raise SourceError(f"{len(found)} files are called {pattern}; one is expected", path=root, fix=fix)
    check_inside(found[0], root, SourceError)
    return found[0]


def _photos(root: Path, name: str, split: str, file: Path, val: float) -> list[PhotoFile]:
    """Return the photos of one list."""
    try:
        records = read_json(file, SourceError, FIX, JSON_LIMIT)
        entries = [{key: str(record[key]) for key in ("img", "mask", "category", "model")} for record in records]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"this is not a list of photos ({type(error).__name__}: {error})"
        raise SourceError(problem, path=file, fix=FIX) from None
    photos, used = [], Counter[str]()
    for entry in entries:
        img, mask, model = entry["img"], PurePosixPath(entry["mask"]), PurePosixPath(entry["model"]).parts
        if split == "train":
            mask = PurePosixPath(MASK_FOLDERS.get(name, "mask"), *mask.parts[1:])
        path = inside(root, img, file, "the archive")
        used[img] += 1
        number = "" if used[img] == 1 else f"#{used[img]}"
        photos.append(PhotoFile(
            f"{split}/{PurePosixPath(img).with_suffix('')}{number}", path,
            (f"{entry['category']}/{model[-2] if len(model) > 1 else ''}",), entry["category"],
            "val" if split == "train" and hash_share(img) < val else split, photo=f"{split}/{img}{number}",
            mask=inside(root, str(mask), file, "the archive"), source=name, cut=cut_whole,
        ))  # fmt: skip
    return photos


def _missing(photo: PhotoFile, gallery: dict[str, list[np.ndarray]]) -> str:
    """Return what a photo lacks; empty: nothing."""
    lacking = [f"no such file {path}" for path in (photo.path, photo.mask) if path and not path.is_file()]
    lacking += [] if photo.shape_ids[0] in gallery else [f"no views of {photo.shape_ids[0]}"]
    return f"{photo.photo}: {', '.join(lacking)}" if lacking else ""


def read_points(path: Path) -> np.ndarray:
    """Return the first 10,000 points of an ``.npy`` file, float32 (10000, 3); fewer, NaN and Inf are refused."""
    points = map_array(path, SourceError, fix="sample the points again")
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < POINTS or not np.isfinite(points).all():
        problem = f"its {points.shape} are not {POINTS} × 3 finite numbers or more"
        raise SourceError(problem, path=path, fix="sample the points again")
    return points[:POINTS].astype(np.float32)


def read_binvox(path: Path) -> np.ndarray:
    """Return the grid of a ``.binvox`` file, bool (128, 128, 128) over x, y, z; anything else is a SourceError.

    Format: https://www.patrickmin.com/binvox/binvox.html, a header in words, then run lengths that fill x slowest, then
    z, then y.
    """
    data = read_limited(path, BINVOX_LIMIT, SourceError)
    head, found, body = data.partition(b"\ndata\n")
    lines = head.split(b"\n")
    dimensions = next((line.split()[1:] for line in lines if line.startswith(b"dim")), [])
    if not found or not lines[0].startswith(b"#binvox") or dimensions != [str(VOXELS).encode()] * 3:
        problem = f"this is not a binvox file of {VOXELS}³ voxels"
        raise SourceError(problem, path=path, fix=f"voxelise with binvox -d {VOXELS}")
    runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
    if runs[:, 1].sum(dtype=np.int64) != VOXELS**3 or (runs[:, 0] > 1).any():
        raise SourceError("the runs do not fill the grid", path=path, fix="the file is damaged: make it again")
    values = np.repeat(runs[:, 0].astype(bool), runs[:, 1])
    return values.reshape(VOXELS, VOXELS, VOXELS).transpose(0, 2, 1)
