"""A map of the common space of photos and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .style import FAINT, HALO, category_colors, hide_axes, new_figure


def embedding_map(places: np.ndarray, category: Sequence[str], is_photo: np.ndarray) -> Figure:
    """Show photos as dots and shapes as triangles, in the colour of their category, whose name stands above them.

    The n points have ``places`` (n, 2), a category each, and ``is_photo``, bool (n,).
    """
    names = np.asarray(category)
    colors = category_colors(list(category))
    with new_figure(8.0) as figure:
        ax = figure.subplots()
        for kind, marker, size, alpha in ((is_photo, "o", 14, 0.5), (~is_photo, "^", 46, 0.95)):
            paint = [colors[name] for name in names[kind]]
            look: dict[str, Any] = {"marker": marker, "s": size, "alpha": alpha, "edgecolor": "white", "linewidth": 0.4}
            ax.scatter(places[kind, 0], places[kind, 1], c=paint, **look)
        for marker, size, label in (("o", 5, "photo"), ("^", 8, "shape")):
            ax.plot([], [], marker, color=FAINT, markersize=size, label=label)
        ax.margins(0.04)
        hide_axes(ax)
        ax.set_title("Photos and shapes in the common space (t-SNE)")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # above the map, where it hides no point
        points = {name: places[names == name] for name in sorted(set(names))}
        # A name begins above nine tenths of its points.
        tops = {name: (np.median(part[:, 0]), np.quantile(part[:, 1], 0.9)) for name, part in points.items()}
        _write_names(ax, tops, colors)
    return figure


def map_corners(figure: Figure) -> np.ndarray:
    """Return the places of a drawn map's picture's corners, left below and right above: (2, 2)."""
    return figure.axes[0].transData.inverted().transform([(0, 0), figure.bbox.size])


def on_picture(corners: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return where places (…, 2) lie on a picture with these corners, in per cent from left and from top: (…, 2)."""
    left, up = np.moveaxis(100 * (places - corners[0]) / (corners[1] - corners[0]), -1, 0)
    return np.stack([left, 100 - up], axis=-1)


def _write_names(ax: Axes, tops: Mapping[str, tuple[float, float]], colors: Mapping[str, str]) -> None:
    """Write names from top to bottom, each as high as the earlier ones allow."""
    letter, line = 0.012 * np.ptp(ax.get_xlim()), 0.026 * np.ptp(ax.get_ylim())
    taken: list[Bbox] = []
    for name, (x, y) in sorted(tops.items(), key=lambda item: -item[1][1]):
        box = Bbox.from_bounds(x - letter * len(name) / 2, y, letter * len(name), line)
        for other in sorted(taken, key=lambda other: -other.y0):
            if box.overlaps(other):
                box = box.translated(0, other.y0 - line - box.y0)
        taken.append(box)
        ax.text(
            x, box.y0, name, ha="center", va="bottom", fontsize=11, fontweight="bold", color=colors[name], gid="name",
            path_effects=HALO, zorder=5,
        )  # fmt: skip
