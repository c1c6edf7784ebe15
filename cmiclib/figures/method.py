"""Figures about the method: colour transfer, view attention, losses, training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .style import (
    BLUE,
    GREEN,
    HALO,
    HEAT,
    INK,
    ORANGE,
    PINK,
    RIGHT,
    WIDTH,
    hide_axes,
    new_figure,
    percent_axis,
    show_image,
)


def color_transfer(content: np.ndarray, style: np.ndarray, lab: np.ndarray, reference: np.ndarray) -> Figure:
    """Show the result of colour transfer for each photo, and where its two variants differ.

    Args:
        content: (B, 3, H, W) photos in [0, 1], as all four.
        style: photos that lend their colours.
        lab: the results in CIELAB.
        reference: the results of the released code's formula.
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


def attention(
    photos: np.ndarray, views: np.ndarray, weights: np.ndarray, products: np.ndarray, titles: Sequence[str]
) -> Figure:
    """Show which views of a shape each query attends to, and how well each view fits.

    Args:
        photos: (R, 4, S, S) uint8 queries with mask.
        views: (R, V, S, S) uint8, the views of one shape for each query.
        weights: (R, V), rows sum to 1.
        products: (R, V) products of query and view; the score is their weighted sum.
        titles: (R,) above each row.
    """
    with new_figure(2.5 * len(photos), hspace=0.02) as figure:
        rows = figure.subfigures(len(photos), 1, squeeze=False)[:, 0]
        parts = zip(rows, photos, views, weights, products, titles, strict=True)
        for row, photo, strip, weight, product, title in parts:
            left, right = row.subfigures(1, 2, width_ratios=(1.4, 8.6))
            ax = left.subplots()
            show_image(ax, photo, mask=True)
            ax.set_title("query")
            top, middle, bottom = right.subplots(3, 1, sharex=True, height_ratios=(1.1, 1, 0.8))
            attended_strip(top, strip, weight)
            top.set_title(title)
            at = np.arange(len(weight))
            middle.bar(at, weight, width=0.5, color=ORANGE)
            bottom.plot(at, product, "o-", color=BLUE, markersize=4, linewidth=1)
            _numbers(middle, weight, "weight", (0, 1.3 * weight.max()))
            reach = max(np.ptp(product), 0.05)
            _numbers(bottom, product, "q · view", (product.min() - 0.3 * reach, product.max() + 0.6 * reach))
    return figure


def attended_strip(ax: Axes, views: np.ndarray, weights: np.ndarray) -> None:
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
        ax.annotate(
            f"{value:.2f}", (x, value), (0, 3), textcoords="offset points", ha="center", fontsize=8, path_effects=HALO
        )
    ax.set(ylabel=label, ylim=limits, yticks=[])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", length=0, labelbottom=False)


def loss_matrix(
    scores: np.ndarray, target: np.ndarray, same_category: np.ndarray, instance: np.ndarray, category: np.ndarray,
    photos: Sequence[str], shapes: Sequence[str],
) -> Figure:  # fmt: skip
    """Show a small score matrix with its positives, and the two losses of each row.

    Args:
        scores: (Q, N).
        target: (Q,) column of the own shape, which gets a thick border.
        same_category: bool (Q, N); these shapes get a thin dashed border.
        instance: (Q,) instance loss.
        category: (Q,) category loss.
        photos: (Q,) row labels.
        shapes: (N,) column labels.
    """
    queries, columns = scores.shape
    with new_figure(1.8 + 0.42 * queries) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
        sns.heatmap(
            scores, annot=True, fmt=".2f", cmap=HEAT, vmin=min(0.0, scores.min()), vmax=1, cbar=False, ax=left,
            linewidths=1.5, linecolor="white", annot_kws={"size": 9},
        )  # fmt: skip
        for row, column in zip(*np.nonzero(same_category), strict=True):
            left.add_patch(_cell(row, column, PINK, 1.6, "--", 0.1, "category"))
        for row, column in enumerate(target):
            left.add_patch(_cell(row, column, RIGHT, 3.0, "-", 0.03, "own"))
        left.set_xticks(np.arange(columns) + 0.5, shapes, rotation=30, ha="right", rotation_mode="anchor")
        left.set_yticks(np.arange(queries) + 0.5, photos, rotation=0)
        left.set_title("Scores: own shape (green), same category (dashed)")
        left.tick_params(length=0)
        at = np.arange(queries) + 0.5
        for shift, values, label, color in ((-0.18, instance, "instance", RIGHT), (0.18, category, "category", PINK)):
            right.barh(at + shift, values, height=0.34, color=color, label=label)
            for y, value in zip(at + shift, values, strict=True):
                right.annotate(f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8)
        right.set(title="Loss of each photo", xlabel="nats", xlim=(0, 1.2 * max(instance.max(), category.max(), 1e-3)))
        right.tick_params(axis="y", length=0, labelleft=False)
        figure.legend(loc="outside lower right", ncols=2)
    return figure


