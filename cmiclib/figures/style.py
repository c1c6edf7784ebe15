"""The book's style, and the pieces that its figures share.

Okabe and Ito's colours stay apart with any form of colour blindness. A sign repeats what a colour alone would say.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

WIDTH = 10.0  # inches, the book's text width at `DPI`
DPI = 110

INK, FAINT, GRID = "#333333", "#767676", "#e3e3e3"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PINK, YELLOW = "#56b4e9", "#cc79a7", "#f0e442"
SEEN, UNSEEN, DISTRACTOR = BLUE, ORANGE, "#bdbdbd"
RIGHT, WRONG = GREEN, RED
HALO = [withStroke(linewidth=3, foreground="white")]  # keeps text legible on lines and points
OTHERS = "others"  # gathers categories without photos
CYCLE = (BLUE, ORANGE, GREEN, RED, SKY, PINK, "#7f7f7f", "#a6761d", "#332288", "#002200", "#991144", "#773300",
         "#116666")  # fmt: skip
HEAT = LinearSegmentedColormap.from_list("white-blue", ["#ffffff", "#cfe3f1", "#6aaed6", "#0072b2", "#003b66"])

_STYLE: Any = {
    "figure.dpi": DPI, "savefig.dpi": DPI, "figure.facecolor": "white", "axes.facecolor": "white",
    "figure.constrained_layout.use": True, "font.family": ["DejaVu Sans"], "font.size": 10,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
    "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9,
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "grid.color": GRID,
    "axes.axisbelow": True, "axes.prop_cycle": plt.cycler(color=CYCLE), "legend.frameon": False,
    "lines.linewidth": 1.8, "xtick.major.size": 3, "ytick.major.size": 3, "image.cmap": "gray",
}  # fmt: skip


def use_style() -> None:
    """Set matplotlib's defaults for the rest of the process; figures of this package need no such call."""
    plt.rcParams.update(_STYLE)


@contextmanager
def new_figure(height: float, width: float = WIDTH, **layout: float) -> Iterator[Figure]:
    """Yield an empty figure in the book's style; it opens no window, and notebooks show it once."""
    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=(width, height))
        if layout:
            figure.get_layout_engine().set(**layout)  # type: ignore[union-attr]
        plt.close(figure)
        yield figure
        figure.draw_without_rendering()  # matplotlib makes tick labels now, while the style is set


def show_image(ax: Axes, image: np.ndarray) -> None:
    """Show a picture, (S, S) gray, (S, S, 3) or (3, S, S) RGB, or (4, S, S) RGB with a mask, which is outlined.

    It is uint8, or floats in [0, 1].
    """
    ax.imshow(as_rgb(image), interpolation="antialiased")
    if image.ndim == 3 and len(image) == 4 and image[3].any() and not image[3].all():
        for color, width in (("white", 2.4), (RED, 1.2)):
            ax.contour(image[3] / image[3].max(), levels=[0.5], colors=color, linewidths=width)
    hide_axes(ax)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a picture, as `show_image` takes it, as (S, S, 3)."""
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image[:3].transpose(1, 2, 0) if len(image) in (3, 4) else image


def hide_axes(ax: Axes) -> None:
    """Remove ticks and axis lines."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def frame(ax: Axes, color: str, width: float = 3.0) -> None:
    """Draw a frame over the edges of an axes."""
    line = Rectangle((0, 0), 1, 1, fill=False, edgecolor=color, linewidth=width, gid="frame")
    ax.add_patch(line).set(transform=ax.transAxes, clip_on=False)


def note(ax: Axes, text: str, place: tuple[Any, Any], shift: tuple[float, float], **look: Any) -> None:
    """Write a text beside a place in the data's coordinates, ``shift`` points from it."""
    ax.annotate(text, place, shift, textcoords="offset points", **look)


def category_colors(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each category, always the same for a set of names; the fourteenth repeats the first one."""
    named = sorted(set(names) - {OTHERS})
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(named)} | {OTHERS: DISTRACTOR}


def percent_axis(ax: Axes, axis: str = "x") -> None:
    """Label an axis from 0 to 1 in per cent and draw its grid lines."""
    ticks = np.linspace(0, 1, 5)
    ax.set(**{f"{axis}lim": (0, 1.0), f"{axis}ticks": ticks, f"{axis}ticklabels": [f"{100 * t:.0f}" for t in ticks]})
    ax.grid(True, axis=axis)  # type: ignore[arg-type]


def despine(ax: Axes) -> None:
    """Remove the axis line on the left, where horizontal bars begin."""
    sns.despine(ax=ax, left=True)
    ax.tick_params(axis="y", length=0)
