"""The one pass over a gallery against the two products, and when an index takes it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from cmiclib import scan as module
from cmiclib.index import FEW_QUERIES, MANY_SHAPES, ShapeIndex
from cmiclib.model import attention_scores
from cmiclib.scan import scan


def gallery(shapes, views=12, d=16, queries=1, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [normalize(torch.randn(*size, d, generator=generator), dim=-1) for size in ((queries,), (shapes, views))]
    return *rows, scale * torch.randn(d, d, generator=generator)


@pytest.mark.parametrize("shapes, views, d, queries", [(1, 1, 1, 1), (7, 12, 16, 1), (333, 5, 33, 3), (64, 12, 128, 4)])
def test_scores_are_those_of_the_two_products(shapes, views, d, queries):
    query, vectors, weight = gallery(shapes, views, d, queries)
    torch.testing.assert_close(
        scan(query, vectors, weight), attention_scores(query, vectors, weight), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4])
def test_a_softmax_however_sharp_stays_a_number(scale):
    query, vectors, weight = gallery(40, scale=scale)
    exact = attention_scores(query.double(), vectors.double(), weight.double())
    torch.testing.assert_close(scan(query, vectors, weight).double(), exact, atol=2e-3 if scale > 100 else 1e-5, rtol=0)


def test_a_gallery_in_half_precision_is_read_as_it_is():
    query, vectors, weight = gallery(200)
    rounded = vectors.bfloat16()
    torch.testing.assert_close(
        scan(query, rounded, weight), attention_scores(query, rounded.float(), weight), atol=1e-6, rtol=0
    )


def test_views_that_do_not_lie_in_a_row_are_read_in_order():
    query, vectors, weight = gallery(30)
    turned = vectors.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(scan(query, turned, weight), scan(query, vectors, weight))


@pytest.mark.parametrize("queries, shapes, taken", [
    (1, MANY_SHAPES, True), (FEW_QUERIES, MANY_SHAPES, True), (FEW_QUERIES + 1, MANY_SHAPES, False),
    (1, MANY_SHAPES - 1, False),
])  # fmt: skip
def test_an_index_takes_it_for_few_queries_of_many_shapes(queries, shapes, taken, monkeypatch):
    query, vectors, weight = gallery(shapes, views=3, d=8, queries=queries)
    index = ShapeIndex.from_arrays(vectors.numpy(), weight.numpy(), [str(i) for i in range(shapes)])
    calls = []
    monkeypatch.setattr(module, "scan", lambda *arguments: calls.append(1) or scan(*arguments))
    rows, scores = index.rank(query, 10)
    assert bool(calls) == taken
    exact = attention_scores(query, vectors, weight)
    torch.testing.assert_close(scores, exact.sort(dim=1, descending=True).values[:, :10], atol=1e-6, rtol=0)
    assert np.array_equal(rows.numpy(), exact.sort(dim=1, descending=True, stable=True).indices[:, :10].numpy())


def test_an_index_in_half_precision_is_searched_with_whole_queries():
    query, vectors, weight = gallery(MANY_SHAPES, views=3, d=8)
    half = ShapeIndex(vectors.bfloat16(), weight, [str(i) for i in range(MANY_SHAPES)])
    torch.testing.assert_close(half.scores(query), scan(query, vectors.bfloat16(), weight))