def _cell(row: int, column: int, color: str, width: float, line: str, inset: float, gid: str) -> Rectangle:
    corner, side = (column + inset, row + inset), 1 - 2 * inset
    return Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=width, linestyle=line, gid=gid)


def training_curves(log: pd.DataFrame, smooth: int = 10) -> Figure:
    """Show losses, learning rate and validation of a run, and mark the step whose weights were kept.

    Args:
        log: `Run.log`: step, loss, instance, category, lr, val.top1, val.top10, val.mrr; NaN where a line lacks one.
        smooth: number of logged values in the running mean.
    """
    steps = log.dropna(subset="loss")
    looks = log.dropna(subset="val.mrr")
    best = looks.iloc[looks["val.mrr"].argmax()]  # training keeps the first best, as argmax does
    with new_figure(6.4) as figure:
        axes = figure.subplot_mosaic([["loss", "val"], ["lr", "val"]], height_ratios=(2.2, 1), width_ratios=(1, 1))
        for name, color in (("instance", RIGHT), ("category", PINK), ("loss", INK)):
            axes["loss"].plot(steps.step, steps[name], color=color, alpha=0.22, linewidth=0.9)
            mean = steps[name].rolling(smooth, min_periods=1, center=True).mean()
            axes["loss"].plot(steps.step, mean, color=color, label="total" if name == "loss" else name)
        axes["loss"].set(title="Training loss", ylabel="nats", ylim=(0, None))
        axes["loss"].legend()
        axes["lr"].plot(steps.step, steps.lr, color=BLUE)
        axes["lr"].set(title="Learning rate", xlabel="step", ylim=(0, None))
        axes["lr"].ticklabel_format(axis="y", scilimits=(-2, 2), useMathText=True)
        lines = (("val.top10", "Top-10", BLUE), ("val.top1", "Top-1", ORANGE), ("val.mrr", "MRR", GREEN))
        for column, label, color in lines:
            axes["val"].plot(looks.step, looks[column], "o-", color=color, label=label, markersize=4)
            axes["val"].plot(best.step, best[column], "o", color=color, markersize=10, markeredgecolor=INK, gid="best")
        axes["val"].axvline(best.step, color=INK, linewidth=1, linestyle=":")
        percent_axis(axes["val"], "y")
        axes["val"].set(ylim=(0, 1.04), xlabel="step", ylabel="per cent", title="Validation photos, whole gallery")
        late = best.step > looks.step.mean()
        shift, side = (-6, "right") if late else (6, "left")
        kept = f"kept: step {best.step:.0f}"
        axes["val"].annotate(kept, (best.step, 0.02), (shift, 0), textcoords="offset points", ha=side)
        axes["val"].legend(loc="best", frameon=True, edgecolor="white")
        for ax in axes.values():
            ax.grid(True, axis="y")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure
