"""The shipped benchmark: furniture models of Sweet Home 3D, path-traced photos, unpacked from `data/sweethome`.

Its photos are synthetic and show the very meshes of the gallery, which makes it easier than real photos.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from ..benchmark import Benchmark
from ..benchmark.writer import BenchmarkWriter
from ..errors import CMICError, SourceError
from ..geometry import check_mesh, sample_points
from ..io.files import check_regular, parse_table, read_member, read_table, reason
from ..io.images import decode_image
from ..io.lock import in_turn
from ..io.meshes import parse_scene
from .workers import results

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "sweethome"
PREPARED = ROOT / "data" / "prepared"
UNSEEN_SHARE = 0.15
SUBSET_CATEGORIES = ("bed", "chair", "sofa", "table")  # the paper's four
Archive = dict[str, zipfile.ZipFile]  # file name → the zip that holds it
FIX = "check out data/sweethome of the repository again"
SHIPPED_COLUMNS = ("shape_id", "category", "name", "creator", "licence", "source", "group", "distractor")
ARCHIVE_LIMIT = 1 << 30  # bytes of a zip
MEMBER_LIMIT = 64 << 20  # bytes of one file in an archive, unpacked
_VERSION = 1  # raise it when the same archives shall be unpacked in another way


def open_sweethome(prepared_root: Path | None = None, shapes: int | None = None, jobs: int = 2) -> Benchmark:
    """Open the shipped benchmark; unpack it first if these very archives have not been unpacked before.

    Args:
        prepared_root: holds the unpacked benchmarks, one folder for each state of the archives; default:
            `data/prepared` of the repository.
        shapes: a small subset, see `prepare_sweethome`.
        jobs: threads that unpack.

    Raises:
        SourceError, StorageError: as `prepare_sweethome`.
    """
    root = prepared_root or PREPARED
    digest = hashlib.sha256(str(_VERSION).encode())
    for file in _shipped_files(SHIPPED):
        digest.update(file.name.encode() + file.read_bytes())
    path = root / f"sweethome-{'all' if shapes is None else shapes}-{digest.hexdigest()[:10]}"
    with in_turn(root / "sweethome.lock"):  # whoever comes second waits, then finds it done
        if not (path / "benchmark.json").is_file():
            prepare_sweethome(path, shapes=shapes, jobs=jobs)
    return Benchmark.open(path, verify=False)


def prepare_sweethome(
    output: Path,
    source: Path | None = None,
    size: int = 128,
    shapes: int | None = None,
    jobs: int = 2,
    progress: bool = True,
) -> Benchmark:
    """Unpack the shipped archives into the prepared format.

    Views, photos and masks are as shipped (128 px). The 10,000 points of a shape are sampled here from the
    shipped mesh (seed 0); the voxels were made from the original one.

    Args:
        output: the folder to write; must not exist yet.
        source: the folder with the archives; default: `data/sweethome` of the repository.
        size: side of views and photos in pixels; other than 128 resizes.
        shapes: only so many, always the same ones: of the categories bed, chair, sofa and table in turn, a
            sixth of them unseen, and a sixth distractors. None: all.
        jobs: threads.
        progress: show a bar.

    Raises:
        SourceError: archives are missing or damaged.
        StorageError: no space; nothing half-written stays.
    """
    source = source or SHIPPED
    try:
        if not (source / "shapes.csv").is_file():
            raise FileNotFoundError("there is no shapes.csv")
        table = read_table(source / "shapes.csv", SHIPPED_COLUMNS, SourceError, FIX)
        archives = {kind: _members(source / "shapes", kind) for kind in ("views", "meshes", "voxels")}
        photos, records = _members(source / "photos", "photos"), _records(source / "photos")
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"the shipped archives are missing or damaged ({reason(error)})", path=source, fix=FIX
        ) from None
    unseen = unseen_groups(table)
    if shapes is not None:
        table = _subset(table, unseen, shapes)
    records = records[records["shape_id"].isin(table["shape_id"])].sort_values("query_id")
    writer = BenchmarkWriter(
        Path(output), name="sweethome", size=size, licence="CC0-1.0 and CC-BY-3.0, see data/sweethome/ATTRIBUTION.csv",
        source="Sweet Home 3D furniture libraries; photos path-traced with Blender Cycles",
        extra={"subset": shapes, "photos": len(records)},
    )  # fmt: skip
    _add_shapes(writer, table, archives, jobs, progress)
    seen = dict(zip(table["shape_id"], ~table["group"].isin(unseen), strict=True))
    _add_photos(writer, records, photos, seen, progress)
    return writer.finish()


def _add_shapes(
    writer: BenchmarkWriter, table: pd.DataFrame, archives: dict[str, Archive], jobs: int, progress: bool
) -> None:
    todo = [row for row in table.to_dict("records") if not writer.has_shape(row["shape_id"])]
    unpack = partial(_unpack_shape, archives=archives, size=writer.size)
    with results(unpack, todo, jobs=jobs, what="shapes", progress=progress, threads=True) as unpacked:
        for row, result in unpacked:
            if isinstance(result, CMICError):
                raise result
            views, points, mesh = result
            voxels = np.frombuffer(_read(archives["voxels"], f"{row['shape_id']}.bits"), np.uint8)
            facts = {k: row[k] for k in ("name", "creator", "licence", "source", "group")}
            writer.add_shape(row["shape_id"], row["category"], views, **facts, points=points, voxels=voxels, mesh=mesh)


def _add_photos(
    writer: BenchmarkWriter, records: pd.DataFrame, photos: Archive, seen: dict[str, bool], progress: bool
) -> None:
    for record in tqdm(records.to_dict("records"), "photos", disable=not progress):
        query_id, shape_id = record["query_id"], record["shape_id"]
        if writer.has_query(query_id):
            continue
        rgb = _image(photos, f"{query_id}.jpg", "RGB", writer.size).transpose(2, 0, 1)
        mask = _image(photos, f"{query_id}.png", "L", writer.size)
        whole = f"{query_id}.amodal.png"  # shipped only where something hides a part
        amodal = _image(photos, whole, "L", writer.size) if whole in photos else mask
        flags = {name: record[name] in ("True", "true", "1") for name in ("truncated", "occluded", "slightly_occluded")}
        writer.add_query(
            query_id, shape_id, record["category"], np.concatenate([rgb, mask[None]]), amodal=amodal,
            split=split_of(_number(query_id), seen[shape_id]), seen=seen[shape_id], **flags,
            photo=f"{query_id}.jpg", source="rendered",
        )  # fmt: skip


def split_of(number: int, seen: bool) -> str:
    """Return the split of a shape's photo `number` (00 to 11); it does not change when photos are added."""
    if not seen:
        return "val" if number % 2 else "test"
    return {2: "test", 3: "val"}.get(number % 6, "train")


