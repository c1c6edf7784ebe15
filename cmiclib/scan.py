"""Score a large gallery, compiled by numba: every view is read once, and what lies between stays in the caches.

:func:`cmiclib.model.attention_scores` takes this way by itself where it pays. It is two ways, for two limits:

**A few queries.** Reading the gallery is all there is to do. One pass computes both products of a shape's views, whose
softmax follows at once; nothing of it is written but the score.

**Many queries.** The products are the work, so they are matrix products, both in one: a block of views times W q and q
of all queries, side by side. What is left, the softmax over a shape's views, passes over the block while it is in the
caches; the queries lie side by side there, too, and fill the processor's vectors.
"""

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from torch import Tensor

QUERIES = 256
"""Of a block: both products of a shape's twelve views fit into a core's first cache."""
PRODUCTS = 1 << 20
"""Numbers in a block of products: 4 MB, which stay in the caches of the cores."""


def scan(query: Tensor, views: Tensor, weight: Tensor, *, few: bool) -> Tensor:
    """Compute :func:`cmiclib.model.attention_scores` without gradients, on the CPU.

    Args:
        query: (Q, d) float32, rows of length 1.
        views: (N, V, d) float32 or bfloat16, last axis of length 1; may be memory-mapped.
        weight: (d, d) float32, the matrix W.
        few: take the way of a few queries; Q should be at most about 4.

    Returns:
        (Q, N) float32. From views in bfloat16, a few queries are scored as they are; many are
        rounded to bfloat16, too, and so are their products, where the processor multiplies such matrices.
    """
    turned = query @ weight.T  # (Q, d)
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    scores = _scan_few(query, turned, views) if few else _scan_many(query, turned, views)
    # A comparison with what is no number says no, so that a maximum would pass over it.
    scores[~turned.isfinite().all(dim=1)] = torch.nan
    return scores


def _scan_few(query: Tensor, turned: Tensor, views: Tensor) -> Tensor:
    scores = query.new_empty(len(query), len(views))  # (Q, N)
    arrays = query.contiguous().numpy(), turned.numpy(), scores.numpy()
    if views.dtype == torch.bfloat16:
        _scan_bfloat16(_bits(views.contiguous()), *arrays)
    else:
        _scan_float32(views.contiguous().numpy(), *arrays)
    return scores


