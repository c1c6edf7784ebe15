"""Losses that are not in the paper and can take the place of its instance loss.

They take scores, float (Q, N), photo by shape, and the column of each photo's own shape, int64 (Q,), return a scalar of
at least 0, and raise ValueError where shapes do not fit or a number that must be above 0 is not. A score of -Inf
excludes a shape; half precision is computed in float32. To add a loss, write its function here, an option in
:class:`cmiclib.config.LossConfig` and a line in :func:`total_loss`.
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
    photo are left out.
    """
    positive = one_hot(target, scores).T  # (N, Q)
    # A shape without a photo may be excluded for all: a softmax of nothing but -Inf has NaN as its gradient.
    reverse = scores.T.masked_fill(~positive.any(dim=1, keepdim=True), 0)
    return (instance_loss(scores, target, tau) + mean_over_positives(log_softmax(reverse, tau), positive)) / 2


def hard_negative_loss(scores: Tensor, target: Tensor, tau: float, beta: float) -> Tensor:
    """Return the instance loss in which wrong shapes with high scores count more (Robinson et al. 2021).

    With z = scores / tau, the sum over the n wrong shapes of exp(z) becomes n times their mean weighted by exp(beta z),
    so beta = 0 gives :func:`cmiclib.losses.instance_loss`, and equal scores give log N whatever beta is. A photo beside
    which no shape is wrong has loss 0. The paper's correction for positives among the negatives is left out, because
    other shapes are certainly wrong here.
    """
    check_scores(scores, tau, target=target)
    scaled, own = precise(scores) / tau, one_hot(target, scores)
    alone = (own | scaled.isneginf()).all(dim=1, keepdim=True)  # (Q, 1) no shape is wrong
    scaled, own = scaled.masked_fill(alone, 0), own & ~alone
    wrong = scaled.masked_fill(own, -torch.inf)
    mean = ((1 + beta) * wrong).logsumexp(dim=1) - (beta * scaled).masked_fill(own, -torch.inf).logsumexp(dim=1)  # (Q,)
    right = scaled.gather(1, target.unsqueeze(1)).squeeze(1)  # (Q,)
    each = torch.logaddexp(right, mean + wrong.isfinite().sum(dim=1, dtype=right.dtype).log()) - right
    return each.masked_fill(alone.squeeze(1), 0).mean()


def triplet_loss(scores: Tensor, target: Tensor, margin: float) -> Tensor:
    """Return the mean of max(0, margin + wrong - right) over the triplets of photo, own and wrong shape above 0.

    Solved triplets do not count in the mean, so that they do not drown the few others; if all are solved, it is 0.
    """
    check_scores(scores, margin, target=target, name="margin")
    scores = precise(scores)
    right = scores.gather(1, target.unsqueeze(1))  # (Q, 1)
    each = (margin + scores - right).clamp(min=0).masked_fill(one_hot(target, scores), 0)  # (Q, N)
    return each.sum() / (each > 0).sum().clamp(min=1)
