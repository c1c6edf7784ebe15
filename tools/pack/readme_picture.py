"""Draw the README's picture from the shipped model and the shipped test photos.

    python tools/pack/readme_picture.py

Each row is a photo and the first five shapes found for it, the right one framed. A rule chooses the rows: the photo of
median margin of each of the two most photographed categories, and the median one of those whose own shape is not first.
The photos are rendered from models under CC0 and CC BY; data/sweethome/ATTRIBUTION.csv names who made them.
"""

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from cmiclib.book import open_benchmark
from cmiclib.evaluation.examples import examples, typical
from cmiclib.evaluation.report import score_index
from cmiclib.index import ShapeIndex
from cmiclib.sources.sweethome import ROOT

TARGET, LIMIT = ROOT / "book" / "_static" / "retrieval.webp", 25_000  # bytes
SIDE, GAP, HEAD, FOUND = 112, 8, 22, 5
INK, RIGHT, WRONG = "#333333", "#009e73", "#d55e00"


def main() -> None:
    """Write ``book/_static/retrieval.webp``, and say which photos it shows."""
    benchmark = open_benchmark(ROOT, "sweethome", "demo")
    index = ShapeIndex.load(ROOT / "data" / "browser" / "sweethome.safetensors")
    table = score_index(index, benchmark, "test").table()
    failed = table[table.top1 == 0].sort_values(["margin", "query_id"])
    chosen = pd.concat([typical(table, 2), failed.iloc[[len(failed) // 2]]])
    shown = examples(index, benchmark, chosen.row.to_numpy(), FOUND)
    wide, high = (FOUND + 1) * (SIDE + GAP) + 3 * GAP, HEAD + len(chosen) * (SIDE + GAP) + GAP
    picture = Image.new("RGB", (wide, high), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for column, title in enumerate(["photo", *(f"{place}." for place in range(1, FOUND + 1))]):
        draw.text((left(column) + SIDE // 2, HEAD // 2), title, fill=INK, font=font, anchor="mm")
    for row in range(len(chosen)):
        top = HEAD + row * (SIDE + GAP) + GAP // 2
        paste(picture, shown.photos[row, :3].transpose(1, 2, 0), left(0), top)
        for place in range(FOUND):
            paste(picture, shown.found[row, place], left(place + 1), top)
            right = bool(shown.right[row, place])
            if right or place == 0:
                color = RIGHT if right else WRONG
                corner = left(place + 1), top
                draw.rectangle([*corner, corner[0] + SIDE - 1, top + SIDE - 1], outline=color, width=3)
                draw.text((corner[0] + 8, top + 5), "✓" if right else "✗", fill=color, font=signs(18))
    picture.save(TARGET, quality=70, method=6)
    size = TARGET.stat().st_size
    print(f"{TARGET.relative_to(ROOT)}: {wide} × {high}, {size / 1000:.1f} kB; {', '.join(chosen.query_id)}")
    if size > LIMIT:
        raise SystemExit(f"more than {LIMIT / 1000:.0f} kB")


def left(column: int) -> int:
    """Return where a column begins; there is room between the photo and what was found."""
    return GAP // 2 + column * (SIDE + GAP) + (2 * GAP if column else 0)


def paste(picture: Image.Image, pixels: np.ndarray, x: int, y: int) -> None:
    """Put (S, S) gray or (S, S, 3) RGB pixels into a picture."""
    tile = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    picture.paste(tile.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))


def signs(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's font, which has a tick and a cross."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


if __name__ == "__main__":
    main()
