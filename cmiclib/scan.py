"""One pass over a large gallery for few queries, compiled by numba: it reads each view once, at the memory's rate.

:func:`cmiclib.model.attention_scores` writes two products for each view and reads them again for the softmax. That is
right for many queries, where the products are the work; for one query, reading the gallery is all there is to do. Here
the softmax runs along (Milakov & Gimelshein, 2018): its maximum, its sum and the weighted sum of the cosines so far.
"""

import numba
import numpy as np
import torch
from torch import Tensor


def scan(query: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """Compute :func:`cmiclib.model.attention_scores` in one pass over the views.

    Args:
        query: (Q, d) float32, rows of length 1.
        views: (N, V, d) float32 or bfloat16, contiguous, last axis of length 1; may be memory-mapped.
        weight: (d, d) float32, the matrix W.

    Returns:
        (Q, N) float32.
    """
    turned, scores = query @ weight.T, query.new_empty(len(query), len(views))  # (Q, d), (Q, N)
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if views.dtype == torch.bfloat16:
        bits = views.contiguous().view(torch.int16).numpy().view(np.uint16)
        _scan_bfloat16(bits, query.contiguous().numpy(), turned.numpy(), scores.numpy())
    else:
        _scan_float32(views.contiguous().numpy(), query.contiguous().numpy(), turned.numpy(), scores.numpy())
    return scores


@numba.njit(fastmath=True, cache=True, nogil=True)
def _score(query, turned, views):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """Score of one query (d,) and one shape (V, d)."""
    peak, total, mixed = np.float32(-1e30), np.float32(0), np.float32(0)
    for v in range(len(views)):
        logit, cosine = np.float32(0), np.float32(0)
        for k in range(views.shape[1]):
            logit += turned[k] * views[v, k]
            cosine += query[k] * views[v, k]
        if logit > peak:
            rescale = np.exp(peak - logit)
            total, mixed, peak = total * rescale + np.float32(1), mixed * rescale + cosine, logit
        else:
            share = np.exp(logit - peak)
            total, mixed = total + share, mixed + share * cosine
    return mixed / total


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _scan_float32(views, query, turned, scores):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    for n in numba.prange(len(views)):
        for q in range(len(query)):
            scores[q, n] = _score(query[q], turned[q], views[n])


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _scan_bfloat16(bits, query, turned, scores):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    shapes, count, length = bits.shape
    for n in numba.prange(shapes):
        views = np.empty((count, length), np.float32)
        for v in range(count):
            for k in range(length):
                views[v, k] = np.uint32(np.uint32(bits[n, v, k]) << np.uint32(16)).view(np.float32)
        for q in range(len(query)):
            scores[q, n] = _score(query[q], turned[q], views)
