"""Instance and category contrastive loss on a matrix of scores.

Rows are photos, columns are the distinct shapes of the batch. Both losses are cross-entropies of one softmax over
the shapes; they differ in which shapes count as right: the photo's own one, or all of its category. Losses that are not
in the paper are in :mod:`cmiclib.training.other_losses`.
"""

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

    ValueError: shapes that do not fit, or tau not above 0.
    """
    check_scores(scores, tau, target=target)
    return -log_softmax(scores, tau).gather(1, target.unsqueeze(1)).mean()


def category_loss(
    scores: Tensor,
    same_category: Tensor,
    tau: float,
    include_instance: bool = True,
    target: Tensor | None = None,
    drop_zeros: bool = False,
) -> Tensor:
    """Return -log softmax(scores / tau), averaged over each photo's positives, then over photos.

    Positives are the shapes of the photo's category. The softmax is over all shapes either way, so that
    `include_instance` changes only the positives. A photo without positives is left out of the mean; the loss is 0
    where no photo has any.

    Args:
        scores: float (Q, N), photo by shape; half precision is computed in float32.
        same_category: bool (Q, N), True where the shape is of the photo's category.
        tau: temperature, above 0.
        include_instance: count the own shape among the positives, as the released code does.
        target: int64 (Q,), the column of each photo's own shape; needed to leave it out.
        drop_zeros: leave out of the mean each photo whose loss rounds to exactly 0, because its only positive takes
            the whole softmax. The released code does this.

    Returns:
        A scalar, at least 0.

    ValueError: shapes that do not fit, tau not above 0, or no target where one is needed.
    """
    check_scores(scores, tau, same_category=same_category, target=target)
    if not include_instance:
        if target is None:
            raise ValueError("include_instance=False needs target, the column of each photo's own shape")
        same_category = same_category & ~one_hot(target, scores)
    if drop_zeros:  # float64 tells a loss of 0 from one of 1e-7
        return mean_over_positives(log_softmax(scores.double(), tau), same_category, True).to(scores.dtype)
    return mean_over_positives(log_softmax(scores, tau), same_category)


def cmic_loss(
    scores: Tensor, target: Tensor, same_category: Tensor, config: LossConfig, instance: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the total loss, its instance part and its category part: instance + weight · category.

    The category part is 0 where the whole batch is of one category, as in the released code: there it would push
    all photos towards all shapes alike. So it never acts on a benchmark of cars.

    Args:
        scores: float (Q, N), photo by shape.
        target: int64 (Q,), the column of each photo's own shape.
        same_category: bool (Q, N), True where the shape is of the photo's category.
        config: temperature, weight and the category loss's options.
        instance: a scalar that takes the place of the instance loss.

    Returns:
        Three scalars.

    ValueError: shapes that do not fit.
    """
    if instance is None:
        instance = instance_loss(scores, target, config.tau)
    drop_zeros = config.zero_losses == "dropped"
    category = category_loss(scores, same_category, config.tau, config.include_instance, target, drop_zeros)
    category = torch.where(same_category.all(), torch.zeros_like(category), category)
    return instance + config.category_weight * category, instance, category


def log_softmax(scores: Tensor, tau: float) -> Tensor:
    """Log-softmax over the shapes, in float32 at least."""
    return torch.log_softmax(precise(scores) / tau, dim=1)


def precise(scores: Tensor) -> Tensor:
    """Scores in float32 at least."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def one_hot(target: Tensor, scores: Tensor) -> Tensor:
    """Bool (Q, N), True at each photo's own shape."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, target.unsqueeze(1), True)


def mean_over_positives(log_probability: Tensor, positive: Tensor, drop_zeros: bool = False) -> Tensor:
    """Mean over the positives of each row, then over the rows that have some."""
    count = positive.sum(dim=1)  # (Q,)
    each = -log_probability.masked_fill(~positive, 0).sum(dim=1) / count.clamp(min=1)
    counted = (count > 0) & (each > ROUNDS_TO_ZERO) if drop_zeros else count > 0
    return each.sum() / counted.sum().clamp(min=1)


def check_scores(
    scores: Tensor, tau: float, same_category: Tensor | None = None, target: Tensor | None = None, name: str = "tau"
) -> None:
    """Raise ValueError where shapes or types do not fit, or where ``tau``, called ``name``, is not above 0."""
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
