"""The compiled pass over a gallery against plain products, and what it promises about equal shapes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from cmiclib.index import ShapeIndex
from cmiclib.metrics import retrieval_metrics
from cmiclib.model import attention_scores, fused_scores
from cmiclib.scan import ALONE, FEW, SHAPES, scan


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
    (1, 1, 1, 5), (333, 5, 33, 21), (333, 12, 129, 21), (64, 12, 128, 256), (2 * SHAPES + 3, 12, 16, 515),
])  # fmt: skip
def test_scores_are_those_of_the_two_products(shapes, views, d, queries):
    query, vectors, weight = gallery(shapes, views, d, queries)
    exact = plainly(query, vectors, weight)
    torch.testing.assert_close(scan(query, vectors, weight).double(), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("shapes", [40, 1400])
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4])
def test_a_softmax_however_sharp_stays_a_number(scale, queries, shapes):
    query, vectors, weight = gallery(shapes, queries=queries, scale=scale)
    exact = plainly(query, vectors, weight)
    torch.testing.assert_close(scan(query, vectors, weight).double(), exact, atol=2e-3 if scale > 100 else 1e-5, rtol=0)


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("d", [16, 1024])
def test_what_is_no_number_stays_none(queries, d):
    query, vectors, weight = gallery(30, d=d, queries=queries)
    vectors[7, 3, 2] = torch.nan
    assert scan(query, vectors, weight).isnan().any(dim=0).nonzero().flatten().tolist() == [7]
    query[0, 5] = torch.nan
    assert scan(query, vectors, weight).isnan().all(dim=1).nonzero().flatten().tolist() == [0]
    assert scan(query, vectors, weight * torch.inf).isnan().all()


@pytest.mark.parametrize("queries", [1, 4, 5, 50, 1300])
def test_a_gallery_in_half_precision_is_scored_in_whole_precision_on_every_processor(queries):
    query, vectors, weight = gallery(200, d=128, queries=queries)
    found = scan(query, vectors.bfloat16(), weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), plainly(query, vectors.bfloat16(), weight), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fusion", ["attention", "mean", "max"])
@pytest.mark.parametrize("d", [128, 32])  # of the compiled pass, and of a small gallery
def test_copies_of_a_shape_get_equal_scores_and_a_query_alone_those_of_its_batch(fusion, dtype, d):
    query, vectors, weight = gallery(519, d=d, queries=300)
    assert (vectors.numel() <= FEW) == (d == 32)
    vectors[518] = vectors[3]
    vectors = vectors.to(dtype)
    scores = fused_scores(query, vectors, weight, fusion)
    assert torch.equal(scores[:, 3], scores[:, 518])
    for rows in (slice(0, 1), slice(7, 8), slice(290, 300)):
        assert torch.equal(fused_scores(query[rows], vectors, weight, fusion), scores[rows])
    own, codes = torch.zeros(300, 519, dtype=torch.bool), torch.arange(519)
    own[:, 3] = True
    shown = retrieval_metrics(scores, own, torch.full((300,), 3), codes)
    own[:, 3], own[:, 518] = False, True
    hidden = retrieval_metrics(scores, own, torch.full((300,), 518), codes)
    assert shown["mrr"] > hidden["mrr"] and hidden["top1"] == 0  # of equal scores the lower row comes first


@pytest.mark.parametrize("views, d", [(1, 515), (5, 129), (13, 300)])
@pytest.mark.parametrize("fusion", ["attention", "mean", "max"])
def test_the_first_query_is_scored_as_the_others_are(fusion, views, d):
    query, vectors, weight = gallery(1400, views=views, d=d, queries=5)
    scores = fused_scores(query, vectors, weight, fusion)
    assert all(torch.equal(fused_scores(query[[row]], vectors, weight, fusion)[0], scores[row]) for row in range(5))


@pytest.mark.parametrize("queries, shapes", [(0, 40), (0, 1400), (1, 0)])
def test_no_query_and_no_shape_give_no_scores(queries, shapes):
    scores = scan(torch.zeros(queries, 128), torch.zeros(shapes, 12, 128), torch.eye(128))
    assert scores.shape == (queries, shapes)


def test_a_process_that_scored_a_small_gallery_can_be_forked():
    code = """
import os, numpy, torch
from cmiclib.model import attention_scores
galleries = [torch.from_numpy(numpy.ones((shapes, 1, 32), "f4")) for shapes in (30, 8200)]  # torch's own use threads
def score():
    for views in galleries:
        attention_scores(torch.ones(1, 32), views, torch.eye(32))
score()
if not (child := os.fork()):
    score()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_one_thread_and_several_give_the_same_scores():
    query, vectors, weight = gallery(2 * SHAPES + 3, d=128, queries=60)
    whole = scan(query, vectors, weight)
    assert whole.numel() > ALONE > 3 * len(vectors)
    assert torch.equal(scan(query[:3], vectors, weight), whole[:3])


@pytest.mark.parametrize("d", [33, 128])
@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_other_fusions_are_those_of_the_products(fusion, d):
    query, vectors, weight = gallery(2 * SHAPES + 3, 5, d, queries=21)
    cosines = torch.einsum("qd,nvd->qnv", query.double(), vectors.double())
    exact = cosines.mean(dim=-1) if fusion == "mean" else cosines.amax(dim=-1)
    torch.testing.assert_close(scan(query, vectors, weight, fusion).double(), exact, atol=1e-6, rtol=0)
    vectors[7, 3, 2] = torch.nan
    query[1, 0] = torch.nan
    bad = scan(query, vectors, weight, fusion).isnan()
    assert bad[1].all() and bad[:, 7].all() and bad.sum() == 2 * SHAPES + 3 + 20


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


def test_scores_in_another_precision_keep_it():
    for query, vectors, weight in (
        [part.double() for part in gallery(2000, views=2, d=4)],
        [part.half() for part in gallery(2000, views=2, d=4)],
    ):
        assert attention_scores(query, vectors, weight).dtype == query.dtype


@pytest.mark.parametrize("queries, shapes", [(1, 2000), (1, 19), (5, 2000), (500, 499), (500, 500)])
def test_an_index_ranks_by_it_however_large_the_gallery(queries, shapes):
    query, vectors, weight = gallery(shapes, views=3, d=8, queries=queries)
    index = ShapeIndex.from_arrays(vectors.numpy(), weight.numpy(), [str(i) for i in range(shapes)])
    rows, scores = index.rank(query, 10)
    exact = plainly(query, vectors, weight).float()
    torch.testing.assert_close(scores, exact.sort(dim=1, descending=True).values[:, :10], atol=1e-6, rtol=0)
    if queries == 1:  # of many thousand scores some are equal in single precision
        assert np.array_equal(rows.numpy(), exact.sort(dim=1, descending=True, stable=True).indices[:, :10].numpy())


def test_an_index_in_half_precision_is_searched_with_whole_queries():
    query, vectors, weight = gallery(2000, views=3, d=8)
    half = ShapeIndex(vectors.bfloat16(), weight, [str(i) for i in range(2000)])
    torch.testing.assert_close(half.scores(query), scan(query, vectors.bfloat16(), weight), rtol=0, atol=0)
