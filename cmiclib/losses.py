"""Instance and category contrastive loss on a matrix of scores.

Rows are photos, columns are the distinct shapes of the batch. Both losses are cross-entropies of one softmax over
the shapes; they differ in which shapes count as right: the photo's own one, or all of its category.
"""

import math

import torch
from torch import Tensor

from .config import LossConfig

ROUNDS_TO_ZERO = 8e-8
"""A loss below this is 0 in the released code, which takes a float32 share's logarithm: 6.0e-8 is, 1.0e-7 is not."""


def instance_loss(scores: Tensor, target: Tensor, tau: float) -> Tensor:
    """Return the mean over photos of -log softmax(scores / tau) at the own shape.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32.
        target: int64 (Q,), the column of each photo's own shape.
        tau: temperature, above 0.

    Returns:
        A scalar, at least 0; log N where all scores are equal.

    Raises:
        ValueError: shapes that do not fit, or tau not above 0.
    """
    _check(scores, tau, target=target)
    return -_log_softmax(scores, tau).gather(1, target.unsqueeze(1)).mean()


def hard_negative_loss(scores: Tensor, target: Tensor, tau: float, beta: float) -> Tensor:
    """Return the instance loss in which wrong shapes that score high count more (Robinson et al. 2021).

    With z = scores / tau, the sum over the n wrong shapes of exp(z) becomes n times their mean weighted by exp(beta z).
    Their correction for wrong labels among the negatives is left out: other shapes are wrong here for certain.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32.
        target: int64 (Q,), the column of each photo's own shape.
        tau: temperature, above 0.
        beta: concentration; 0 gives :func:`instance_loss`.

    Returns:
        A scalar, at least 0; log N where all scores are equal, whatever beta is.

    Raises:
        ValueError: shapes that do not fit, or tau not above 0.
    """
    _check(scores, tau, target=target)
    if scores.shape[1] < 2:
        return instance_loss(scores, target, tau)
    scaled = _precise(scores) / tau
    own = _one_hot(target, scores)
    wrong = scaled.masked_fill(own, -torch.inf)
    mean = ((1 + beta) * wrong).logsumexp(dim=1) - (beta * scaled).masked_fill(own, -torch.inf).logsumexp(dim=1)  # (Q,)
    right = scaled.gather(1, target.unsqueeze(1)).squeeze(1)  # (Q,)
    return (torch.logaddexp(right, mean + math.log(scores.shape[1] - 1)) - right).mean()


def triplet_loss(scores: Tensor, target: Tensor, margin: float) -> Tensor:
    """Return the mean of max(0, margin + wrong - right) over all triplets of photo, own and wrong shape above 0.

    Triplets that are solved do not count in the mean, so that the few others are not drowned.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32.
        target: int64 (Q,), the column of each photo's own shape.
        margin: by which the own shape's score shall be larger, above 0.

    Returns:
        A scalar, at least 0; 0 where every triplet is solved.

    Raises:
        ValueError: shapes that do not fit, or a margin not above 0.
    """
    _check(scores, margin, target=target, name="margin")
    scores = _precise(scores)
    right = scores.gather(1, target.unsqueeze(1))  # (Q, 1)
    each = (margin + scores - right).clamp(min=0).masked_fill(_one_hot(target, scores), 0)  # (Q, N)
    return each.sum() / (each > 0).sum().clamp(min=1)


