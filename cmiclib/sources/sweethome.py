"""The shipped benchmark: furniture models of Sweet Home 3D, path-traced photos, unpacked from `data/sweethome`.

Its photos are synthetic and show the very meshes of the gallery, which makes it easier than real photos.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..benchmark import Benchmark
from ..benchmark.writer import BenchmarkWriter
from ..errors import SourceError
from ..geometry import check_mesh, sample_points
from ..io.files import check_regular, parse_table, read_member, read_table, reason
from ..io.images import decode_image
from ..io.lock import in_turn
from ..io.meshes import parse_scene
from ..io.protocol import ViewProtocol
from . import Prepared, PrepareOptions
from .building import build
from .meshes import MeshFile, Shape
from .photos import Cut, PhotoFile

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "sweethome"
PREPARED = ROOT / "data" / "prepared"
UNSEEN_SHARE = 0.15
SUBSET_CATEGORIES = ("bed", "chair", "sofa", "table")  # the paper's four
Archive = dict[str, zipfile.ZipFile]  # file name → the zip that holds it
FIX = "check out data/sweethome of the repository again"
FLAGS = ["truncated", "occluded", "slightly_occluded"]
NUMBERS = ["azimuth", "elevation", "focal", "visible_share"]
OPTIONS = PrepareOptions(size=128)
SHIPPED_COLUMNS = ("shape_id", "category", "name", "creator", "licence", "source", "group", "distractor")
ARCHIVE_LIMIT = 1 << 30  # bytes of a zip
MEMBER_LIMIT = 64 << 20  # bytes of one file in an archive, unpacked
_VERSION = 1  # raise it when the same archives are to be unpacked in another way


def open_sweethome(prepared_root: Path | None = None, shapes: int | None = None, jobs: int = 2) -> Benchmark:
    """Open the shipped benchmark; unpack it by `prepare_sweethome` first if these very archives have not been.

    The unpacked benchmarks are below ``prepared_root``, default: `data/prepared`.
    """
    root = prepared_root or PREPARED
    digest = hashlib.sha256(str(_VERSION).encode())
    for file in (SHIPPED / "shapes.csv", *sorted(SHIPPED.glob("shapes/*.zip")), *sorted(SHIPPED.glob("photos/*.zip"))):
        digest.update(file.name.encode() + file.read_bytes())
    path = root / f"sweethome-{'all' if shapes is None else shapes}-{digest.hexdigest()[:10]}"
    with in_turn(root / "sweethome.lock"):  # whoever comes second waits, then finds it done
        if not (path / "benchmark.json").is_file():
            prepare_sweethome(path, PrepareOptions(size=128, jobs=jobs), shapes=shapes)
    return Benchmark.open(path, verify=False)


def prepare_sweethome(
    output: Path, options: PrepareOptions = OPTIONS, *, source: Path | None = None, shapes: int | None = None
) -> Prepared:
    """Unpack the shipped archives of ``source``, default: `data/sweethome`, into the prepared format.

    Views, photos and masks are as shipped (128 px) or resized. The 10,000 points of a shape are sampled here from the
    shipped mesh (seed 0); the voxels were made from the original one. ``shapes`` unpacks only this many, always the
    same ones: of the categories bed, chair, sofa and table in turn, a sixth of them unseen, and a sixth distractors.
    ``options.jobs`` are threads. Archives that are missing or damaged are a SourceError.
    """
    source = source or SHIPPED
    with _readable(source, "the shipped archives are missing or damaged"):
        if not (source / "shapes.csv").is_file():
            raise FileNotFoundError("there is no shapes.csv")
        table = read_table(source / "shapes.csv", SHIPPED_COLUMNS, SourceError, FIX)
        archives = {kind: _members(source / "shapes", kind) for kind in ("views", "meshes", "voxels")}
        photos = _members(source / "photos", "photos")
        records = _records(source / "photos", ["query_id", "shape_id", "category", *FLAGS])
    if records.empty:
        raise SourceError("the shipped archives are missing: there is no archive of photos", path=source, fix=FIX)
    unseen = unseen_groups(table)
    if shapes is not None:
        table = _subset(table, unseen, shapes)
    make, cut = partial(_unpack_shape, archives=archives), partial(_unpack_photo, photos=photos)
    columns = list(SHIPPED_COLUMNS[:-1])
    meshes = [
        MeshFile(path=_archive(archives["views"], f"{row[0]}.png"), make=make, **dict(zip(columns, row, strict=True)))
        for row in table[columns].to_numpy()
    ]
    seen = dict(zip(table["shape_id"], ~table["group"].isin(unseen), strict=True))
    records = records[records["shape_id"].isin(table["shape_id"])].sort_values("query_id")
    queries = [
        PhotoFile(
            row["query_id"], _archive(photos, f"{row['query_id']}.jpg"), (row["shape_id"],), row["category"],
            split_of(_number(row["query_id"]), seen[row["shape_id"]]), photo=f"{row['query_id']}.jpg",
            source="rendered", flags=tuple(name for name in FLAGS if row[name] in ("True", "true", "1")), cut=cut,
        )
        for row in records.to_dict("records")
    ]  # fmt: skip
    writer = BenchmarkWriter(
        output, name="sweethome", size=options.size,
        licence="CC0-1.0 and CC-BY-3.0, see data/sweethome/ATTRIBUTION.csv",
        source="Sweet Home 3D furniture libraries; photos path-traced with Blender Cycles",
        extra={"subset": shapes, "photos": len(records)},
    )  # fmt: skip
    return build(writer, meshes, queries, options, threads=True)


def photo_facts(source: Path | None = None) -> pd.DataFrame:
    """Read how the photos of `sweethome` were taken: a row for each, indexed by `query_id`; none without archives.

    The columns are `azimuth` (degrees, 0 looks at the front, 90 at the side that faces +x), `elevation` (degrees above
    the horizon), `focal` (mm on a 36 mm sensor), `visible_share` (of the silhouette, in [0, 1]), and `restyled`,
    whether colours and roughness of the model were drawn anew. ``source`` has the folder `photos`; default: as shipped.
    """
    folder = (source or SHIPPED) / "photos"
    with _readable(folder, "the records of photos cannot be read"):
        facts = _records(folder, ["query_id", *NUMBERS, "restyled"]).set_index("query_id")
        return facts.astype(dict.fromkeys(NUMBERS, float)).assign(restyled=facts["restyled"] == "true")


@contextmanager
def _readable(path: Path, problem: str) -> Iterator[None]:
    """Turn what damaged archives raise into an error of the source."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise SourceError(f"{problem} ({reason(error)})", path=path, fix=FIX) from None


