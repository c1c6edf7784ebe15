"""Grids of pictures, and of two ways to make a picture with their difference."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import WIDTH, hide_axes, new_figure, show_image


def grid(pictures: Sequence[np.ndarray], titles: Sequence[str] = (), across: int = 6) -> Figure:
    """Show pictures, each as `show_image` takes it, below their titles, if any; a row has ``across`` of them."""
    across = min(across, len(pictures))
    rows, cell = -(-len(pictures) // across), min(WIDTH / across, 2.4)  # inches
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    with new_figure(rows * (cell + 0.18 * lines), width=cell * across, wspace=0.02, hspace=0.02) as figure:
        axes = figure.subplots(rows, across, squeeze=False).ravel()
        for ax, picture in zip(axes, pictures, strict=False):
            show_image(ax, picture)
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


def color_transfer(content: np.ndarray, style: np.ndarray, lab: np.ndarray, reference: np.ndarray) -> Figure:
    """Show the result of colour transfer for each photo, and where its two variants differ.

    All are (B, 3, H, W) in [0, 1]: photos, the photos that lend their colours, and the results in CIELAB and by the
    released code's formula.
    """
    difference = 255 * np.abs(lab - reference).mean(axis=1)  # (B, H, W)
    titles = ("photo", "source of colours", "in CIELAB", "released formula", "difference")
    cell = (WIDTH - 0.6) / 5
    with new_figure(len(content) * cell + 0.35, wspace=0.02, hspace=0.02) as figure:
        axes = figure.subplots(len(content), 5, squeeze=False)
        for row, pictures in zip(axes, zip(content, style, lab, reference, strict=True), strict=True):
            for ax, picture in zip(row, pictures, strict=False):
                show_image(ax, np.clip(picture, 0, 1))
        for ax, gap in zip(axes[:, 4], difference, strict=True):
            image = ax.imshow(gap, cmap="magma", vmin=0, vmax=max(difference.max(), 1e-6))
            hide_axes(ax)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title)
        figure.colorbar(image, ax=axes[:, 4], label="mean over RGB, of 255", fraction=0.06, pad=0.03)
    return figure
