"""Figures about ablations: effects, accuracy along a scale, photos that a variant gets wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .results import effect_row
from .style import FAINT, GRID, ORANGE, RED, RIGHT, SEEN, UNSEEN, WIDTH, despine, frame, new_figure, show_image

NAME = 20  # letters of a shape's name that fit below a picture


def forest(tables: Sequence[pd.DataFrame], titles: Sequence[str], smallest: float) -> Figure:
    """Show what each choice is worth: a point with its interval, and a mark for each seed.

    Right of zero the full method is better. The band around zero holds effects too small to matter, below ``smallest``
    in [0, 1]. A point is coloured where its interval excludes zero. Each table, from
    :func:`cmiclib.study.effects.effect_table`, is a panel with its title; the first one orders the rows.
    """
    names = list(dict.fromkeys(name for table in tables for name in table.name))
    with new_figure(1.3 + 0.3 * len(names)) as figure:
        axes = figure.subplots(1, len(tables), sharex=True, sharey=True, squeeze=False)[0]
        for ax, table, title in zip(axes, tables, titles, strict=True):
            ax.axvspan(-100 * smallest, 100 * smallest, color=GRID, linewidth=0, gid="band")
            ax.axvline(0, color=FAINT, linewidth=1)
            for row in table.to_dict("records"):
                effect_row(ax, names.index(row["name"]), row)
            ax.set(title=title, xlabel="points of Top-1 that the choice is worth")
            ax.grid(True, axis="x")
            despine(ax)
        axes[0].set_yticks(np.arange(len(names)), names)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


@dataclass(frozen=True)
class Scale:
    """A quantity that variants change step by step; ``label`` is the axis's. Steps without an order get no line."""

    title: str
    label: str
    steps: list[str]
    seen: list[list[float]]  # for each step the accuracy of each seed; an empty list: not run
    unseen: list[list[float]]
    ordered: bool = True


def accuracy_along(scales: Sequence[Scale]) -> Figure:
    """Show Top-1 along each scale: the mean over seeds, and a dot for each seed; a step may be "not run"."""
    with new_figure(3.4) as figure:
        axes = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
        for ax, scale in zip(axes, scales, strict=True):
            for values, color, label in ((scale.seen, SEEN, "seen shapes"), (scale.unseen, UNSEEN, "unseen shapes")):
                at = [i for i, part in enumerate(values) if part]
                means, line = [100 * np.mean(values[i]) for i in at], "-" if scale.ordered else "none"
                ax.plot(at, means, "o", linestyle=line, color=color, label=label, gid="mean")
                for i in at:
                    ax.plot([i] * len(values[i]), [100 * v for v in values[i]], ".", color=color, alpha=0.5, gid="seed")
            for i, (a, b) in enumerate(zip(scale.seen, scale.unseen, strict=True)):
                if not a and not b:
                    ax.annotate("not run", (i, 0.02), xycoords=("data", "axes fraction"), ha="center", color=FAINT)
            ax.set_xticks(np.arange(len(scale.steps)), scale.steps)
            ax.set(title=scale.title, xlabel=scale.label, xlim=(-0.4, len(scale.steps) - 0.6))
            ax.grid(True, axis="y")
        axes[0].set_ylabel("Top-1, per cent")
        axes[0].legend(loc="best")
    return figure


def wrong_without(
    photos: np.ndarray, own: np.ndarray, found: np.ndarray, titles: Sequence[str], shapes: Sequence[str]
) -> Figure:
    """Show photos that the full method gets right and a variant gets wrong.

    Each of the R photos (4, S, S) uint8, with the mask that the variant saw, stands beside a view (S, S) uint8 of its
    own shape, which the full method found, and one of the shape that the variant found. ``titles`` name the variants,
    ``shapes`` what they found.
    """
    across = 3
    rows = -(-len(photos) // across)
    cell = WIDTH / (3 * across + 0.6)
    with new_figure(rows * (cell + 0.62) + 0.35, wspace=0.03, hspace=0.05) as figure:
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[0.35, rows * (cell + 0.62)]).ravel()
        signs: list[Artist] = [Line2D([], [], color=RED, label="the mask that the variant saw; no line: it saw none")]
        signs += [Patch(fill=False, edgecolor=RIGHT, linewidth=3, label="the photo's own shape")]
        signs += [Patch(fill=False, edgecolor=ORANGE, linewidth=3, label="the shape that the variant found")]
        above.legend(handles=signs, loc="center left", ncols=3)
        blocks = below.subfigures(rows, across, squeeze=False).ravel()
        for block, photo, right, wrong, title, shape in zip(blocks, photos, own, found, titles, shapes, strict=False):
            left, middle, last = block.subplots(1, 3)
            block.suptitle(title, fontsize=9, x=0.02, ha="left")
            short = shape if len(shape) <= NAME else f"{shape[: NAME - 1]}…"
            for ax, picture, label in ((left, photo, "photo"), (middle, right, "✓ full method"), (last, wrong, short)):
                show_image(ax, picture)
                ax.set_xlabel(label, fontsize=7.5, labelpad=2)
            frame(middle, RIGHT)
            frame(last, ORANGE)
    return figure
