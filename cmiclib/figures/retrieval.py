"""Figures of retrieved shapes: rankings as in the paper's first figure, and attended views."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .method import attended_strip
from .style import FAINT, RIGHT, WIDTH, frame, new_figure, show_image


def retrieval_rows(
    photos: np.ndarray, own: np.ndarray | None, found: np.ndarray, scores: np.ndarray, right: np.ndarray,
    labels: Sequence[str] | None = None,
) -> Figure:  # fmt: skip
    """Show queries with their own shape and the first shapes found; right ones have a green frame and a tick.

    Args:
        photos: (R, 4, S, S) uint8 queries with mask.
        own: (R, S, S) uint8, one view of the own shape; None: unknown.
        found: (R, k, S, S) uint8, one view of each shape found, best first.
        scores: (R, k).
        right: bool (R, k).
        labels: (R,) texts under the photos.
    """
    queries, k = scores.shape
    first = ["photo"] if own is None else ["photo", "own shape"]
    cell = WIDTH / (k + len(first) + 0.4)
    with new_figure(queries * (cell + 0.28) + 0.35, wspace=0.03, hspace=0.03) as figure:
        axes = figure.subplots(queries, k + len(first), squeeze=False)
        for ax, title in zip(axes[0], [*first, *map(str, range(1, k + 1))], strict=True):
            ax.set_title(title, loc="center")
        for r, row in enumerate(axes):
            show_image(row[0], photos[r], mask=True)
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
    """Show the views of one shape for each query; the attention weights draw their borders.

    Args:
        photos: (R, 4, S, S) uint8 queries with mask.
        views: (R, V, S, S) uint8.
        weights: (R, V), rows sum to 1.
        labels: (R,) above each row.
        azimuths: (V,) degrees.
    """
    with new_figure(1.6 * len(photos), hspace=0.02, wspace=0.02) as figure:
        axes = figure.subplots(len(photos), 2, squeeze=False, width_ratios=(1, 11))
        for (left, right), photo, strip, weight, label in zip(axes, photos, views, weights, labels, strict=True):
            show_image(left, photo, mask=True)
            attended_strip(right, strip, weight)
            right.set_title(label, fontsize=10)
            names = [f"{a:.0f}°\n{w:.2f}" for a, w in zip(azimuths, weight, strict=True)]
            right.set_xticks(np.arange(len(weight)), names, fontsize=8)
            right.tick_params(axis="x", length=0, pad=1)
            right.get_xticklabels()[int(weight.argmax())].set(fontweight="bold")
    return figure
