"""The authors' released archive, in its own layout, to a prepared benchmark.

::

    ROOT/<name>_train.json, <name>_test.json   lists of {"img", "mask", "category", "model", …}; paths are below ROOT
    ROOT/rendering_<name>.pkl                  dict[category][instance] → 12 gray views, PIL images or uint8 arrays
    ROOT/model_std_bin128/<category>/<instance>.binvox     if there: voxels
    ROOT/model_std_ptc10k_npy/<category>/<instance>.npy    if there: at least 10,000 points

Photos are cropped already. The instance is the last but one component of ``model``. The gallery is everything in the
renderings, as in the released evaluation. The archive has no validation photos: a share of the training photos, chosen
by the hash of their names, is taken for it.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..benchmark import Benchmark
from ..benchmark.checks import usable_id
from ..benchmark.writer import BenchmarkWriter, facts_digest
from ..errors import SourceError
from ..geometry import pack_voxels
from ..io.files import check_inside, read_array, read_json, read_limited, shown
from ..io.images import read_mask, read_photo, square_crop
from ..io.pickles import StandIn, load_pickle
from .binvox import read_binvox
from .own.listings import hash_share, inside

VIEWS = 12
POINTS = 10_000
JSON_LIMIT, PICKLE_LIMIT = 1 << 28, 8 << 30
MASK_FOLDERS = {"pix3d": "mask_ocrnet"}
"""The folder that the released training code puts in place of a training mask's first one; ``mask`` elsewhere."""


def prepare_release(
    root: str | Path,
    output: str | Path,
    *,
    size: int = 224,
    val: float = 0.1,
    allow_missing: bool = False,
    progress: bool = True,
) -> Benchmark:
    """Turn one benchmark of the authors' archive, such as ``data/pix3d``, into a prepared benchmark.

    Args:
        root: the folder with the two lists and the renderings.
        output: the folder to write; it must not exist yet.
        size: side of photos and views in pixels.
        val: share of the training photos that becomes the validation part.
        allow_missing: leave out photos whose files are missing, and say how many.
        progress: show a bar.

    Raises:
        SourceError: files are missing or damaged, or a photo's shape is not in the renderings; all are listed.
        StorageError: no space; nothing half-written stays.
    """
    root = Path(root)
    name, lists = _find_lists(root)
    gallery = read_renderings(_only(root, "rendering_*.pkl"))
    photos = [photo for split, file in lists.items() for photo in _photos(root, name, split, file, val)]
    problems = [problem for photo in photos for problem in _problems(photo, gallery)]
    if problems and not allow_missing:
        raise SourceError(
            f"{len(problems)} problems: {'; '.join(problems[:8])}{'; …' if len(problems) > 8 else ''}",
            path=root,
            fix="unpack the archive again, or leave these photos out with --allow-missing",
        )
    writer = BenchmarkWriter(
        Path(output), name=name, source="released archive of CMIC", licence="as the archive states", size=size,
        extra={"photos": facts_digest([(photo["query_id"], photo["shape_id"], photo["split"]) for photo in photos])},
    )  # fmt: skip
    for shape_id, views in tqdm(gallery.items(), "shapes", disable=not progress):
        if not writer.has_shape(shape_id):
            resized = np.stack([_resize(view, size) for view in views])
            category = shape_id.partition("/")[0]
            writer.add_shape(
                shape_id, category, resized, points=_points(root, shape_id), voxels=_voxels(root, shape_id)
            )
    kept = [photo for photo in photos if not _problems(photo, gallery)]
    trained = {photo["shape_id"] for photo in kept if photo["split"] == "train"}
    for photo in tqdm(kept, "photos", disable=not progress):
        if not writer.has_query(photo["query_id"]):
            rgb = read_photo(photo["img"])
            crop = square_crop(rgb, read_mask(photo["mask"], rgb), (0, 0, *rgb.shape[1::-1]), margin=0, size=size)
            writer.add_query(
                photo["query_id"], photo["shape_id"], photo["category"], crop, split=photo["split"],
                seen=photo["shape_id"] in trained, photo=photo["photo"], source=name,
            )  # fmt: skip
    return writer.finish()


class _Picture(StandIn):
    """A stand-in for a PIL image."""

    array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        _, mode, (width, height), _, data = state[:5]
        if mode != "L" or not isinstance(data, bytes) or len(data) != width * height:
            raise ValueError(f"it holds a picture of mode {shown(mode)}; views are gray")
        self.array = np.frombuffer(data, np.uint8).reshape(height, width)


def _new_picture(*_: Any) -> _Picture:
    return _Picture()


PICTURES: dict[tuple[str, str], Callable[..., Any]] = {
    ("PIL.Image", "Image"): _Picture,
    ("PIL.PngImagePlugin", "PngImageFile"): _Picture,
    ("PIL.JpegImagePlugin", "JpegImageFile"): _Picture,
    ("copyreg", "_reconstructor"): _new_picture,
    ("copy_reg", "_reconstructor"): _new_picture,
    ("builtins", "object"): StandIn,
    ("__builtin__", "object"): StandIn,
}