def split_of(number: int, seen: bool) -> str:
    """Return the split of a shape's photo `number` (00 to 11); it does not change when photos are added."""
    if not seen:
        return "val" if number % 2 else "test"
    return {2: "test", 3: "val"}.get(number % 6, "train")


def unseen_groups(table: pd.DataFrame) -> set[str]:
    """Return the groups that no training photo shows: 15 % of each category's, chosen by the hash of their name.

    The table is `shapes.csv` as shipped; distractors have no photos and do not count.
    """
    photographed = table[table["distractor"] != "True"].drop_duplicates("group")
    groups = [_by_hash(part["group"]) for _, part in photographed.groupby("category")]
    return {name for names in groups for name in names[: round(UNSEEN_SHARE * len(names))]}


def _subset(table: pd.DataFrame, unseen: set[str], count: int) -> pd.DataFrame:
    """Return `count` rows: a sixth distractors, a sixth unseen, the rest seen, each kind by category in turn."""
    distractor = table["distractor"] == "True"
    paper = table["category"].isin(SUBSET_CATEGORIES) & ~distractor
    new = table["group"].isin(unseen)
    chosen = [
        *_in_turn(table[distractor], count // 6),
        *_in_turn(table[paper & new], count // 6),
        *_in_turn(table[paper & ~new], count - 2 * (count // 6)),
    ]
    if len(chosen) != count:
        raise SourceError(f"no subset of {count} shapes can be made", fix="ask for 12 to 48 shapes, or for all")
    return table[table["shape_id"].isin(chosen)]


def _in_turn(table: pd.DataFrame, count: int) -> list[str]:
    """Return `count` shape ids by hash, one of each category after the other."""
    columns = [_by_hash(part["shape_id"]) for _, part in table.groupby("category")]
    return [name for names in zip_longest(*columns) for name in names if name][:count]


def _by_hash(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def _number(query_id: str) -> int:
    try:
        return int(query_id.rpartition("__")[2])
    except ValueError:
        raise SourceError(f"'{query_id:.60}' does not end with the number of a photo", fix=FIX) from None


def _unpack_shape(mesh: MeshFile, size: int, protocol: ViewProtocol, archives: dict[str, Archive]) -> Shape:
    name = mesh.shape_id
    strip, glb = _read(archives["views"], f"{name}.png"), _read(archives["meshes"], f"{name}.glb")
    views = np.asarray(decode_image(io.BytesIO(strip), Path(f"{name}.png")))
    if views.ndim != 2 or views.dtype != np.uint8 or views.shape[0] % views.shape[1]:
        raise SourceError(f"the views of '{name}' are not a column of gray squares", fix=FIX)
    squares = views.reshape(-1, views.shape[1], views.shape[1])
    views = np.stack([_resized(Image.fromarray(view), size) for view in squares])  # (12, S, S)
    model = parse_scene(glb, Path(f"{name}.glb"), process=True).to_mesh()
    check_mesh(model, f"{name}.glb")
    voxels = np.frombuffer(_read(archives["voxels"], f"{name}.bits"), np.uint8)
    return Shape(views, sample_points(model), voxels, glb)


def _unpack_photo(photo: PhotoFile, size: int, photos: Archive) -> Cut:
    rgb = _image(photos, f"{photo.query_id}.jpg", "RGB", size).transpose(2, 0, 1)
    mask = _image(photos, f"{photo.query_id}.png", "L", size)
    whole = f"{photo.query_id}.amodal.png"  # shipped only where something hides a part
    amodal = _image(photos, whole, "L", size) if whole in photos else mask
    return Cut(np.concatenate([rgb, mask[None]]), amodal=amodal)


def _image(archive: Archive, name: str, mode: str, size: int) -> np.ndarray:
    return _resized(decode_image(io.BytesIO(_read(archive, name)), Path(name)).convert(mode), size)


def _resized(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image if image.width == size else image.resize((size, size), Image.Resampling.BILINEAR))


def _members(folder: Path, kind: str) -> Archive:
    """Return file name → the archive that holds it; a later archive wins."""
    return {name: archive for archive in _archives(folder, kind) for name in archive.namelist()}


def _archives(folder: Path, kind: str) -> list[zipfile.ZipFile]:
    paths = sorted(folder.glob(f"{kind}-*.zip"))
    for path in paths:
        check_regular(path, SourceError, ARCHIVE_LIMIT, FIX)
    return [zipfile.ZipFile(path) for path in paths]


def _records(folder: Path, columns: list[str]) -> pd.DataFrame:
    """Return these columns of the archives' `records.csv`, as text; of two rows for a photo the later one counts."""
    tables = [pd.DataFrame(columns=columns, dtype=str)]
    for archive in _archives(folder, "photos"):
        records = read_member(archive, "records.csv", MEMBER_LIMIT, SourceError, FIX)
        tables.append(parse_table(records, Path(archive.filename or ""), columns, SourceError, FIX))
    return pd.concat(tables).drop_duplicates("query_id", keep="last")


def _archive(archive: Archive, name: str) -> Path:
    """Return the zip that holds a file, or else the name, for the error that follows."""
    return Path(archive[name].filename or "") if name in archive else Path(name)


def _read(archive: Archive, name: str) -> bytes:
    if name not in archive:
        raise SourceError(f"'{name}' is in none of the shipped archives", fix=FIX)
    return read_member(archive[name], name, MEMBER_LIMIT, SourceError, FIX)
