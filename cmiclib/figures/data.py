"""Figures about the benchmark: shapes, photos, views, cameras, points and voxels."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from .style import BLUE, DISTRACTOR, GREEN, ORANGE, SEEN, SKY, UNSEEN, WIDTH, despine, new_figure, note, show_image

PHOTO_PARTS = {
    ("train", True): ("train", BLUE),
    ("val", True): ("validation", GREEN),
    ("test", True): ("test", ORANGE),
    ("val", False): ("validation, unseen shape", "#8fd1bd"),
    ("test", False): ("test, unseen shape", "#f5d28c"),
}


def samples(examples: Mapping[str, tuple[np.ndarray, np.ndarray]], across: int = 3) -> Figure:
    """Show a shape and some of its photos, masks outlined, for each category, ``across`` of them side by side.

    ``examples`` maps a category to a gray view (S, S) and to photos with mask (P, 4, S, S), the same P for all.
    """
    photos = len(next(iter(examples.values()))[1])
    rows = -(-len(examples) // across)
    cell = WIDTH / (across * (photos + 1))
    with new_figure(rows * (cell + 0.3), wspace=0.04, hspace=0.04, w_pad=0.03, h_pad=0.03) as figure:
        blocks = figure.subfigures(rows, across, squeeze=False).ravel()
        for block, (category, (view, pictures)) in zip(blocks, examples.items(), strict=False):
            axes = block.subplots(1, photos + 1)
            show_image(axes[0], view)
            for ax, photo in zip(axes[1:], pictures, strict=True):
                show_image(ax, photo)
            axes[0].set_title(category)
    return figure


def counts(shapes: pd.DataFrame, queries: pd.DataFrame) -> Figure:
    """Show how many shapes and photos each category has, from a benchmark's two tables."""
    owner = queries.assign(shape_id=queries.shape_id.str.split("|")).explode("shape_id")
    seen = owner.groupby("shape_id").seen.any()
    state = shapes.shape_id.map(seen.map({True: "seen", False: "unseen"})).fillna("without photos")
    by_shape, by_photo = pd.crosstab(shapes.category, state), queries.groupby(["category", "split", "seen"]).size()
    photographed = queries.category.value_counts().index.tolist()
    rest = by_shape.sum(axis=1).drop(photographed, errors="ignore").sort_values(ascending=False).index.tolist()
    names = photographed + rest
    with new_figure(1.3 + 0.24 * len(names)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        kinds = {"seen": SEEN, "unseen": UNSEEN, "without photos": DISTRACTOR}
        nothing = pd.Series(dtype=int)
        _stack(left, names, [(by_shape.get(kind, nothing), kind, color) for kind, color in kinds.items()])
        left.set(title="Shapes in the gallery", xlabel="shapes")
        used = [key for key in PHOTO_PARTS if key in set(zip(queries.split, queries.seen.astype(bool), strict=True))]
        _stack(right, names, [(by_photo.xs(key, level=("split", "seen")), *PHOTO_PARTS[key]) for key in used])
        right.set(title="Photos", xlabel="photos")
        left.set_ylim(len(names) - 0.4, -0.6)
    return figure


def _stack(ax: Axes, names: list[str], parts: list[tuple[pd.Series, str, str]]) -> None:
    """Draw the parts, each a count by name, a label and a colour, as bars one after the other."""
    start = np.zeros(len(names))
    for counted, label, color in parts:
        values = counted.reindex(names, fill_value=0)
        ax.barh(names, values, left=start, color=color, label=label, height=0.72)
        start += values.to_numpy()
    for name, total in zip(names, start, strict=True):
        if total:
            note(ax, f"{total:.0f}", (total, name), (4, 0), va="center", fontsize=8)
    ax.set_xlim(0, start.max() * 1.1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True, axis="x")
    ax.legend(loc="lower right", frameon=True, edgecolor="white", framealpha=0.9)
    despine(ax)


def cameras(azimuth: np.ndarray, elevation: np.ndarray, view_azimuth: Sequence[float], view_elevation: float) -> Figure:
    """Show the cameras of the photos and of the views, in degrees: 0 in front, and above the horizon.

    The photos' azimuths (Q,) are reduced to [0, 360); all views have the same elevation.
    """
    with new_figure(3.6) as figure:
        ax = figure.subplots()
        ax.scatter(np.mod(azimuth, 360), elevation, s=7, color=BLUE, alpha=0.45, linewidths=0, label="photos")
        at, height = np.mod(view_azimuth, 360), np.full(len(view_azimuth), view_elevation)
        ax.scatter(at, height, s=70, marker="D", color=ORANGE, edgecolor="white", label="views", zorder=3)
        ax.set(xlim=(-6, 366), xticks=range(0, 361, 30), xlabel="azimuth in degrees (0: front, 90: the side at +x)")
        ax.set(ylabel="elevation in degrees", title="Cameras of the photos and of the twelve views")
        ax.grid(True)
        ax.legend(loc="lower left", bbox_to_anchor=(0.82, 1.0), ncols=2, borderaxespad=0.2, handletextpad=0.2)
    return figure


def views(pictures: np.ndarray, azimuths: Sequence[float], title: str = "") -> Figure:
    """Show all views (V, S, S) uint8 of a shape in two rows, with their azimuths (V,) in degrees."""
    across = -(-len(pictures) // 2)
    cell = WIDTH / across
    with new_figure(2 * (cell + 0.25) + (0.3 if title else 0), wspace=0.02, hspace=0.02) as figure:
        axes = figure.subplots(2, across).ravel()
        for ax, picture, azimuth in zip(axes, pictures, azimuths, strict=False):
            show_image(ax, picture)
            ax.set_title(f"{azimuth:.0f}°", loc="center", fontsize=9, fontweight="normal", pad=2)
        for ax in axes[len(pictures) :]:
            ax.set_axis_off()
        if title:
            figure.suptitle(title, fontweight="bold")
    return figure


def voxel_plot(view: np.ndarray, points: np.ndarray, voxels: np.ndarray, cells: int = 32) -> Figure:
    """Show a shape as a rendering (S, S) uint8, as surface points (n, 3), +y up, and as solid voxels.

    The voxels, bool (G, G, G) along x, y, z, are drawn with ``cells`` a side, which must divide G.
    """
    with new_figure(3.7, wspace=0.0) as figure:
        left = figure.add_subplot(1, 3, 1)
        show_image(left, view)
        left.set_title("Rendering", loc="center")
        middle, right = (figure.add_subplot(1, 3, place, projection="3d") for place in (2, 3))
        x, y, z = np.asarray(points[::2], dtype=np.float32).T
        middle.scatter(x, -z, y, c=y, s=1.2, cmap="viridis", linewidths=0, depthshade=False)
        middle.set_title(f"{len(points):,} surface points", loc="center")
        block = len(voxels) // cells
        coarse = voxels.reshape(cells, block, cells, block, cells, block).max(axis=(1, 3, 5))
        turned = coarse.transpose(0, 2, 1)[:, ::-1]
        light = LightSource(-60, 50)
        if turned.any():
            right.add_collection3d(Poly3DCollection(surface(turned), shade=True, facecolors=SKY, lightsource=light))
        right.set_title(f"Voxels (drawn at {cells}³ of {len(voxels)}³)", loc="center")
        for ax in (middle, right):
            ax.set_box_aspect((1, 1, 1), zoom=1.5)
            ax.set_axis_off()
            # The shape's +z is -y here, so the protocol's azimuth of 30° is 30° - 90°.
            ax.view_init(elev=20, azim=-60)
        middle.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
        right.set(xlim=(0, cells), ylim=(0, cells), zlim=(0, cells))
    return figure


def surface(solid: np.ndarray) -> np.ndarray:
    """Return the squares (F, 4, 3) between filled and empty cells of a grid, bool (G, G, G).

    From outside, their corners go round against the clock. matplotlib's own ``voxels`` draws each cell by itself, which
    takes twenty times as long.
    """
    padded, squares = np.pad(solid, 1), []
    for axis, side in itertools.product(range(3), (0, 1)):
        cells = np.argwhere(padded & ~np.roll(padded, 1 - 2 * side, axis)) - 1  # (F, 3)
        square = np.insert([(0, 0), (1, 0), (1, 1), (0, 1)], axis, side, axis=1)  # (4, 3)
        squares.append(cells[:, None] + (square if side == axis % 2 ^ 1 else square[::-1]))
    return np.concatenate(squares)
