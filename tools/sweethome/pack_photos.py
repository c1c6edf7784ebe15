"""Pack rendered photos into the archives that the repository ships: cropped, 128 px, a few kilobytes each.

Archives are only ever added, `photos-00.zip`, `photos-01.zip`, …: what a version of the benchmark was built from never
changes under it. The same raw folder gives the same bytes.

    python tools/sweethome/pack_photos.py --raw RAW                      # pack what is complete and not yet packed
    python tools/sweethome/pack_photos.py --sheet sheet.png [--first 0]  # look at what is packed
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PHOTOS = Path(__file__).resolve().parents[2] / "data" / "sweethome" / "photos"
SIZE, MARGIN, QUALITY = 128, 1.2, 88
ARCHIVE_BYTES = 6_000_000
EPOCH = (1980, 1, 1, 0, 0, 0)
COLUMNS = [
    "query_id", "shape_id", "k", "category", "truncated", "occluded", "slightly_occluded", "visible_share", "restyled",
    "azimuth", "elevation", "roll", "focal", "distance", "shift_x", "shift_y", "hdri", "hdri_rotation", "floor", "wall",
    "occluder", "attempt", "frame", "crop_x0", "crop_y0", "crop_side",
]  # fmt: skip


def crop_box(mask: np.ndarray, margin: float = MARGIN) -> tuple[int, int, int]:
    """(x0, y0, side) of a square around the mask's box, `margin` times its longer side, inside the frame.

    A square that would stick out is shifted; one larger than the frame becomes the frame.

    Raises:
        ValueError: if the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("the mask is empty: nothing to crop to")
    frame = min(mask.shape)
    low = np.array([columns[0], rows[0]])
    high = np.array([columns[-1], rows[-1]]) + 1
    side = min(frame, int(np.ceil(margin * (high - low).max())))
    start = np.floor((low + high - side) / 2).astype(int)
    x0, y0 = np.clip(start, 0, np.array(mask.shape[::-1]) - side)
    return int(x0), int(y0), side


def crop_photo(frame: Image.Image, box: tuple[int, int, int]) -> bytes:
    """JPEG of the crop, without chroma subsampling: colour matters at this size."""
    x0, y0, side = box
    small = frame.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS, (x0, y0, x0 + side, y0 + side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return out.getvalue()


def crop_mask(mask: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    """The crop's mask at SIZE: true where at least half of a pixel is covered."""
    x0, y0, side = box
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (SIZE, SIZE), Image.Resampling.BOX, (x0, y0, x0 + side, y0 + side)
    )
    return np.asarray(grey) >= 128


def mask_png(mask: np.ndarray) -> bytes:
    """PNG of one bit a pixel."""
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG", optimize=True)
    return out.getvalue()


@dataclass(frozen=True)
class Packed:
    """One photo as it goes into an archive: its row of `records.csv` and its files."""

    row: dict[str, str]
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes in the archive, entry headers and table row included."""
        return sum(len(data) + 2 * len(name) + 100 for name, data in self.files.items()) + 200


def pack_one(raw: Path, record: dict) -> Packed:
    """Crop one raw photo. The amodal mask is kept only where it differs from the visible one."""
    name = record["query_id"]
    frame = Image.open(raw / f"{name}.png")
    mask = np.asarray(Image.open(raw / f"{name}.mask.png")) > 0
    box = crop_box(mask)
    visible = crop_mask(mask, box)
    files = {f"{name}.jpg": crop_photo(frame, box), f"{name}.png": mask_png(visible)}
    amodal_path = raw / f"{name}.amodal.png"
    if amodal_path.exists():
        amodal = crop_mask(np.asarray(Image.open(amodal_path)) > 0, box)
        if (amodal != visible).any():
            files[f"{name}.amodal.png"] = mask_png(amodal)
    row = {**record, "frame": frame.width, "crop_x0": box[0], "crop_y0": box[1], "crop_side": box[2]}
    return Packed({c: _text(row[c]) for c in COLUMNS}, files)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_archive(path: Path, photos: list[Packed]) -> None:
    """A zip without compression (JPEG and PNG are compressed), sorted, with one fixed time stamp."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(p.row for p in photos)
    entries = {"records.csv": table.getvalue().encode()}
    for photo in photos:
        entries |= photo.files
    partial = path.with_suffix(".part")  # these scripts run where Blender does, without cmiclib
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[name])
    partial.replace(path)


