"""Points of shapes, purity of neighbourhoods, and the map."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cmiclib.evaluation.projection import neighbour_purity, shape_points, tsne


def unit(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_a_shape_lies_at_the_mean_of_its_views_on_the_sphere():
    points = shape_points(torch.stack([unit(0, 90), unit(10, 30)]))
    torch.testing.assert_close(points, unit(45, 20))


def test_purity_by_hand_leaves_the_point_itself_out():
    points, labels = unit(0, 10, 20, 90), np.array(["a", "a", "b", "b"])
    # Two nearest: 0° → 10°, 20°; 10° → 0°, 20°; 20° → 10°, 0°; 90° → 20°, 10°.
    own = np.arange(4)
    for among in (points, points.clone()):
        assert neighbour_purity(points, labels, among, labels, k=2, own=own).tolist() == [0.5, 0.5, 0.0, 0.5]


def test_purity_leaves_a_point_out_wherever_it_lies_and_all_neighbours_give_chance():
    among, labels = unit(90, 0, 10, 20), np.array(["b", "a", "a", "b"])
    rows = np.array([1, 3])  # 0° and 20°
    part = among[rows], labels[rows], among, labels
    assert neighbour_purity(*part, k=1, own=rows).tolist() == [1.0, 0.0]
    assert neighbour_purity(*part, k=9, own=rows).tolist() == [1 / 3, 1 / 3]
    assert neighbour_purity(*part, k=9).tolist() == [0.5, 0.5]


def test_purity_among_others_counts_equal_points_too():
    points, among = unit(0), unit(0, 10, 90)
    assert neighbour_purity(points, np.array([1]), among, np.array([1, 2, 1]), k=2).tolist() == [0.5]


def test_purity_agrees_with_a_slow_loop():
    rng = np.random.default_rng(0)
    points, among = (F.normalize(torch.from_numpy(rng.normal(size=(n, 5))), dim=1) for n in (7, 12))
    labels, among_labels = rng.integers(3, size=7), rng.integers(3, size=12)
    expected = []
    for point, label in zip(points, labels, strict=True):
        order = sorted(range(12), key=lambda j: -float(point @ among[j]))[:4]
        expected.append(np.mean([among_labels[j] == label for j in order]))
    np.testing.assert_allclose(neighbour_purity(points, labels, among, among_labels, k=4), expected)


@pytest.mark.parametrize("count", [4, 40])
def test_the_map_is_the_same_for_the_same_seed_and_keeps_clusters_apart(count):
    rng = np.random.default_rng(1)
    middle = torch.eye(8)[torch.arange(count) % 2]
    points = F.normalize(middle + 0.05 * torch.from_numpy(rng.normal(size=(count, 8))).float(), dim=1)
    first, again = tsne(points), tsne(points)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (count, 2) and np.isfinite(first).all()
    if count == 40:
        near = ((first[:, None] - first[None]) ** 2).sum(-1) + np.eye(count) * 1e9
        assert (near.argmin(1) % 2 == np.arange(count) % 2).all()
