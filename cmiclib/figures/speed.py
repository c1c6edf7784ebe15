"""Figures about cost: search time, the machine's limits, and pairs that bounds could skip."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from .style import BLUE, FAINT, GREEN, INK, ORANGE, PINK, new_figure, note, percent_axis

PRECISIONS = {"float32": BLUE, "bfloat16": ORANGE}
Rows = Sequence[Mapping[str, Any]]


def search_scaling(rows: Rows) -> Figure:
    """Show the time of a search over the gallery's size and, for the largest gallery, over the batch.

    ``rows`` have ``dtype``, ``shapes``, ``queries``, ``bytes``, ``operations`` and what
    :func:`cmiclib.study.speed.beside_limits` returns. Dotted lines are the least time that the machine allows.
    """
    most, batch = max(row["shapes"] for row in rows), 256
    with new_figure(3.9) as figure:
        left, right = figure.subplots(1, 2)
        for dtype, color in PRECISIONS.items():
            for queries, marker in ((1, "o"), (batch, "s")):
                part = [r for r in rows if r["dtype"] == dtype and r["queries"] == queries]
                name = f"{queries} {'query' if queries == 1 else 'queries'}, {dtype}"
                _times(left, [r["shapes"] for r in part], part, color, marker, name)
            part = [r for r in rows if r["dtype"] == dtype and r["shapes"] == most]
            _times(right, [r["queries"] for r in part], part, color, "o", dtype)
        left.set(title="Over the gallery", xlabel="shapes, 12 views each")
        right.set(title=f"Over the batch, {most:,} shapes", xlabel="queries")
        for ax in (left, right):
            ax.set(xscale="log", yscale="log", ylabel="milliseconds")
            ax.grid(True)
            ax.legend(fontsize=8)
    return figure


def _times(ax: Axes, at: list[int], rows: Rows, color: str, marker: str, name: str) -> None:
    from ..study.speed import least_seconds, median  # torch and timm, which no other figure needs

    taken = [1e3 * median(row["seconds"]) for row in rows]
    fastest, slowest = [1e3 * min(row["seconds"]) for row in rows], [1e3 * max(row["seconds"]) for row in rows]
    ax.fill_between(at, fastest, slowest, color=color, alpha=0.2, linewidth=0)
    ax.plot(at, taken, marker=marker, markersize=4, color=color, label=name)
    ax.plot(at, [1e3 * least_seconds(row) for row in rows], color=color, linewidth=1, linestyle=":")


def roofline(rows: Rows) -> Figure:
    """Show the rate of searches in one gallery below the machine's two limits; rows as in :func:`search_scaling`."""
    from ..study.speed import median  # see _times

    with new_figure(4.2, width=7.5) as figure:
        ax = figure.subplots()
        reach = np.geomspace(0.5, 2 * max(r["operations"] / r["bytes"] for r in rows), 100)
        slope = float(np.median([r["copy_rate"] for r in rows]))
        tops = {name: float(np.median([r["product_rate"] for r in rows if r["dtype"] == name])) for name in PRECISIONS}
        higher = max(tops, key=lambda name: tops[name])  # its name stands above, the other's below; both can be equal
        for dtype, color in PRECISIONS.items():
            top, first = tops[dtype], dtype == "float32"
            roof = np.minimum(reach * slope, top) / 1e9
            ax.plot(reach, roof, color=color, linewidth=1.2, linestyle=":")
            aside = 0, 4 if dtype == higher else -12
            note(ax, f"products in {dtype}", (reach[-1], top / 1e9), aside, ha="right", color=color, fontsize=9)
            part = [r for r in rows if r["dtype"] == dtype]
            at = [r["operations"] / r["bytes"] for r in part]
            rate = [r["operations"] / median(r["seconds"]) / 1e9 for r in part]
            ax.plot(at, rate, "o-", markersize=4, color=color, label=dtype)
            for r, x, y in zip(part, at, rate, strict=True):
                if r["queries"] in (1, 8, 64, 256):
                    aside = (6, -5) if r["queries"] == 1 else (-3, 6) if first else (3, -11)
                    note(ax, str(r["queries"]), (x, y), aside, fontsize=8, color=color)
        middle = float(np.sqrt(reach[0] * top / slope))  # of the rising line; above it there is nothing
        note(ax, "memory", (middle, middle * slope / 1e9), (-6, 3), ha="right", color=FAINT, fontsize=9)
        ax.set(xscale="log", yscale="log", xlabel="operations for each byte of the gallery", title="Rate of a search",
               ylabel="10⁹ operations a second")  # fmt: skip
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.grid(True)
        ax.legend(loc="lower right", title="numbers: queries in the batch")
    return figure


def bound_shares(results: Rows) -> Figure:
    """Show the share of pairs that certified bounds could skip, over the number of clusters.

    ``results`` are from ``tools/measure/measure_bounds.py``, one entry for each kind of vectors.
    """
    with new_figure(3.4) as figure:
        for ax, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
            at = [row["clusters"] for row in result["rows"]]
            ax.axhline(result["skipped_by_products"], color=INK, linewidth=1, linestyle="--",
                       label="largest product itself")  # fmt: skip
            for key, color, name in (
                ("skipped_by_distance", GREEN, "centre, and the view's own distance"),
                ("skipped_by_radius", PINK, "centre and radius"),
            ):
                ax.plot(at, [row[key] for row in result["rows"]], "o-", color=color, label=name)
            percent_axis(ax, "y")
            ax.set(xscale="log", xticks=at, xticklabels=at, xlabel="clusters of views", ylabel="% of pairs spared",
                   title=f"{result['vectors'].capitalize()} vectors")  # fmt: skip
            ax.minorticks_off()
        ax.legend(loc="center left", bbox_to_anchor=(0.0, 0.6))
    return figure


def certificates(needed: Mapping[str, Sequence[int]], candidates: int) -> Figure:
    """Show how many shapes a search must visit before its first ten are proven, over the gallery's size.

    ``needed`` has for each number of shapes one count a photo: ``tools/measure/measure_scale.py`` stores it. On the
    right, for how many of the largest gallery's photos a number of candidates suffices; the line marks the default.
    """
    sizes, most = [int(size) for size in needed], np.array(list(needed.values())[-1])
    with new_figure(3.4) as figure:
        left, right = figure.subplots(1, 2)
        for share, color, name in ((50, GREEN, "median photo"), (95, ORANGE, "95 of 100 photos"), (100, PINK, "all")):
            visited = [np.percentile(counts, share) for counts in needed.values()]
            left.plot(sizes, visited, "o-", color=color, label=name)
        left.set(xscale="log", yscale="log", xlabel="shapes, 12 views each", title="Shapes to visit")
        left.legend(fontsize=8)
        at = 2 ** np.arange(4, 1 + int(np.ceil(np.log2(max(most.max(), candidates)))))
        right.plot(at, [(most <= count).mean() for count in at], "o-", color=BLUE)
        right.axvline(candidates, color=FAINT, linestyle="--")
        percent_axis(right, "y")
        right.set(xscale="log", xlabel="candidates", ylabel="% of photos certified", title=f"{sizes[-1]:,} shapes")
        for ax in (left, right):
            ax.grid(True)
    return figure
