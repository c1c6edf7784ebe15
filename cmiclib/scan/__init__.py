"""Score a gallery on the CPU: a large one in one compiled pass, a small one by plain products.

:func:`cmiclib.model.fused_scores` calls it. Copies of one shape get equal scores, and a query alone gets the scores
that it gets in a batch: in the compiled pass because every pair of query and shape goes through the same arithmetic,
in a small gallery because of double precision. Which of the two it is depends on the gallery alone.
"""

import numpy as np
import torch
from torch import Tensor

from ..config import Fusion

FUSIONS: tuple[Fusion, ...] = ("attention", "mean", "max")
FEW = 1 << 18
"""Numbers of a small gallery, such as 80 shapes: they are scored before numba is loaded."""
SHAPES = 256
"""Shapes in a piece of work; each piece allocates three small arrays."""
ALONE = 1 << 14
"""Scores that one thread computes within milliseconds. A process that never used more threads can still be forked."""


def scan(query: Tensor, views: Tensor, weight: Tensor, fusion: Fusion = "attention") -> Tensor:
    """Compute :func:`cmiclib.model.fused_scores` without gradients, on the CPU.

    Args:
        query: (Q, d) float32, rows of length 1.
        views: (N, V, d) float32 or bfloat16, last axis of length 1; may be memory-mapped.
        weight: (d, d) float32, the matrix W; only attention uses it.
        fusion: how views become a score.

    Returns:
        (Q, N) float32. Views in bfloat16 are widened; the arithmetic is float32, in a small gallery double.
    """
    # In double precision, because the matrix product of a library depends on how many queries there are.
    turned = query.double() @ weight.double().T  # (Q, d)
    if views.numel() <= FEW:
        scores = _scan_few(query.double(), turned, views.double(), fusion)
    else:
        scores = scan_compiled(query, turned.float(), views, fusion)
    bad = query if fusion != "attention" else turned
    scores[~bad.isfinite().all(dim=1)] = torch.nan  # a maximum passes over NaN
    return scores


def _scan_few(query: Tensor, turned: Tensor, views: Tensor, fusion: Fusion) -> Tensor:
    scores = torch.empty(len(query), len(views))  # (Q, N)
    for n, shape in enumerate(views):  # (V, d)
        cosines = query @ shape.T  # (Q, V)
        if fusion == "attention":
            cosines = (turned @ shape.T).softmax(dim=1) * cosines
        scores[:, n] = cosines.amax(dim=1) if fusion == "max" else cosines.sum(dim=1)
    return scores / views.shape[1] if fusion == "mean" else scores


def scan_compiled(query: Tensor, turned: Tensor, views: Tensor, fusion: Fusion) -> Tensor:
    """Score by the compiled pass: query and turned (Q, d) float32, views (N, V, d) → (Q, N)."""
    scores = query.new_empty(len(query), len(views))
    if not scores.numel():
        return scores
    import numba  # these take longer to load than a small gallery takes

    from .compiled import scan_all, scan_piece

    views = views.contiguous()
    numbers = views.view(torch.int16).numpy().view(np.uint16) if views.dtype == torch.bfloat16 else views.numpy()
    inputs = numbers, query.contiguous().numpy(), turned.numpy(), scores.numpy(), FUSIONS.index(fusion)
    if scores.numel() <= ALONE:
        scan_piece(*inputs, 0, len(views))
    else:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        scan_all(*inputs)
    return scores
