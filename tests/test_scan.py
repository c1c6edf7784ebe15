"""The one pass over a gallery against the two products, and when an index takes it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from cmiclib import scan as module
from cmiclib.index import ShapeIndex
from cmiclib.model import FEW_QUERIES, MANY_SCORES, MANY_SHAPES, attention_scores
from cmiclib.scan import QUERIES, multiplies_bfloat16, scan


def plainly(query, views, weight):
    """Both products in double precision and torch's own softmax."""
    query, views, weight = query.double(), views.double(), weight.double()
    logits = torch.einsum("qd,nvd->qnv", query @ weight.T, views)
    return (logits.softmax(dim=-1) * torch.einsum("qd,nvd->qnv", query, views)).sum(dim=-1)


def gallery(shapes, views=12, d=16, queries=1, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [normalize(torch.randn(*size, d, generator=generator), dim=-1) for size in ((queries,), (shapes, views))]
    return *rows, scale * torch.randn(d, d, generator=generator)


@pytest.mark.parametrize("shapes, views, d, queries", [
    (1, 1, 1, 1), (7, 12, 16, 1), (333, 5, 33, 3), (64, 12, 128, 4),
    (1, 1, 1, FEW_QUERIES + 1), (333, 5, 33, 21), (64, 12, 128, QUERIES), (100, 12, 16, 2 * QUERIES + 3),
])  # fmt: skip
def test_scores_are_those_of_the_two_products(shapes, views, d, queries):
    query, vectors, weight = gallery(shapes, views, d, queries)
    exact = plainly(query, vectors, weight)
    torch.testing.assert_close(scan(query, vectors, weight).double(), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4])
def test_a_softmax_however_sharp_stays_a_number(scale, queries):
    query, vectors, weight = gallery(40, queries=queries, scale=scale)
    exact = plainly(query, vectors, weight)
    torch.testing.assert_close(scan(query, vectors, weight).double(), exact, atol=2e-3 if scale > 100 else 1e-5, rtol=0)


@pytest.mark.parametrize("queries", [1, 40])
def test_what_is_no_number_stays_none(queries):
    query, vectors, weight = gallery(30, queries=queries)
    vectors[7, 3, 2] = torch.nan
    assert scan(query, vectors, weight).isnan().any(dim=0).nonzero().flatten().tolist() == [7]
    query[0, 5] = torch.nan
    assert scan(query, vectors, weight).isnan().all(dim=1).nonzero().flatten().tolist() == [0]
    assert scan(query, vectors, weight * torch.inf).isnan().all()


def test_many_queries_of_a_gallery_in_half_precision_are_rounded_once_where_that_is_fast():
    query, vectors, weight = gallery(200, d=128, queries=50)
    exact, found = plainly(query, vectors.bfloat16(), weight), scan(query, vectors.bfloat16(), weight)
    assert found.dtype == torch.float32
    # A product of at most 1 is rounded to 8 bits, a logit of some 30 to the same share; the softmax takes it up.
    torch.testing.assert_close(found.double(), exact, atol=1e-2 if multiplies_bfloat16() else 1e-6, rtol=0)


def test_a_processor_without_such_products_widens_the_views(monkeypatch):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    query, vectors, weight = gallery(200, queries=50)
    exact = plainly(query, vectors.bfloat16(), weight)
    torch.testing.assert_close(scan(query, vectors.bfloat16(), weight).double(), exact, atol=1e-6, rtol=0)


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


def test_scores_in_less_than_whole_precision_are_not_asked_of_it():
    for query, vectors, weight in (
        [part.double() for part in gallery(MANY_SHAPES, views=2, d=4)],
        [part.half() for part in gallery(MANY_SHAPES, views=2, d=4)],
    ):
        assert attention_scores(query, vectors, weight).dtype == query.dtype


@pytest.mark.parametrize("queries, shapes, taken", [
    (1, MANY_SHAPES, True), (FEW_QUERIES, MANY_SHAPES, True), (FEW_QUERIES + 1, MANY_SHAPES, False),
    (1, MANY_SHAPES - 1, False), (500, MANY_SCORES // 500, True), (500, MANY_SCORES // 500 - 1, False),
])  # fmt: skip
def test_the_score_takes_it_where_it_pays(queries, shapes, taken, monkeypatch):
    query, vectors, weight = gallery(shapes, views=3, d=8, queries=queries)
    index = ShapeIndex.from_arrays(vectors.numpy(), weight.numpy(), [str(i) for i in range(shapes)])
    calls = []
    monkeypatch.setattr(module, "scan", lambda *arguments: calls.append(1) or scan(*arguments))
    rows, scores = index.rank(query, 10)
    assert bool(calls) == taken
    exact = plainly(query, vectors, weight).float()
    torch.testing.assert_close(scores, exact.sort(dim=1, descending=True).values[:, :10], atol=1e-6, rtol=0)
    if queries == 1:  # of many thousand scores some are equal in single precision
        assert np.array_equal(rows.numpy(), exact.sort(dim=1, descending=True, stable=True).indices[:, :10].numpy())


def test_an_index_in_half_precision_is_searched_with_whole_queries():
    query, vectors, weight = gallery(MANY_SHAPES, views=3, d=8)
    half = ShapeIndex(vectors.bfloat16(), weight, [str(i) for i in range(MANY_SHAPES)])
    torch.testing.assert_close(half.scores(query), scan(query, vectors.bfloat16(), weight))