def archives(folder: Path) -> list[Path]:
    """The archives in their order."""
    return sorted(folder.glob("photos-*.zip"))


def read_records(folder: Path) -> list[dict[str, str]]:
    """Rows of all archives, each with the `archive` it lies in."""
    rows = []
    for path in archives(folder):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("records.csv").decode()
        rows += [{**row, "archive": path.name} for row in csv.DictReader(io.StringIO(text))]
    return rows


def pack(raw: Path, folder: Path, limit: int = ARCHIVE_BYTES, last_k: int | None = None) -> list[Path]:
    """Add archives with all complete raw photos that no archive holds yet, in the order (k, query_id).

    Photos of one round lie together, so that every archive covers many shapes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {row["query_id"] for row in read_records(folder)}
    records = [json.loads(p.read_text()) for p in sorted(raw.glob("*.json"))]
    records = [r for r in records if r["query_id"] not in known and (last_k is None or r["k"] <= last_k)]
    records.sort(key=lambda r: (r["k"], r["query_id"]))
    groups: list[list[Packed]] = [[]]
    for record in records:
        photo = pack_one(raw, record)
        if groups[-1] and sum(p.size for p in groups[-1]) + photo.size > limit:
            groups.append([])
        groups[-1].append(photo)
    first = len(archives(folder))
    written = []
    for n, group in enumerate(g for g in groups if g):
        path = folder / f"photos-{first + n:02d}.zip"
        if path.exists():
            raise FileExistsError(f"{path} exists: archives are never rewritten; are some missing?")
        write_archive(path, group)
        written.append(path)
    return written


def _outline(mask: np.ndarray) -> np.ndarray:
    edge = np.zeros_like(mask)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    return edge


def sheet(folder: Path, out: Path, first: int = 0, count: int = 120, columns: int = 12) -> None:
    """Contact sheet of packed photos: outlines of the visible (red) and whole (blue) object, id and flags."""
    rows = read_records(folder)[first : first + count]
    canvas = Image.new("RGB", (columns * SIZE, -(-len(rows) // columns) * SIZE))
    draw = ImageDraw.Draw(canvas)
    for n, row in enumerate(rows):
        with zipfile.ZipFile(folder / row["archive"]) as archive:
            pixels = np.array(Image.open(io.BytesIO(archive.read(f"{row['query_id']}.jpg"))))
            for ending, colour in ((".amodal.png", (0, 0, 255)), (".png", (255, 0, 0))):
                if row["query_id"] + ending in archive.NameToInfo:
                    mask = np.array(Image.open(io.BytesIO(archive.read(row["query_id"] + ending))))
                    pixels[_outline(mask > 0)] = colour
        x, y = n % columns * SIZE, n // columns * SIZE
        canvas.paste(Image.fromarray(pixels), (x, y))
        kinds = {"T": "truncated", "O": "occluded", "S": "slightly_occluded"}
        flags = "".join(f for f, c in kinds.items() if row[c] == "true")
        draw.text((x + 2, y + 1), f"{row['query_id'].split('__', 1)[1][-18:]} {flags}", fill="yellow")
    canvas.save(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of the archives")
    parser.add_argument("--raw", type=Path, help="output folder of render_photos.py: pack what is new")
    parser.add_argument("--last-k", type=int, help="pack photo numbers up to this one only")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of packed photos")
    parser.add_argument("--first", type=int, default=0, help="first photo of the sheet")
    args = parser.parse_args()
    if args.raw:
        for path in pack(args.raw, args.photos, last_k=args.last_k):
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
        rows = read_records(args.photos)
        size = sum(p.stat().st_size for p in archives(args.photos))
        print(f"{len(rows)} photos, {size / 1e6:.1f} MB, {size / max(1, len(rows)) / 1e3:.1f} kB each")
    if args.sheet:
        sheet(args.photos, args.sheet, args.first)


if __name__ == "__main__":
    main()
