"""Figures about results: metrics with intervals, effects, categories, ranks, confusion, margins."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import BLUE, CYCLE, FAINT, HALO, HEAT, INK, OTHERS, RIGHT, WRONG, despine, new_figure, note, percent_axis

METRICS = {"top1": "Top-1", "top10": "Top-10", "category": "Category"}


def result_points(table: pd.DataFrame, metrics: Sequence[str] = ("top1", "top10", "category")) -> Figure:
    """Compare methods: a point for each metric with its 95 % interval; published values are hollow.

    ``table`` has one row for each method, best first: `method`, `kind` ("measured" or "published"), and for each metric
    m the columns m and, where known, m_low and m_high, in [0, 1] or NaN.
    """
    with new_figure(1.1 + 0.36 * len(table)) as figure:
        axes = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for ax, metric in zip(axes, metrics, strict=True):
            for y, row in enumerate(table.to_dict("records")):
                value, low, high = (row.get(metric + end, np.nan) for end in ("", "_low", "_high"))
                if np.isnan(value):
                    continue
                color, fill = (FAINT, "white") if row["kind"] == "published" else (BLUE, BLUE)
                ax.plot(value, y, "o", color=color, markersize=7, markerfacecolor=fill, gid="point")
                # Numbers stand left of points on the right half, so that none leaves the axes.
                anchor, shift, side = (value, -8, "right") if value > 0.5 else (value, 8, "left")
                if not np.isnan(low):
                    _interval(ax, y, low, high, color)
                    anchor, shift = low if value > 0.5 else high, shift // 2
                note(ax, f"{100 * value:.1f}", (anchor, y), (shift, 0), ha=side, va="center", fontsize=9)
            percent_axis(ax)
            ax.set(title=METRICS.get(metric, metric), xlabel="per cent", xlim=(-0.02, 1.02))
            despine(ax)
        axes[0].set_yticks(np.arange(len(table)), table.method)
        axes[0].set_ylim(len(table) - 0.5, -0.5)
    return figure


def _interval(ax: Axes, y: int, low: float, high: float, color: str) -> None:
    ax.plot([low, high], [y, y], color=color, linewidth=3, alpha=0.45, solid_capstyle="butt", gid="interval")


def effects(table: pd.DataFrame, label: str) -> Figure:
    """Show effects around zero, named by ``label``: a point with its interval, and a mark for each seed.

    ``table`` has one row for each effect: `name`, `difference`, `low`, `high` and `by_seed`, a list, all as shares.
    """
    with new_figure(1.0 + 0.34 * len(table)) as figure:
        ax = figure.subplots()
        ax.axvline(0, color=FAINT, linewidth=1)
        for y, row in enumerate(table.to_dict("records")):
            effect_row(ax, y, row)
        ax.set_yticks(np.arange(len(table)), table.name)
        ax.set(ylim=(len(table) - 0.5, -0.5), xlabel=label)
        despine(ax)
    return figure


def effect_row(ax: Axes, y: int, row: Mapping[Any, Any]) -> None:
    """Draw an effect in points: `difference`, its interval `low`, `high` (NaN: none), and `by_seed`, a list."""
    difference, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    color = (RIGHT if difference > 0 else WRONG) if low > 0 or high < 0 else BLUE
    if not np.isnan(low):
        _interval(ax, y, low, high, color)
    by_seed = [100 * value for value in row["by_seed"]]
    ax.plot(by_seed, [y] * len(by_seed), "|", color=color, markersize=9, gid="seed")
    ax.plot(difference, y, "o", color=color, markersize=6, gid="point")


def candidates(along: Sequence[float], up: Sequence[float], label: str, label_up: str) -> Figure:
    """Show candidates as points, both numbers in per cent; a ring marks the one that is highest in ``up``."""
    with new_figure(4.2, width=5.8) as figure:
        ax = figure.subplots()
        ax.scatter(along, up, s=34, color=BLUE, alpha=0.6, linewidths=0)
        best = int(np.argmax(np.asarray(up)))
        ax.scatter([list(along)[best]], [list(up)[best]], s=120, facecolors="none", edgecolors=INK, gid="best")
        ax.set(xlabel=f"{label}, per cent", ylabel=f"{label_up}, per cent", title="Candidates")
        ax.grid(True)
    return figure


def category_bars(table: pd.DataFrame) -> Figure:
    """Show Top-1 with its interval and Top-10 of each category.

    ``table`` has `of`, `queries`, and in [0, 1] `top1`, `top10` and, where known, `top1_low` and `top1_high`.
    """
    table = table.sort_values("top1", ascending=False)
    at = np.arange(len(table))
    with new_figure(1.2 + 0.32 * len(table), width=8) as figure:
        ax = figure.subplots()
        ax.barh(at, table.top1, color=BLUE, height=0.66, label="Top-1, 95 % interval")
        if "top1_low" in table:
            gaps = np.stack([table.top1 - table.top1_low, table.top1_high - table.top1]).clip(0)
            ax.errorbar(table.top1, at, xerr=gaps, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        ax.plot(table.top10, at, "D", color="white", markeredgecolor=INK, markersize=6, label="Top-10")
        ax.set_yticks(at, [f"{name}  ({n})" for name, n in zip(table["of"], table.queries, strict=True)])
        percent_axis(ax)
        ax.set(xlim=(0, 1.03), ylim=(len(table) - 0.4, -0.6), xlabel="per cent of the photos (their number)")
        ax.set_title("Accuracy by category")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        despine(ax)
    return figure


def rank_curves(ranks: Mapping[str, np.ndarray], gallery: int) -> Figure:
    """Show the share of photos whose own shape is among the first k, for every k.

    ``ranks`` maps a label to the rank of the own shape of each photo, from 1; ``gallery`` is the number of shapes.
    """
    k = np.arange(1, gallery + 1)
    with new_figure(4.2, width=8) as figure:
        ax = figure.subplots()
        marks: dict[int, list[tuple[float, str]]] = {1: [], 10: []}
        for (label, values), color in zip(ranks.items(), CYCLE, strict=False):
            share = np.searchsorted(np.sort(values), k, side="right") / len(values)
            ax.plot(k, share, color=color, label=f"{label} ({len(values)} photos)", drawstyle="steps-post")
            for at in {1, 10} & set(k):
                ax.plot(at, share[at - 1], "o", color=color, markersize=6)
                marks[at].append((share[at - 1], color))
        bold: dict[str, Any] = {"va": "center", "fontsize": 9, "fontweight": "bold", "path_effects": HALO}
        for at, points in marks.items():  # each share below and right of its point, lower if the one above needs room
            free = 1.1
            for height, color in sorted(points, reverse=True):
                free = min(height - 0.03, free - 0.065)
                note(ax, f"{100 * height:.0f}", (at, max(free, 0)), (7, 0), color=color, **bold)
        ax.plot(k, k / gallery, color=FAINT, linestyle=":", linewidth=1.2, label="chance")
        ax.set_xscale("log")
        ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if t <= gallery]
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
        percent_axis(ax, "y")
        ax.set(xlim=(0.92, gallery * 1.05), ylim=(0, 1.03), xlabel=f"first k of {gallery} shapes (log scale)")
        ax.set(ylabel="per cent of the photos", title="How far down the own shape is")
        ax.legend(loc="lower right", frameon=True, edgecolor="white", framealpha=0.9)
    return figure


def confusion(true: Sequence[str], found: Sequence[str]) -> Figure:
    """Show the category of the first shape, ``found``, against the photo's own, in per cent of each row.

    The column "others" gathers categories without photos.
    """
    rows = sorted(set(true))
    columns = pd.Series(list(found)).where(lambda name: name.isin(rows), OTHERS)
    share = pd.crosstab(pd.Series(list(true)), columns, normalize="index") * 100
    names = rows + ([OTHERS] if OTHERS in share else [])
    share = share.reindex(index=rows, columns=names, fill_value=0.0)
    numbers = share.map(lambda v: f"{v:.0f}" if v >= 0.5 else "").to_numpy()
    with new_figure(1.6 + 0.42 * len(rows), width=3 + 0.5 * len(names)) as figure:
        ax = figure.subplots()
        sns.heatmap(
            share, annot=numbers, fmt="", cmap=HEAT, vmin=0, vmax=100, ax=ax, linewidths=1, linecolor="white",
            annot_kws={"size": 9}, cbar_kws={"label": "per cent of the photos", "shrink": 0.8},
        )  # fmt: skip
        ax.set(xlabel="category of the first shape", ylabel="category of the photo", title="Confusion of categories")
        ax.set_xticks(np.arange(len(names)) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
        ax.tick_params(length=0)
    return figure


def margins(values: Mapping[str, np.ndarray]) -> Figure:
    """Show histograms of margins: label → the own shape's score minus the best other score, for each photo."""
    reach = max(np.abs(np.concatenate(list(values.values()))).max(), 1e-3)
    edges = np.linspace(-reach, reach, 41)  # zero is an edge, so that no bar mixes right and wrong
    with new_figure(1.0 + 1.9 * len(values), width=8) as figure:
        axes = np.atleast_1d(figure.subplots(len(values), 1, sharex=True))
        for ax, (label, margin) in zip(axes, values.items(), strict=True):
            for part, color in ((margin[margin > 0], RIGHT), (margin[margin <= 0], WRONG)):
                ax.hist(part, bins=edges, color=color, edgecolor="white", linewidth=0.5)
            ax.axvline(0, color=INK, linewidth=1)
            share = 100 * (margin > 0).mean()
            ax.set(title=f"{label}: {len(margin)} photos", ylabel="photos")
            ax.text(0.99, 0.9, f"{share:.0f} % right ▸", transform=ax.transAxes, ha="right", va="top", color=RIGHT)
            ax.text(0.01, 0.9, f"◂ {100 - share:.0f} % wrong", transform=ax.transAxes, va="top", color=WRONG)
        axes[-1].set_xlabel("score of the own shape − best other score")
    return figure