def read_renderings(path: Path) -> dict[str, list[np.ndarray]]:
    """Read the pickle of views; only gray images and uint8 arrays are ever built from it.

    Returns:
        ``category/instance`` → 12 uint8 (H, W), in the order of the file.

    Raises:
        SourceError: missing, damaged, or it holds something else.
    """
    content = load_pickle(read_limited(path, PICKLE_LIMIT, SourceError), path, SourceError, PICTURES)
    fix = "get the archive from its authors again"
    if not isinstance(content, dict) or not all(isinstance(shapes, dict) for shapes in content.values()):
        raise SourceError("it does not hold views by category and instance", path=path, fix=fix)
    gallery = {}
    for category, shapes in content.items():
        for instance, views in shapes.items():
            try:
                arrays = [np.asarray(view.array if isinstance(view, _Picture) else view) for view in views]
            except TypeError:
                arrays = []
            if len(arrays) != VIEWS or any(a.ndim != 2 or a.dtype != np.uint8 or a.size == 0 for a in arrays):
                raise SourceError(
                    f"{shown(category)}, {shown(instance)} does not have {VIEWS} gray views", path=path, fix=fix
                )
            name = f"{category}/{instance}" if isinstance(category, str) and isinstance(instance, str) else ""
            if not usable_id(name):
                raise SourceError(f"{shown(category)} and {shown(instance)} are no names of shapes", path=path, fix=fix)
            gallery[name] = arrays
    return gallery


def _find_lists(root: Path) -> tuple[str, dict[str, Path]]:
    train, test = _only(root, "*_train.json"), _only(root, "*_test.json")
    return train.name.removesuffix("_train.json").lower(), {"train": train, "test": test}


def _only(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        raise SourceError(
            f"{len(found)} files are called {pattern}; one is expected",
            path=root,
            fix="give the folder of one benchmark of the archive, such as data/pix3d",
        )
    check_inside(found[0], root, SourceError)
    return found[0]


def _photos(root: Path, name: str, split: str, file: Path, val: float) -> list[dict[str, Any]]:
    """Return the entries of one list with absolute paths, ids and split."""
    try:
        records = read_json(file, SourceError, "unpack the archive again", JSON_LIMIT)
        entries: list[dict[str, Any]] = [
            {key: str(record[key]) for key in ("img", "mask", "category", "model")} for record in records
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"this is no list of photos ({type(error).__name__}: {error})", path=file, fix="unpack the archive again"
        ) from None
    used: Counter[str] = Counter()
    for entry in entries:
        image, mask = inside(root, entry["img"], file, "the archive"), PurePosixPath(entry["mask"])
        if split == "train":
            mask = PurePosixPath(MASK_FOLDERS.get(name, "mask"), *mask.parts[1:])
        parts = PurePosixPath(entry["model"]).parts
        instance = parts[-2] if len(parts) > 1 else ""
        held = split == "train" and hash_share(entry["img"]) < val
        used[entry["img"]] += 1
        number = "" if used[entry["img"]] == 1 else f"#{used[entry['img']]}"
        entry |= {
            "photo": f"{split}/{entry['img']}{number}",
            "query_id": f"{split}/{PurePosixPath(entry['img']).with_suffix('')}{number}",
            "img": image,
            "mask": inside(root, str(mask), file, "the archive"),
            "shape_id": f"{entry['category']}/{instance}",
            "split": "val" if held else split,
        }
    return entries


def _problems(photo: dict[str, Any], gallery: dict[str, list[np.ndarray]]) -> list[str]:
    missing = [f"{photo[kind]} is missing" for kind in ("img", "mask") if not photo[kind].is_file()]
    unknown = [] if photo["shape_id"] in gallery else [f"{photo['photo']}: no views of {photo['shape_id']}"]
    return missing + unknown


def _resize(view: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(view).resize((size, size), Image.Resampling.BILINEAR))


def _points(root: Path, shape_id: str) -> np.ndarray | None:
    folder = root / "model_std_ptc10k_npy"
    if not folder.is_dir():
        return None
    path = folder / f"{shape_id}.npy"
    check_inside(path, root, SourceError)
    points = read_array(path, SourceError, fix="sample them again")
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < POINTS or not np.isfinite(points).all():
        raise SourceError(
            f"points {points.shape} are given; at least {POINTS} × 3 numbers are needed", path=path, fix="sample again"
        )
    return points[:POINTS].astype(np.float32)


def _voxels(root: Path, shape_id: str) -> np.ndarray | None:
    folder = root / "model_std_bin128"
    if not folder.is_dir():
        return None
    check_inside(folder / f"{shape_id}.binvox", root, SourceError)
    return pack_voxels(read_binvox(folder / f"{shape_id}.binvox"))
