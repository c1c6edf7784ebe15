"""Figures about ablations: what each choice is worth, accuracy along a scale, photos that a variant gets wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import BLUE, FAINT, GRID, ORANGE, RIGHT, SEEN, UNSEEN, WIDTH, WRONG, despine, frame, new_figure, show_image


def forest(tables: Sequence[pd.DataFrame], titles: Sequence[str], smallest: float) -> Figure:
    """Show what each choice is worth, a panel a set of photos: a point with its interval, a mark for each seed.

    Right of zero the full method is better. The band around zero holds what is too small to matter. Colours say where
    an interval leaves zero out.

    Args:
        tables: as :func:`cmiclib.study.effects.effect_table` returns them; the first one orders the rows.
        titles: of the panels.
        smallest: effect of interest, in [0, 1].
    """
    names = list(dict.fromkeys(name for table in tables for name in table.name))
    place = {name: y for y, name in enumerate(names)}
    with new_figure(1.3 + 0.3 * len(names)) as figure:
        axes = figure.subplots(1, len(tables), sharex=True, sharey=True, squeeze=False)[0]
        for ax, table, title in zip(axes, tables, titles, strict=True):
            ax.axvspan(-100 * smallest, 100 * smallest, color=GRID, linewidth=0, gid="band")
            ax.axvline(0, color=FAINT, linewidth=1)
            for row in table.to_dict("records"):
                _effect(ax, place[row["name"]], row)
            ax.set(title=title, xlabel="points of Top-1 that the choice is worth")
            ax.grid(True, axis="x")
            despine(ax)
        axes[0].set_yticks(np.arange(len(names)), names)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _effect(ax: Axes, y: int, row: dict[Any, Any]) -> None:
    difference, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    clear = low > 0 or high < 0
    color = (RIGHT if difference > 0 else WRONG) if clear else BLUE
    if not np.isnan(low):
        ax.plot([low, high], [y, y], color=color, linewidth=3, alpha=0.45, solid_capstyle="butt", gid="interval")
    by_seed = [100 * value for value in row["by_seed"]]
    ax.plot(by_seed, [y] * len(by_seed), "|", color=color, markersize=9, gid="seed")
    ax.plot(difference, y, "o", color=color, markersize=6, gid="point")


NAME = 20
"""Letters of a shape's name that fit below a picture."""


@dataclass(frozen=True)
class Scale:
    """One quantity that some variants change step by step."""

    title: str
    label: str  # of the axis
    steps: list[str]  # along the axis
    seen: list[list[float]]  # accuracy, for each step one a seed; an empty list where it was not run
    unseen: list[list[float]]


def accuracy_along(scales: Sequence[Scale]) -> Figure:
    """Show Top-1 along some scales, a panel each: the mean over seeds, and a dot for each seed.

    Args:
        scales: what the panels show; a step that was not run stays empty and says so.
    """
    with new_figure(3.4) as figure:
        axes = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
        for ax, scale in zip(axes, scales, strict=True):
            for values, color, label in ((scale.seen, SEEN, "seen shapes"), (scale.unseen, UNSEEN, "unseen shapes")):
                at = [i for i, part in enumerate(values) if part]
                ax.plot(at, [100 * np.mean(values[i]) for i in at], "o-", color=color, label=label, gid="mean")
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
    """Show photos that the full method gets right and a variant does not.

    Args:
        photos: (R, 4, S, S) uint8 with mask.
        own: (R, S, S) uint8, a view of the own shape, which the full method found.
        found: (R, S, S) uint8, a view of the shape that the variant found.
        titles: (R,) the variant, above each example.
        shapes: (R,) name of the shape that the variant found.
    """
    across = 3
    rows = -(-len(photos) // across)
    cell = WIDTH / (3 * across + 0.6)
    with new_figure(rows * (cell + 0.62), wspace=0.03, hspace=0.05) as figure:
        blocks = figure.subfigures(rows, across, squeeze=False).ravel()
        for block, photo, right, wrong, title, shape in zip(blocks, photos, own, found, titles, shapes, strict=False):
            left, middle, last = block.subplots(1, 3)
            block.suptitle(title, fontsize=9, x=0.02, ha="left")
            short = shape if len(shape) <= NAME else f"{shape[: NAME - 1]}…"
            for ax, picture, label in ((left, photo, "photo"), (middle, right, "✓ full method"), (last, wrong, short)):
                show_image(ax, picture, mask=True)
                ax.set_xlabel(label, fontsize=7.5, labelpad=2)
            frame(middle, RIGHT)
            frame(last, ORANGE)
    return figure
