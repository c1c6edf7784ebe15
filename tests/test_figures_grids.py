"""Grids of pictures, and curves of losses and attention: what is drawn is what was given."""

import numpy as np
import pytest

from cmiclib.figures.curves import attention_by_angle, distributions, temperatures
from cmiclib.figures.grids import compare_views, grid


def shown(figure) -> list[np.ndarray]:
    """Pictures of a figure, in order."""
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.get_images()]


def test_grid_shows_every_picture_under_its_title() -> None:
    pictures = [np.full((4, 4), i, np.uint8) for i in range(5)]
    figure = grid(pictures, [f"picture {i}" for i in range(5)], across=3)
    figure.draw_without_rendering()
    assert len(figure.axes) == 6 and not figure.axes[5].axison
    assert [int(image[0, 0].max()) for image in shown(figure)] == [0, 1, 2, 3, 4]
    assert [ax.get_title(loc="left") for ax in figure.axes[:5]] == [f"picture {i}" for i in range(5)]


def test_grid_leaves_no_empty_columns() -> None:
    assert len(grid([np.zeros((4, 4), np.uint8)] * 2, across=6).axes) == 2


def test_compare_views_draws_the_absolute_difference() -> None:
    stored, fresh = np.full((3, 4, 4), 10, np.uint8), np.full((3, 4, 4), 250, np.uint8)
    differences = shown(compare_views(stored, fresh, [0, 120, 240]))[6:9]
    assert all((difference == 240).all() for difference in differences)  # no wrap-around of uint8


def test_temperatures_mark_the_own_shape() -> None:
    taus = np.geomspace(0.1, 1, 5)
    shares = {0.1: np.array([0.7, 0.2, 0.1]), 1.0: np.array([0.4, 0.3, 0.3])}
    figure = temperatures(taus, 2 * taus, 3 * taus, 0.3, shares, ["a", "b", "c"], own=1)
    left, right = figure.axes
    assert np.allclose(left.lines[0].get_ydata(), 2 * taus) and np.allclose(left.lines[1].get_ydata(), 3 * taus)
    assert [bar.get_height() for bar in right.patches] == [0.7, 0.2, 0.1, 0.4, 0.3, 0.3]
    assert [label.get_fontweight() for label in right.get_xticklabels()] == ["normal", "bold", "normal"]


def test_attention_by_angle_averages_by_slot_and_joins_both_ends() -> None:
    offset = np.array([[-178.0, -14, 16, 178]])
    weights, products = np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.0, 1, 2, 3]])
    left, right = attention_by_angle(offset, weights, products).axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in left.patches}
    assert bars == pytest.approx({-180: 0.25, 0: 0.2, 30: 0.3})
    assert np.allclose(right.lines[0].get_ydata(), [1.5, 1, 2])


def test_distributions_are_shares() -> None:
    figure = distributions({"few": np.full(3, 0.5), "many": np.linspace(0, 1, 50)}, "x", "title", (0, 1))
    heights = np.array([bar.get_height() for bar in figure.axes[0].patches]).reshape(2, -1)
    assert np.allclose(heights.sum(axis=1), 1)
    assert "few (median 0.50)" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
