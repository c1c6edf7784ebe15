"""Losses, training, attention over the camera's angle, and distributions."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .style import BLUE, CYCLE, FAINT, GREEN, HEAT, INK, ORANGE, PINK, RIGHT, despine, new_figure, note, percent_axis

BIN = 30  # degrees of the camera's angle


def loss_matrix(
    scores: np.ndarray, target: np.ndarray, same_category: np.ndarray, instance: np.ndarray, category: np.ndarray,
    photos: Sequence[str], shapes: Sequence[str],
) -> Figure:  # fmt: skip
    """Show a small score matrix (Q, N) with its positives, and the two losses (Q,) of each row.

    The own shape, of column ``target`` (Q,), gets a thick border, the shapes of ``same_category``, bool (Q, N), a thin
    dashed one. ``photos`` (Q,) and ``shapes`` (N,) label rows and columns.
    """
    queries, columns = scores.shape
    with new_figure(1.8 + 0.42 * queries) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
        sns.heatmap(
            scores, annot=True, fmt=".2f", cmap=HEAT, vmin=min(0.0, scores.min()), vmax=1, cbar=False, ax=left,
            linewidths=1.5, linecolor="white", annot_kws={"size": 9},
        )  # fmt: skip
        for gid, cells, gap, color, width, line in (
            ("category", np.argwhere(same_category), 0.1, PINK, 1.6, "--"),
            ("own", enumerate(target), 0.03, RIGHT, 3.0, "-"),
        ):
            for row, column in cells:
                place, side = (column + gap, row + gap), 1 - 2 * gap
                left.add_patch(Rectangle(place, side, side, fill=False, ec=color, lw=width, ls=line, gid=gid))
        left.set_xticks(np.arange(columns) + 0.5, shapes, rotation=30, ha="right", rotation_mode="anchor")
        left.set_yticks(np.arange(queries) + 0.5, photos, rotation=0)
        left.set_title("Scores: own shape (green), same category (dashed)")
        left.tick_params(length=0)
        at = np.arange(queries) + 0.5
        for shift, values, label, color in ((-0.18, instance, "instance", RIGHT), (0.18, category, "category", PINK)):
            right.barh(at + shift, values, height=0.34, color=color, label=label)
            for y, value in zip(at + shift, values, strict=True):
                note(right, f"{value:.2f}", (value, y), (3, 0), va="center", fontsize=8)
        right.set(title="Loss of each photo", xlabel="nats", xlim=(0, 1.2 * max(instance.max(), category.max(), 1e-3)))
        right.tick_params(axis="y", length=0, labelleft=False)
        figure.legend(loc="outside lower right", ncols=2)
    return figure


def temperatures(
    taus: np.ndarray, instance: np.ndarray, category: np.ndarray, marked: float, shares: Mapping[float, np.ndarray],
    shapes: Sequence[str], own: int,
) -> Figure:  # fmt: skip
    """Show both losses (T,) over the temperatures (T,), and one photo's softmax at some temperatures.

    ``marked`` is the temperature in use. ``shares`` maps a temperature to the softmax (N,) of one photo's scores;
    ``shapes`` (N,) label its columns, and ``own`` is the column of the photo's own shape.
    """
    with new_figure(3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        left.plot(taus, instance, color=RIGHT, label="instance")
        left.plot(taus, category, color=PINK, label="category")
        left.axvline(marked, color=INK, linewidth=1, linestyle=":")
        note(left, f"τ = {marked:g}", (marked, left.get_ylim()[1]), (4, -10))
        left.set(xscale="log", xlabel="temperature τ", ylabel="nats", title="Mean loss", ylim=(0, None))
        left.grid(True, axis="y")
        left.legend()
        at, width = np.arange(len(shapes)), 0.8 / len(shares)
        for i, (tau, share) in enumerate(shares.items()):
            place = at + (i - (len(shares) - 1) / 2) * width
            right.bar(place, share, width * 0.9, color=CYCLE[i], label=f"τ = {tau:g}")
        right.set_xticks(at, shapes, rotation=30, ha="right", rotation_mode="anchor")
        right.get_xticklabels()[own].set_fontweight("bold")
        right.set(title="Softmax of one photo's scores (own shape in bold)", ylim=(0, 1), ylabel="share")
        right.legend()
    return figure


def attention_by_angle(offset: np.ndarray, weights: np.ndarray, products: np.ndarray) -> Figure:
    """Show a view's weight (Q, V) and its product with the query (Q, V) over its angle to the photo's camera.

    ``offset`` (Q, V) is that angle around the vertical axis in degrees, in [-180, 180).
    """
    slot = np.rint(np.asarray(offset) / BIN).astype(int)  # -6 … 6
    slot[slot == 180 // BIN] *= -1
    slots = np.unique(slot)
    at = slots * BIN
    with new_figure(3.3) as figure:
        left, right = figure.subplots(1, 2)
        left.bar(at, [weights[slot == s].mean() for s in slots], width=0.7 * BIN, color=ORANGE)
        left.axhline(1 / weights.shape[1], color=FAINT, linewidth=1, linestyle="--")
        note(left, "uniform", (at[-1], 1 / weights.shape[1]), (0, 3), ha="right")
        left.set(title="Mean weight of a view", ylabel="weight")
        right.plot(at, [products[slot == s].mean() for s in slots], "o-", color=BLUE)
        right.set(title="Mean product of query and view", ylabel="q · view")
        for ax in (left, right):
            ax.set(xlabel="degrees from the photo's camera to the view's", xticks=at[::2])
            ax.grid(True, axis="y")
    return figure


def distributions(values: Mapping[str, np.ndarray], label: str, title: str, limits: tuple[float, float]) -> Figure:
    """Show the histogram of a quantity, ``label``, in several sets: the name of a set → its values (n,)."""
    bins = np.linspace(*limits, 34).tolist()
    with new_figure(2.8) as figure:
        ax = figure.subplots()
        for (name, part), color in zip(values.items(), (BLUE, ORANGE, GREEN, PINK), strict=False):
            share = np.full(len(part), 1 / len(part))
            ax.hist(part, bins, weights=share, color=color, alpha=0.55, label=f"{name} (median {np.median(part):.2f})")
            ax.axvline(float(np.median(part)), color=color, linewidth=1.5)
        ax.set(xlim=limits, xlabel=label, ylabel="share", title=title)
        ax.grid(True, axis="y")
        ax.legend()
        despine(ax)
    return figure


def training_curves(log: pd.DataFrame, smooth: int = 10) -> Figure:
    """Show losses, learning rate and validation of a run, and mark the step whose weights were kept.

    ``log`` is `Run.log`: step, loss, instance, category, lr, val.top1, val.top10, val.mrr; NaN where a line lacks one.
    The running mean is over ``smooth`` of its values.
    """
    steps, looks = log.dropna(subset="loss"), log.dropna(subset="val.mrr")
    best = looks.iloc[looks["val.mrr"].argmax()]  # training keeps the first best, as argmax does
    with new_figure(6.4) as figure:
        axes = figure.subplot_mosaic([["loss", "val"], ["lr", "val"]], height_ratios=(2.2, 1))
        for name, color in (("instance", RIGHT), ("category", PINK), ("loss", INK)):
            axes["loss"].plot(steps.step, steps[name], color=color, alpha=0.22, linewidth=0.9)
            mean = steps[name].rolling(smooth, min_periods=1, center=True).mean()
            axes["loss"].plot(steps.step, mean, color=color, label="total" if name == "loss" else name)
        axes["loss"].set(title="Training loss", ylabel="nats", ylim=(0, None))
        axes["loss"].legend()
        axes["lr"].plot(steps.step, steps.lr, color=BLUE)
        axes["lr"].set(title="Learning rate", xlabel="step", ylim=(0, None))
        axes["lr"].ticklabel_format(axis="y", scilimits=(-2, 2), useMathText=True)
        for name, label, color in (("top10", "Top-10", BLUE), ("top1", "Top-1", ORANGE), ("mrr", "MRR", GREEN)):
            column = f"val.{name}"
            axes["val"].plot(looks.step, looks[column], "o-", color=color, label=label, markersize=4)
            axes["val"].plot(best.step, best[column], "o", color=color, markersize=10, markeredgecolor=INK, gid="best")
        axes["val"].axvline(best.step, color=INK, linewidth=1, linestyle=":")
        percent_axis(axes["val"], "y")
        axes["val"].set(ylim=(0, 1.04), xlabel="step", ylabel="per cent", title="Validation photos, whole gallery")
        shift, side = (-6, "right") if best.step > looks.step.mean() else (6, "left")
        note(axes["val"], f"kept: step {best.step:.0f}", (best.step, 0.02), (shift, 0), ha=side)
        axes["val"].legend(loc="best", frameon=True, edgecolor="white")
        for ax in axes.values():
            ax.grid(True, axis="y")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure
