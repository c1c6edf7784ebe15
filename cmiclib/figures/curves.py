"""Losses over the temperature, attention over the camera's angle, and distributions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import BLUE, CYCLE, FAINT, GREEN, INK, ORANGE, PINK, RIGHT, despine, new_figure


def temperatures(
    taus: np.ndarray, instance: np.ndarray, category: np.ndarray, marked: float, shares: Mapping[float, np.ndarray],
    shapes: Sequence[str], own: int,
) -> Figure:  # fmt: skip
    """Show both losses over the temperature, and one photo's softmax at some temperatures.

    Args:
        taus: (T,) temperatures.
        instance: (T,) instance loss.
        category: (T,) category loss.
        marked: the temperature in use.
        shares: temperature → (N,) softmax of one photo's scores.
        shapes: (N,) column labels.
        own: column of the photo's own shape.
    """
    with new_figure(3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        left.plot(taus, instance, color=RIGHT, label="instance")
        left.plot(taus, category, color=PINK, label="category")
        left.axvline(marked, color=INK, linewidth=1, linestyle=":")
        left.annotate(f"τ = {marked:g}", (marked, left.get_ylim()[1]), (4, -10), textcoords="offset points")
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


def attention_by_angle(offset: np.ndarray, weights: np.ndarray, products: np.ndarray, step: float = 30) -> Figure:
    """Show a view's weight and fit over its angle to the photo's camera.

    Args:
        offset: (Q, V) degrees from the photo's camera to the view's around the vertical axis, in [-180, 180).
        weights: (Q, V), rows sum to 1.
        products: (Q, V) products of query and view.
        step: degrees of a bin.
    """
    slot = np.rint(np.asarray(offset) / step).astype(int)  # -6 … 6
    slot[slot == round(180 / step)] *= -1
    slots = np.unique(slot)
    at = slots * step
    with new_figure(3.3) as figure:
        left, right = figure.subplots(1, 2)
        left.bar(at, [weights[slot == s].mean() for s in slots], width=0.7 * step, color=ORANGE)
        left.axhline(1 / weights.shape[1], color=FAINT, linewidth=1, linestyle="--")
        left.annotate("uniform", (at[-1], 1 / weights.shape[1]), (0, 3), textcoords="offset points", ha="right")
        left.set(title="Mean weight of a view", ylabel="weight")
        right.plot(at, [products[slot == s].mean() for s in slots], "o-", color=BLUE)
        right.set(title="Mean product of query and view", ylabel="q · view")
        for ax in (left, right):
            ax.set(xlabel="degrees from the photo's camera to the view's", xticks=at[::2])
            ax.grid(True, axis="y")
    return figure


def distributions(values: Mapping[str, np.ndarray], label: str, title: str, limits: tuple[float, float]) -> Figure:
    """Show the histogram of a quantity in several sets.

    Args:
        values: name of a set → its values (n,).
        label: the axis label.
        title: the title.
        limits: ends of the axis.
    """
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
