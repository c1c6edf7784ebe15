"""Losses that are not in the paper and can take the place of its instance loss.

To add one, write its function here, an option in :class:`cmiclib.config.LossConfig` and a line in :func:`total_loss`.
"""

import torch
from torch import Tensor

from ..config import LossConfig
from ..losses import check_scores, cmic_loss, instance_loss, log_softmax, mean_over_positives, one_hot, precise


def total_loss(
    scores: Tensor, target: Tensor, same_category: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return :func:`cmiclib.losses.cmic_loss` with the instance loss that the configuration chooses."""
    instance = None
    if config.instance == "triplet":
        instance = triplet_loss(scores, target, config.margin)
    elif config.hard_negatives:
        instance = hard_negative_loss(scores, target, config.tau, config.hard_negatives)
    elif config.symmetric:
        instance = symmetric_loss(scores, target, config.tau)
    return cmic_loss(scores, target, same_category, config, instance)


def symmetric_loss(scores: Tensor, target: Tensor, tau: float) -> Tensor:
    """Return the mean of the instance loss in both directions, photo to shape and shape to photo.

    From shape to photo the softmax is over the photos, all photos of the shape are positives, and shapes without a
    photo are left out. Arguments and errors are those of :func:`cmiclib.losses.instance_loss`.
    """
    reverse = mean_over_positives(log_softmax(scores.T, tau), one_hot(target, scores).T)
    return (instance_loss(scores, target, tau) + reverse) / 2


def hard_negative_loss(scores: Tensor, target: Tensor, tau: float, beta: float) -> Tensor:
    """Return the instance loss in which wrong shapes with high scores count more (Robinson et al. 2021).

    With z = scores / tau, the sum over the n wrong shapes of exp(z) becomes n times their mean weighted by exp(beta z).
    Their correction for positives among the negatives is left out, because other shapes are certainly wrong here.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32. -Inf excludes a shape.
        target: int64 (Q,), the column of each photo's own shape.
        tau: temperature, above 0.
        beta: concentration; 0 gives :func:`cmiclib.losses.instance_loss`.

    Returns:
        A scalar, at least 0; log N where all scores are equal, whatever beta is.

    Raises:
        ValueError: shapes that do not fit, or tau not above 0.
    """
    check_scores(scores, tau, target=target)
    if scores.shape[1] < 2:
        return instance_loss(scores, target, tau)
    scaled, own = precise(scores) / tau, one_hot(target, scores)
    wrong = scaled.masked_fill(own, -torch.inf)
    mean = ((1 + beta) * wrong).logsumexp(dim=1) - (beta * scaled).masked_fill(own, -torch.inf).logsumexp(dim=1)  # (Q,)
    right = scaled.gather(1, target.unsqueeze(1)).squeeze(1)  # (Q,)
    return (torch.logaddexp(right, mean + wrong.isfinite().sum(dim=1, dtype=right.dtype).log()) - right).mean()


def triplet_loss(scores: Tensor, target: Tensor, margin: float) -> Tensor:
    """Return the mean of max(0, margin + wrong - right) over the triplets of photo, own and wrong shape above 0.

    Solved triplets do not count in the mean, so that they do not drown the few others.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32. -Inf excludes a shape.
        target: int64 (Q,), the column of each photo's own shape.
        margin: by which the own shape's score should be larger, above 0.

    Returns:
        A scalar, at least 0; 0 where every triplet is solved.

    Raises:
        ValueError: shapes that do not fit, or a margin not above 0.
    """
    check_scores(scores, margin, target=target, name="margin")
    scores = precise(scores)
    right = scores.gather(1, target.unsqueeze(1))  # (Q, 1)
    each = (margin + scores - right).clamp(min=0).masked_fill(one_hot(target, scores), 0)  # (Q, N)
    return each.sum() / (each > 0).sum().clamp(min=1)
