"""The compiled pass over a gallery: each view is read once, and only scores are written.

Every pair of query and shape goes through the same arithmetic, in float32, whatever stands beside it. Processors
differ in the order of sums, so their scores differ by less than 1e-6.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, overload

from . import SHAPES

SUMS = {"reassoc", "contract", "nsz"}
"""The compiler may reorder sums, but not assume that there is no NaN."""
AHEAD = 8
"""Views that are prefetched: the processor's own prefetching stops at each page of memory."""
LINE = 64
"""Bytes of a cache line."""


@numba.njit(parallel=True, fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def scan_all(views, query, turned, scores, fusion):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """Score all shapes, on several threads."""
    shapes = len(views)
    for piece in numba.prange((shapes + SHAPES - 1) // SHAPES):
        scan_piece(views, query, turned, scores, fusion, piece * SHAPES, min(shapes, (piece + 1) * SHAPES))


@numba.njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def scan_piece(views, query, turned, scores, fusion, first, last):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Score the shapes from ``first`` to before ``last``."""
    count, length = views.shape[1], views.shape[2]
    flat, line = views.reshape(-1), LINE // views.itemsize
    block = np.empty((count, length), np.float32)
    logits, cosines = np.empty(count, np.float32), np.empty(count, np.float32)
    for n in range(first, last):
        shape = _in_float32(views[n], block)  # type: ignore[func-returns-value]
        for v in range(count):
            ahead = (n * count + v + AHEAD) * length
            for k in range(ahead, ahead + length, line):  # a few at a time: with some twenty on their way, it waits
                _prefetch(flat, k)  # type: ignore[call-arg]
            logits[v], cosines[v] = _products(turned[0], query[0], shape[v])
        scores[0, n] = _fused(logits, cosines, fusion)
        for q in range(1, len(query)):
            for v in range(count):
                logits[v], cosines[v] = _products(turned[q], query[q], shape[v])
            scores[q, n] = _fused(logits, cosines, fusion)


@numba.njit(fastmath=SUMS, error_model="numpy", inline="always")
def _products(turned, query, view):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """One query's logit and cosine of one view."""
    logit, cosine = np.float32(0), np.float32(0)
    for k in range(len(view)):
        logit += turned[k] * view[k]
        cosine += query[k] * view[k]
    return logit, cosine


@numba.njit(fastmath=SUMS, error_model="numpy", inline="always")
def _fused(logits, cosines, fusion):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """One query's score of one shape."""
    if fusion == 0:
        return _mixture(logits, cosines)
    total, best = cosines[0], cosines[0]
    for v in range(1, len(cosines)):
        total += cosines[v]
        best = cosines[v] if cosines[v] > best else best
    # A sum keeps NaN, a maximum passes over it.
    return total / len(cosines) if fusion == 1 or np.isnan(total) else best


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


@numba.njit(fastmath=SUMS, error_model="numpy", inline="always")
def _exp(x):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """exp(x) for x ≤ 0 in float32, within 2 units of the last digit. numba's own is a call, which is not vectorised.

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


def _in_float32(views, block):  # type: ignore[no-untyped-def]
    """Return views (V, d) in float32 as they are; bfloat16, which comes as uint16, is written into ``block`` first."""


@overload(_in_float32, inline="always")
def _in_float32_of(views, block):  # type: ignore[no-untyped-def]
    if views.dtype != numba.uint16:
        return lambda views, block: views

    def widen(views, block):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
        for v in range(block.shape[0]):
            for k in range(block.shape[1]):  # bfloat16 is the upper half of a float32
                block[v, k] = np.uint32(np.uint32(views[v, k]) << np.uint32(16)).view(np.float32)
        return block

    return widen


@intrinsic
def _prefetch(typing, array, place):  # type: ignore[no-untyped-def]
    """Ask for the cache line of ``array[place]``; a place behind the array's end does no harm."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, number(0), number(0), number(1)])  # read, low locality, data
        return context.get_dummy_value()

    return numba.void(array, place), emit
