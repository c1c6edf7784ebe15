"""Figures of retrieved shapes: rankings as in the paper's first figure, and how much each view counted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import BLUE, FAINT, HALO, ORANGE, RIGHT, WIDTH, frame, hide_axes, new_figure, note, show_image


def retrieval_rows(
    photos: np.ndarray, own: np.ndarray | None, found: np.ndarray, scores: np.ndarray, right: np.ndarray,
    labels: Sequence[str] | None = None,
) -> Figure:  # fmt: skip
    """Show queries with their own shape and the first shapes found; right ones have a green frame and a tick.

    ``photos`` are (R, 4, S, S) uint8 with mask, ``own`` (R, S, S) uint8 a view of each own shape (None: unknown),
    ``found`` (R, k, S, S) uint8 a view of each shape found, best first, with ``scores`` and ``right``, bool, (R, k).
    ``labels`` (R,) stand under the photos.
    """
    queries, k = scores.shape
    first = ["photo"] if own is None else ["photo", "own shape"]
    cell = WIDTH / (k + len(first) + 0.4)
    with new_figure(queries * (cell + 0.28) + 0.35, wspace=0.03, hspace=0.03) as figure:
        axes = figure.subplots(queries, k + len(first), squeeze=False)
        for ax, title in zip(axes[0], [*first, *map(str, range(1, k + 1))], strict=True):
            ax.set_title(title, loc="center")
        for r, row in enumerate(axes):
            show_image(row[0], photos[r])
            if own is not None:
                show_image(row[1], own[r])
                frame(row[1], FAINT, 1.5)
            if labels is not None:
                row[0].set_xlabel(labels[r], fontsize=8.5, labelpad=3)
            for ax, view, score, good in zip(row[len(first) :], found[r], scores[r], right[r], strict=True):
                show_image(ax, view)
                text = f"✓ {score:.2f}" if good else f"{score:.2f}"
                ax.set_xlabel(text, color=RIGHT if good else FAINT, fontweight="bold" if good else "normal", labelpad=3)
                if good:
                    frame(ax, RIGHT)
    return figure


def attended_views(
    photos: np.ndarray, views: np.ndarray, weights: np.ndarray, labels: Sequence[str], azimuths: Sequence[float]
) -> Figure:
    """Show the views of one shape for each query, below a label; the attention weights draw their borders.

    ``photos`` are (R, 4, S, S) uint8 with mask, ``views`` (R, V, S, S) uint8 at ``azimuths`` (V,) in degrees; the rows
    of ``weights`` (R, V) sum to 1.
    """
    with new_figure(1.6 * len(photos), hspace=0.02, wspace=0.02) as figure:
        axes = figure.subplots(len(photos), 2, squeeze=False, width_ratios=(1, 11))
        for (left, right), photo, strip, weight, label in zip(axes, photos, views, weights, labels, strict=True):
            show_image(left, photo)
            _strip(right, strip, weight)
            right.set_title(label, fontsize=10)
            names = [f"{a:.0f}°\n{w:.2f}" for a, w in zip(azimuths, weight, strict=True)]
            right.set_xticks(np.arange(len(weight)), names, fontsize=8)
            right.tick_params(axis="x", length=0, pad=1)
            right.get_xticklabels()[int(weight.argmax())].set(fontweight="bold")
    return figure


def attention(
    photos: np.ndarray, views: np.ndarray, weights: np.ndarray, products: np.ndarray, titles: Sequence[str]
) -> Figure:
    """Show which views of a shape each query attends to, and how well each view fits.

    As in :func:`attended_views`; ``products`` (R, V) are those of query and view: the score is their weighted sum.
    """
    with new_figure(2.5 * len(photos), hspace=0.02) as figure:
        rows = figure.subfigures(len(photos), 1, squeeze=False)[:, 0]
        parts = zip(rows, photos, views, weights, products, titles, strict=True)
        for row, photo, strip, weight, product, title in parts:
            left, right = row.subfigures(1, 2, width_ratios=(1.4, 8.6))
            ax = left.subplots()
            show_image(ax, photo)
            ax.set_title("query")
            top, middle, bottom = right.subplots(3, 1, sharex=True, height_ratios=(1.1, 1, 0.8))
            _strip(top, strip, weight)
            top.set_title(title)
            at = np.arange(len(weight))
            middle.bar(at, weight, width=0.5, color=ORANGE)
            bottom.plot(at, product, "o-", color=BLUE, markersize=4, linewidth=1)
            _numbers(middle, weight, "weight", (0, 1.3 * weight.max()))
            reach = max(np.ptp(product), 0.05)
            _numbers(bottom, product, "q · view", (product.min() - 0.3 * reach, product.max() + 0.6 * reach))
    return figure


def _strip(ax: Axes, views: np.ndarray, weights: np.ndarray) -> None:
    """Show views (V, S, S) uint8 side by side, each a unit wide; a larger weight (V,) draws a stronger border."""
    for v, (view, weight) in enumerate(zip(views, weights, strict=True)):
        ax.imshow(view, cmap="gray", vmin=0, vmax=255, extent=(v - 0.47, v + 0.47, -0.47, 0.47), zorder=1)
        strength = weight / weights.max()
        line: dict[str, Any] = {"alpha": max(strength, 0.08), "linewidth": 0.5 + 3 * strength}
        ax.add_patch(Rectangle((v - 0.47, -0.47), 0.94, 0.94, fill=False, ec=ORANGE, zorder=2, gid="border", **line))
    ax.set(xlim=(-0.55, len(views) - 0.45), ylim=(-0.55, 0.55), aspect="equal")
    hide_axes(ax)


def _numbers(ax: Axes, values: np.ndarray, label: str, limits: tuple[float, float]) -> None:
    for x, value in enumerate(values):
        note(ax, f"{value:.2f}", (x, value), (0, 3), ha="center", fontsize=8, path_effects=HALO)
    ax.set(ylabel=label, ylim=limits, yticks=[])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", length=0, labelbottom=False)
