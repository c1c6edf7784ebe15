"""A map of the common space of photos and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.transforms import Bbox

from .style import FAINT, HALO, as_rgb, category_colors, new_figure


def embedding_map(
    places: np.ndarray,
    category: Sequence[str],
    is_photo: np.ndarray,
    thumbnails: Mapping[int, np.ndarray] | None = None,
) -> Figure:
    """Show photos as dots and shapes as triangles, in the colour of their category.

    Args:
        places: (n, 2) coordinates.
        category: (n,) names; each stands above its points.
        is_photo: bool (n,).
        thumbnails: row → picture, as `show_image` takes it; it is drawn at the row's place if there is room.
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
        ax.set(xticks=[], yticks=[], title="Photos and shapes in the common space (t-SNE)")
        ax.spines[:].set_visible(False)
        ax.legend(loc="upper right", frameon=True, edgecolor=FAINT, framealpha=0.9)
        tops = {name: _top(places[names == name]) for name in sorted(set(names))}
        taken = _write_names(ax, tops, colors)
        for row, picture in (thumbnails or {}).items():
            half = 0.022 * np.ptp([ax.get_xlim(), ax.get_ylim()], axis=1) * (0.8, 1)
            box = Bbox([places[row] - half, places[row] + half])
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                _thumbnail(ax, picture, places[row], colors[names[row]])
    return figure


def _top(points: np.ndarray) -> np.ndarray:
    """Return a place above nine tenths of the points."""
    return np.array([np.median(points[:, 0]), np.quantile(points[:, 1], 0.9)])


def _write_names(ax: Axes, tops: Mapping[str, np.ndarray], colors: Mapping[str, str]) -> list[Bbox]:
    """Write names from top to bottom, each as high as the earlier ones allow; return their boxes."""
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
    return taken


def _thumbnail(ax: Axes, picture: np.ndarray, place: np.ndarray, color: str) -> None:
    rgb = as_rgb(picture)
    frame = {"edgecolor": color, "linewidth": 1.5}
    ax.add_artist(AnnotationBbox(OffsetImage(rgb, zoom=26 / len(rgb)), tuple(place), pad=0.1, bboxprops=frame))