def _scan_many(query: Tensor, turned: Tensor, views: Tensor) -> Tensor:
    half = views.dtype == torch.bfloat16 and multiplies_bfloat16()
    kind = torch.bfloat16 if half else torch.float32
    scores = query.new_empty(len(query), len(views))  # (Q, N)
    width = max(1, PRODUCTS // (2 * min(len(query), QUERIES) * views.shape[1]))
    parts = []
    for t, q, rows in zip(turned.split(QUERIES), query.split(QUERIES), scores.split(QUERIES), strict=True):
        both = torch.cat([t, q]).T.contiguous().to(kind)  # (d, 2·q)
        parts.append((both, torch.empty(width * views.shape[1], both.shape[1], dtype=kind), rows))
    mixed = torch.empty(width, QUERIES)
    for start in range(0, len(views), width):
        block = views[start : start + width].to(kind)  # (n, V, d)
        for both, room, rows in parts:
            products = torch.mm(block.flatten(0, 1), both, out=room[: block.shape[0] * block.shape[1]])  # (n·V, 2·q)
            products = products.unflatten(0, block.shape[:2])
            out = mixed[: len(block), : len(rows)]  # (n, q)
            if half:
                _mix_bfloat16(_bits(products), out.numpy())
            else:
                _mix_float32(products.numpy(), out.numpy())
            rows[:, start : start + width] = out.T
    return scores


def multiplies_bfloat16() -> bool:
    """Tell whether this processor has instructions for products of bfloat16; without them they are slow."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sme"))


def _bits(tensor: Tensor) -> np.ndarray:
    """Return bfloat16, which numpy does not have, as uint16."""
    return tensor.view(torch.int16).numpy().view(np.uint16)


# What is no number has to stay none, so the compiler may not leave it out of account. It may take sums in any order.
SUMS = {"reassoc", "contract", "nsz"}
SHAPES = 256
"""Of a piece of work; two small arrays are made for each."""
AHEAD = 4
"""Views that are asked for before they are needed: the processor's own look-ahead ends with each page of memory."""
LINE = 64
"""Bytes of a cache line."""


@intrinsic
def _prefetch(typing, array, place):  # type: ignore[no-untyped-def]
    """Ask for the cache line of ``array[place]``; a place behind the array's end does no harm."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, number(0), number(0), number(1)])  # to read, once, data
        return context.get_dummy_value()

    return numba.void(array, place), emit


@numba.njit(fastmath=SUMS, error_model="numpy", inline="always")
def _widen(bits):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """One bfloat16 as float32: its upper half."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@numba.njit(fastmath=SUMS, error_model="numpy", inline="always")
def _exp(x):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """exp(x) for x ≤ 0, float32, within 2 units of the last digit; numba's own is a call and fills no vectors.

    exp(x) = 2^k · exp(r) with |r| ≤ ln(2) / 2, and the Taylor series of exp(r) up to r⁷.
    """
    x = np.float32(-87) if x < np.float32(-87) else x
    k = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - k * np.float32(0.69314718)
    series = np.float32(1 / 5040)
    series = series * r + np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(0.5)
    series = series * r + np.float32(1)
    series = series * r + np.float32(1)
    return series * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(fastmath=SUMS, error_model="numpy", inline="always")
def _mixture(logits, cosines):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """Logits and cosines of one shape's views (V,) → score."""
    peak, total, mixed = logits[0], np.float32(0), np.float32(0)
    for v in range(1, len(logits)):
        peak = logits[v] if logits[v] > peak else peak
    for v in range(len(logits)):
        share = _exp(logits[v] - peak)
        total += share
        mixed += share * cosines[v]
    return mixed / total


@numba.njit(parallel=True, fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def _scan_float32(views, query, turned, scores):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    shapes, count, length = views.shape
    flat, line = views.reshape(-1), LINE // views.itemsize
    for piece in numba.prange((shapes + SHAPES - 1) // SHAPES):
        logits, cosines = np.empty(count, np.float32), np.empty(count, np.float32)
        for n in range(piece * SHAPES, min(shapes, (piece + 1) * SHAPES)):
            for q in range(len(query)):
                for v in range(count):
                    if q == 0:  # for the others it is there already
                        ahead = (n * count + v + AHEAD) * length
                        for k in range(ahead, ahead + length, line):
                            _prefetch(flat, k)  # type: ignore[call-arg]
                    logit, cosine = np.float32(0), np.float32(0)
                    for k in range(length):
                        logit += turned[q, k] * views[n, v, k]
                        cosine += query[q, k] * views[n, v, k]
                    logits[v], cosines[v] = logit, cosine
                scores[q, n] = _mixture(logits, cosines)


@numba.njit(parallel=True, fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def _scan_bfloat16(bits, query, turned, scores):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    shapes, count, length = bits.shape
    flat, line = bits.reshape(-1), LINE // bits.itemsize
    for piece in numba.prange((shapes + SHAPES - 1) // SHAPES):
        logits, cosines = np.empty(count, np.float32), np.empty(count, np.float32)
        for n in range(piece * SHAPES, min(shapes, (piece + 1) * SHAPES)):
            for q in range(len(query)):
                for v in range(count):
                    if q == 0:  # for the others it is there already
                        ahead = (n * count + v + AHEAD) * length
                        for k in range(ahead, ahead + length, line):
                            _prefetch(flat, k)  # type: ignore[call-arg]
                    logit, cosine = np.float32(0), np.float32(0)
                    for k in range(length):
                        value = _widen(bits[n, v, k])
                        logit += turned[q, k] * value
                        cosine += query[q, k] * value
                    logits[v], cosines[v] = logit, cosine
                scores[q, n] = _mixture(logits, cosines)


@numba.njit(parallel=True, fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def _mix_float32(products, scores):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """Logits and cosines (n, V, 2·q) → scores (n, q)."""
    shapes, views, queries = products.shape[0], products.shape[1], scores.shape[1]
    for n in numba.prange(shapes):
        block = products[n]
        peak, total, mixed = np.empty(queries, np.float32), np.zeros(queries, np.float32), np.zeros(queries, np.float32)
        for q in range(queries):
            peak[q] = block[0, q]
        for v in range(1, views):
            for q in range(queries):
                peak[q] = block[v, q] if block[v, q] > peak[q] else peak[q]
        for v in range(views):
            for q in range(queries):
                share = _exp(block[v, q] - peak[q])
                total[q] += share
                mixed[q] += share * block[v, queries + q]
        for q in range(queries):
            scores[n, q] = mixed[q] / total[q]


@numba.njit(parallel=True, fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def _mix_bfloat16(bits, scores):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """:func:`_mix_float32` of products in bfloat16, as uint16."""
    shapes, views, queries = bits.shape[0], bits.shape[1], scores.shape[1]
    for n in numba.prange(shapes):
        block = bits[n]
        peak, total, mixed = np.empty(queries, np.float32), np.zeros(queries, np.float32), np.zeros(queries, np.float32)
        for q in range(queries):
            peak[q] = _widen(block[0, q])
        for v in range(1, views):
            for q in range(queries):
                logit = _widen(block[v, q])
                peak[q] = logit if logit > peak[q] else peak[q]
        for v in range(views):
            for q in range(queries):
                share = _exp(_widen(block[v, q]) - peak[q])
                total[q] += share
                mixed[q] += share * _widen(block[v, queries + q])
        for q in range(queries):
            scores[n, q] = mixed[q] / total[q]
