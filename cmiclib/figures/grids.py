"""Grids of pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import WIDTH, hide_axes, new_figure, show_image


def grid(
    pictures: Sequence[np.ndarray], titles: Sequence[str] = (), across: int = 6, mask: bool = False, side: float = 2.4
) -> Figure:
    """Show pictures in rows.

    Args:
        pictures: each as `show_image` takes it.
        titles: above the pictures; one for each, or none.
        across: pictures in a row.
        mask: outline a fourth channel.
        side: inches of a picture at most.
    """
    across = min(across, len(pictures))
    cell = min(WIDTH / across, side)
    rows = -(-len(pictures) // across)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    height = rows * (cell + 0.18 * lines)
    with new_figure(height, width=cell * across, wspace=0.02, hspace=0.02) as figure:
        axes = figure.subplots(rows, across, squeeze=False).ravel()
        for ax, picture in zip(axes, pictures, strict=False):
            show_image(ax, picture, mask=mask)
        for ax, title in zip(axes, titles, strict=False):
            ax.set_title(title, fontsize=9, fontweight="normal", pad=3)
        for ax in axes[len(pictures) :]:
            ax.set_axis_off()
    return figure


def compare_views(stored: np.ndarray, fresh: np.ndarray, azimuths: Sequence[float]) -> Figure:
    """Show two sets of views (V, S, S) uint8 of one shape, at these azimuths in degrees, and where they differ."""
    difference = np.abs(stored.astype(int) - fresh)
    cell = (WIDTH - 1.0) / len(stored)
    with new_figure(3 * cell + 0.4, wspace=0.02, hspace=0.02) as figure:
        axes = figure.subplots(3, len(stored), squeeze=False)
        for column, azimuth in enumerate(azimuths):
            show_image(axes[0, column], stored[column])
            show_image(axes[1, column], fresh[column])
            image = axes[2, column].imshow(difference[column], cmap="magma", vmin=0, vmax=128)
            hide_axes(axes[2, column])
            axes[0, column].set_title(f"{azimuth:.0f}°", loc="center", fontsize=9, fontweight="normal", pad=3)
        for ax, label in zip(axes[:, 0], ("stored", "live", "difference"), strict=True):
            ax.set_ylabel(label, fontsize=9)
        figure.colorbar(image, ax=axes[2], label="gray levels", fraction=0.03, pad=0.01)
    return figure
