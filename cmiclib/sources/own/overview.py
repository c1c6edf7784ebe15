"""What a prepared folder of meshes looks like: a sheet with a view of each shape, and which shapes may lie on a side.

Files say nothing about the axis that points up, and no photo finds a chair on its back. A shape is suspected where a
linear score finds its z-axis more likely to point up than its y-axis; nothing is ever turned. The score was fitted to
half of Sweet Home 3D's 206 pieces of furniture. Suspected were of

    170 meshes of Pix3D                          0.6 % upright, 89 % with +z up
    the other half of Sweet Home 3D's furniture  0 %   upright, 73 % with +z up
    its 313 other things, lamps to tools         8 %   upright, 33 % with +z up
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...benchmark import Benchmark
from ...io.atomic import write_atomically
from ...io.formats.gltf import read_own

SHEET, LYING = "contact-sheet.jpg", "lying.txt"
MOST = 3000
"""Shapes on a sheet, those that may lie first."""
VIEW = 1
"""The view that it shows: from a little to the right of the front."""
TILE, LINE, COLUMNS = 120, 14, 10
POINTS = 6000
LAYER = 0.03
"""Share of the height that counts as its bottom, and as its top."""
WEIGHTS = np.array([3.9, 3.7, -2.6, 6.2, -15.4, 6.4, 2.5])
SURE = 2.0
"""By how much the score of another axis must be higher."""


def write_overview(benchmark: Benchmark) -> None:
    """Write the sheet, and a list of the shapes that may lie, into a folder that was just prepared."""
    ids = benchmark.shapes.shape_id
    meshes = {name: benchmark.mesh_path(name).read_bytes() for name in ids}
    lying = {name for name, data in meshes.items() if data and may_lie(read_own(data)[0])}
    write_atomically(benchmark.path / LYING, lambda path: path.write_text("\n".join(sorted(lying)), "utf-8"))
    rows = sorted(range(len(ids)), key=lambda row: ids[row] not in lying)[:MOST]
    across, down = min(COLUMNS, len(rows)), -(-len(rows) // COLUMNS)
    sheet = Image.new("L", (across * TILE, down * (TILE + LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for place, row in enumerate(rows):
        name = ids[row]
        x, y = place % COLUMNS * TILE, place // COLUMNS * (TILE + LINE)
        sheet.paste(Image.fromarray(benchmark.views[row, VIEW]).resize((TILE, TILE)), (x, y))
        text = f"lying? {name[-14:]}" if name in lying else name[-21:]
        draw.text((x + 2, y + TILE), text, fill="black", font=font)
        if name in lying:
            draw.rectangle((x, y, x + TILE - 1, y + TILE + LINE - 1), outline="black", width=3)
    write_atomically(benchmark.path / SHEET, lambda path: sheet.save(path, "JPEG", quality=85))


def say_overview(benchmark: Benchmark) -> list[str]:
    """Return what :func:`write_overview` found, as lines to print; none where it wrote nothing."""
    sheet, lying = benchmark.path / SHEET, benchmark.path / LYING
    if not sheet.is_file():
        return []
    names = lying.read_text("utf-8").splitlines() if lying.is_file() else []
    lines = [f"a view of each shape: {sheet}"]
    if names:
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        lines.append(
            f"perhaps lying: {', '.join(names[:12])}{more}. If the sheet shows that they do, turn them, such as by "
            "--up '*.stl=+z' --front '*.stl=-y'; nothing is turned without"
        )
    return lines


def may_lie(corners: np.ndarray) -> bool:
    """Tell whether a mesh (F, 3, 3), +y up, looks as if +z were its upper end."""
    corners = corners.astype(np.float64)
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(crosses, axis=1)  # (F,)
    random = np.random.default_rng(0)
    faces = random.choice(len(areas), POINTS, p=areas / areas.sum())
    u, v = random.random((2, POINTS, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = corners[faces].transpose(1, 0, 2)
    points, slopes = a + u * (b - a) + v * (c - a), np.abs(crosses[faces]) / areas[faces, None]
    extent = np.ptp(corners, axis=(0, 1))
    heights = (points - corners.min(axis=(0, 1))) / np.maximum(extent, 1e-9)  # (P, 3) in [0, 1]
    scores = [WEIGHTS @ _signs(points, heights, slopes, extent, axis) for axis in (1, 2)]
    return bool(scores[1] - scores[0] > SURE)


def _signs(points: np.ndarray, heights: np.ndarray, slopes: np.ndarray, extent: np.ndarray, axis: int) -> np.ndarray:
    """Return what tells whether an axis points up: where the surface is, how wide it stands, what lies level."""
    height, level = heights[:, axis], slopes[:, axis] > 0.97
    ground = np.delete(points, axis, axis=1)
    low, high = height < LAYER, height > 1 - LAYER
    whole = max(_spread(ground), 1e-9)
    return np.array([
        height.mean(), _spread(ground[low]) / whole, _spread(ground[high]) / whole, level.mean(),
        (level & low).mean(), (level & high).mean(), extent[axis] / extent.max(),
    ])  # fmt: skip


def _spread(points: np.ndarray) -> float:
    """Return the area around points (P, 2), 0 where they lie on a line."""
    from scipy.spatial import ConvexHull, QhullError  # only where a folder is new

    try:
        return float(ConvexHull(points).volume) if len(points) > 2 else 0.0
    except QhullError:
        return 0.0