def category_loss(
    scores: Tensor,
    same_category: Tensor,
    tau: float,
    include_instance: bool = True,
    target: Tensor | None = None,
    drop_zeros: bool = False,
) -> Tensor:
    """Return -log softmax(scores / tau), averaged over each photo's positives, then over photos.

    Positives are the shapes of the photo's category. The softmax is over all shapes either way, so that only the
    positives change with `include_instance`. A photo without positives is left out of the mean; if there is none
    with positives, the loss is 0.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32.
        same_category: bool (Q, N), True where the shape is of the photo's category.
        tau: temperature, above 0.
        include_instance: count the own shape among the positives, as the released code does.
        target: int64 (Q,), the column of each photo's own shape; needed to leave it out.
        drop_zeros: leave a photo out whose loss rounds to exactly 0, that is, whose only positive takes the whole
            softmax. The released code does; else it counts as the 0 that it is.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit, tau not above 0, or no target where one is needed.
    """
    _check(scores, tau, same_category=same_category, target=target)
    if not include_instance:
        if target is None:
            raise ValueError("include_instance=False needs target, the column of each photo's own shape")
        same_category = same_category & ~_one_hot(target, scores)
    if drop_zeros:  # whether a loss is 0 or 1e-7 is a question for float64
        return _mean_over_positives(_log_softmax(scores.double(), tau), same_category, True).to(scores.dtype)
    return _mean_over_positives(_log_softmax(scores, tau), same_category)


def cmic_loss(
    scores: Tensor, target: Tensor, same_category: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the total loss, its instance part and its category part: instance + weight · category.

    The category part is 0 where the whole batch is of one category, as in the released code: there it would push
    all photos towards all shapes alike. So it never acts on a benchmark of cars.

    With `config.symmetric` the instance part is the mean of both directions. In the direction from shape to photo
    the softmax is over the photos, the positives are all photos of the shape, and shapes without one are left out.

    `config.instance` and `config.hard_negatives` put another loss in the instance loss's place.

    Args:
        scores: float (Q, N), photo by shape.
        target: int64 (Q,), the column of each photo's own shape.
        same_category: bool (Q, N), True where the shape is of the photo's category.
        config: temperature, weight and options.

    Returns:
        Three scalars.

    Raises:
        ValueError: shapes that do not fit.
    """
    if config.instance == "triplet":
        instance = triplet_loss(scores, target, config.margin)
    elif config.hard_negatives:
        instance = hard_negative_loss(scores, target, config.tau, config.hard_negatives)
    else:
        instance = instance_loss(scores, target, config.tau)
    if config.symmetric:
        reverse = _mean_over_positives(_log_softmax(scores.T, config.tau), _one_hot(target, scores).T)
        instance = (instance + reverse) / 2
    drop_zeros = config.zero_losses == "dropped"
    category = category_loss(scores, same_category, config.tau, config.include_instance, target, drop_zeros)
    category = torch.where(same_category.all(), torch.zeros_like(category), category)
    return instance + config.category_weight * category, instance, category


def _log_softmax(scores: Tensor, tau: float) -> Tensor:
    return torch.log_softmax(_precise(scores) / tau, dim=1)


def _precise(scores: Tensor) -> Tensor:
    return scores.to(torch.float64 if scores.dtype == torch.float64 else torch.float32)


def _one_hot(target: Tensor, scores: Tensor) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, target.unsqueeze(1), True)  # (Q, N)


def _mean_over_positives(log_probability: Tensor, positive: Tensor, drop_zeros: bool = False) -> Tensor:
    count = positive.sum(dim=1)  # (Q,)
    each = -log_probability.masked_fill(~positive, 0).sum(dim=1) / count.clamp(min=1)
    counted = (count > 0) & (each > ROUNDS_TO_ZERO) if drop_zeros else count > 0
    return each.sum() / counted.sum().clamp(min=1)


def _check(
    scores: Tensor,
    tau: float,
    same_category: Tensor | None = None,
    target: Tensor | None = None,
    name: str = "tau",
) -> None:
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ValueError(f"scores are {scores.dtype} {tuple(scores.shape)}: pass floats (photos, shapes)")
    if tau <= 0:
        raise ValueError(f"{name} is {tau}: pass a number above 0")
    if target is not None and (target.shape != scores.shape[:1] or target.dtype != torch.int64):
        found = f"{target.dtype} {tuple(target.shape)}"
        raise ValueError(f"target is {found}: pass int64 ({len(scores)},), one column a photo")
    if same_category is not None and (same_category.shape != scores.shape or same_category.dtype != torch.bool):
        found = f"{same_category.dtype} {tuple(same_category.shape)}"
        raise ValueError(f"same_category is {found}: pass bool {tuple(scores.shape)}")
