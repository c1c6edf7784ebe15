"""The common space of photos and shapes: one point for each, a map of them, and how pure neighbourhoods are."""

import numpy as np
import torch
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn import functional as F


def shape_points(views: Tensor) -> Tensor:
    """Return one point a shape: the mean of its views' vectors, at length 1.

    A shape's descriptor depends on the query that asks (its views are weighted by attention), so a shape has no
    point of its own; the mean is the descriptor that attention gives when it prefers no view.

    Args:
        views: (N, V, d), last axis of length 1.

    Returns:
        (N, d), rows of length 1.
    """
    return F.normalize(views.mean(dim=1), dim=1)


def plane(points: Tensor, seed: int = 0, perplexity: float = 30) -> np.ndarray:
    """Lay points out in the plane by t-SNE, started from their principal components.

    Args:
        points: (n, d), rows of length 1: squared distances are then 2 - 2 · cosine.
        seed: of the optimisation.
        perplexity: about how many neighbours count; at most a third of the points are used.

    Returns:
        (n, 2) float32, the same for the same points and seed on the same machine.
    """
    perplexity = min(perplexity, (len(points) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(points.numpy())


def neighbour_purity(
    points: Tensor, labels: np.ndarray, among: Tensor, among_labels: np.ndarray, k: int = 10
) -> np.ndarray:
    """Return for each point the share of its k nearest neighbours that have its label, measured in the space itself.

    Args:
        points: (n, d), rows of length 1.
        labels: (n,).
        among: (m, d), where neighbours are looked for; the very same tensor as ``points`` leaves each point itself out.
        among_labels: (m,).
        k: neighbours; all of them where there are fewer.

    Returns:
        (n,) in [0, 1].
    """
    cosine = points @ among.T  # (n, m)
    if among is points:
        cosine.fill_diagonal_(-torch.inf)
    nearest = cosine.topk(min(k, len(among) - (among is points)), dim=1).indices.numpy()  # (n, k)
    return (np.asarray(among_labels)[nearest] == np.asarray(labels)[:, None]).mean(axis=1)