def unseen_groups(table: pd.DataFrame) -> set[str]:
    """Return the groups that no training photo shows: 15 % of each category's, chosen by the hash of their name.

    Args:
        table: `shapes.csv` as shipped; distractors have no photos and do not count.
    """
    photographed = table[table["distractor"] != "True"].drop_duplicates("group")
    unseen: set[str] = set()
    for _, part in photographed.groupby("category"):
        unseen.update(_by_hash(part["group"])[: round(UNSEEN_SHARE * len(part))])
    return unseen


def _subset(table: pd.DataFrame, unseen: set[str], count: int) -> pd.DataFrame:
    """`count` rows: a sixth distractors, a sixth unseen, the rest seen, each kind by category in turn."""
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
    """Shape ids by hash, one of each category after the other, the first `count`."""
    columns = [_by_hash(part["shape_id"]) for _, part in table.groupby("category")]
    longest = max(map(len, columns), default=0)
    return [ids[i] for i in range(longest) for ids in columns if i < len(ids)][:count]


def _by_hash(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def _number(query_id: str) -> int:
    try:
        return int(query_id.rpartition("__")[2])
    except ValueError:
        raise SourceError(f"'{query_id:.60}' does not end with the number of a photo", fix=FIX) from None


def _unpack_shape(
    row: Mapping[Any, Any], archives: Mapping[str, Archive], size: int
) -> tuple[np.ndarray, np.ndarray, bytes]:
    shape_id = row["shape_id"]
    strip, glb = _read(archives["views"], f"{shape_id}.png"), _read(archives["meshes"], f"{shape_id}.glb")
    views = np.asarray(decode_image(io.BytesIO(strip), Path(f"{shape_id}.png")))
    if views.ndim != 2 or views.dtype != np.uint8 or views.shape[0] % views.shape[1]:
        raise SourceError(f"the views of '{shape_id}' are no column of gray squares", fix=FIX)
    views = views.reshape(-1, views.shape[1], views.shape[1])  # (12, S, S)
    if views.shape[1] != size:
        views = np.stack([_resized(Image.fromarray(view), size) for view in views])
    mesh = parse_scene(glb, Path(f"{shape_id}.glb"), process=True).to_mesh()
    check_mesh(mesh, f"{shape_id}.glb")
    return views, sample_points(mesh), glb


def _image(archive: Archive, name: str, mode: str, size: int) -> np.ndarray:
    return _resized(decode_image(io.BytesIO(_read(archive, name)), Path(name)).convert(mode), size)


def _resized(image: Image.Image, size: int) -> np.ndarray:
    return (
        np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) if image.width != size else np.asarray(image)
    )


def _shipped_files(source: Path) -> Sequence[Path]:
    return [source / "shapes.csv", *sorted(source.glob("shapes/*.zip")), *sorted(source.glob("photos/*.zip"))]


def _members(folder: Path, kind: str) -> Archive:
    """File name → the archive that holds it; a later archive wins."""
    paths = sorted(folder.glob(f"{kind}-*.zip"))
    for path in paths:
        check_regular(path, SourceError, ARCHIVE_LIMIT, FIX)
    archives = [zipfile.ZipFile(path) for path in paths]
    return {name: archive for archive in archives for name in archive.namelist()}


def _records(folder: Path) -> pd.DataFrame:
    """All rows of the archives' `records.csv`, the later ones winning, all values as text."""
    columns = ["query_id", "shape_id", "category", "truncated", "occluded", "slightly_occluded"]
    tables = []
    if not (paths := sorted(folder.glob("photos-*.zip"))):
        raise ValueError("there is no archive of photos")
    for path in paths:
        check_regular(path, SourceError, ARCHIVE_LIMIT, FIX)
        with zipfile.ZipFile(path) as archive:
            records = read_member(archive, "records.csv", MEMBER_LIMIT, SourceError, FIX)
        tables.append(parse_table(records, path, columns, SourceError, FIX))
    return pd.concat(tables).drop_duplicates("query_id", keep="last")


def _read(archive: Archive, name: str) -> bytes:
    if name not in archive:
        raise SourceError(f"'{name}' is in none of the shipped archives", fix=FIX)
    return read_member(archive[name], name, MEMBER_LIMIT, SourceError, FIX)
