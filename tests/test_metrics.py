"""Metrics on matrices that can be checked by hand, against a slow loop, torchmetrics and the bootstrap's definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR

from cmiclib.metrics import (
    bootstrap_interval,
    macro,
    paired_interval,
    per_query_metrics,
    restrict_to_category,
    retrieval_metrics,
    summarise,
    top_k,
)

NAMES = {"top1", "top10", "category", "map10", "mrr"}


def random_problem(queries=40, shapes=60, right=1, levels=None, seed=0):
    """Random scores, `right` right shapes a query, three categories; few `levels` make many equal scores."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(queries, shapes, generator=generator, dtype=torch.float64)
    if levels:
        scores = (levels * scores).floor()
    chosen = torch.rand(queries, shapes, generator=generator).argsort(dim=1)[:, :right]
    relevant = torch.zeros(queries, shapes, dtype=torch.bool).scatter(1, chosen, True)
    shape_category = torch.randint(0, 3, (shapes,), generator=generator)
    return scores, relevant, shape_category[chosen[:, 0]], shape_category


def slow_metrics(scores, relevant, query_category, shape_category):
    """Judge each query by sorting (score, column) pairs in Python."""
    rows = []
    for row, right, category in zip(scores.tolist(), relevant.tolist(), query_category.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda column: (-row[column], column))
        ranks = [rank for rank, column in enumerate(order, start=1) if right[column]]
        precisions = [count / rank for count, rank in enumerate(ranks, start=1) if rank <= 10]
        rows.append(
            {
                "top1": float(ranks[0] <= 1),
                "top10": float(ranks[0] <= 10),
                "category": float(shape_category[order[0]] == category),
                "map10": sum(precisions) / min(10, len(ranks)),
                "mrr": 1 / ranks[0],
            }
        )
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in NAMES}


def test_a_matrix_checked_by_hand():
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.5, 0.4], [0.3, 0.3, 0.3]])
    relevant = torch.tensor([[True, False, False], [True, False, True], [False, False, True]])
    query_category, shape_category = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1])
    values = per_query_metrics(scores, relevant, query_category, shape_category, ks=(1, 2))
    expected = {
        "top1": [1, 0, 0],
        "top2": [1, 1, 0],
        "category": [1, 0, 1],  # the last query's scores are equal: shape 0 comes first
        "map10": [1, (1 / 2 + 2 / 3) / 2, 1 / 3],
        "mrr": [1, 1 / 2, 1 / 3],
    }
    assert set(values) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(values[name], torch.tensor(value, dtype=torch.float64))
    means = retrieval_metrics(scores, relevant, query_category, shape_category, ks=(1, 2))
    assert means == pytest.approx({name: sum(value) / 3 for name, value in expected.items()} | {"queries": 3})


@pytest.mark.parametrize("right", [1, 3, 15])
@pytest.mark.parametrize("levels", [None, 2, 8])
@pytest.mark.parametrize("shapes", [16, 60, 300])
def test_metrics_match_a_slow_loop(shapes, levels, right):
    problem = random_problem(shapes=shapes, right=right, levels=levels)
    values, expected = per_query_metrics(*problem), slow_metrics(*problem)
    assert set(values) == NAMES
    for name in NAMES:
        torch.testing.assert_close(values[name], expected[name], msg=name)


@pytest.mark.parametrize("right", [1, 4])
def test_metrics_match_torchmetrics(right):
    scores, relevant, query_category, shape_category = random_problem(right=right)
    mine = retrieval_metrics(scores, relevant, query_category, shape_category)
    indexes = torch.arange(len(scores))[:, None].expand_as(scores).flatten()
    oracles = {"top1": RetrievalHitRate(top_k=1), "top10": RetrievalHitRate(top_k=10), "mrr": RetrievalMRR()}
    if right == 1:  # with several right shapes it divides by those found, not by those there are
        oracles["map10"] = RetrievalMAP(top_k=10)
    for name, oracle in oracles.items():
        value = oracle(scores.flatten() + 1, relevant.flatten(), indexes=indexes)  # it skips scores of 0
        assert mine[name] == pytest.approx(value.item(), rel=1e-5), name


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 12))
def test_order_of_queries_and_of_the_gallery_does_not_matter(seed, shapes, queries):
    scores, relevant, query_category, shape_category = random_problem(queries, shapes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.randperm(queries, generator=generator), torch.randperm(shapes, generator=generator)
    values = per_query_metrics(scores, relevant, query_category, shape_category)
    shuffled = per_query_metrics(
        scores[row][:, column], relevant[row][:, column], query_category[row], shape_category[column]
    )
    for name, value in values.items():
        torch.testing.assert_close(shuffled[name], value[row])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 25))
def test_metrics_keep_their_order_and_bounds(seed, shapes):
    problem = random_problem(8, shapes, right=min(2, shapes), levels=5, seed=seed)
    values = per_query_metrics(*problem)
    assert all(((value >= 0) & (value <= 1)).all() for value in values.values())
    assert (values["top1"] <= values["mrr"]).all() and (values["mrr"] > 0).all()
    assert (values["top1"] <= values["top10"]).all()
    monotone = per_query_metrics(3 * problem[0] - 7, *problem[1:])  # only the order of the scores counts
    assert all(torch.equal(monotone[name], value) for name, value in values.items())


def test_perfect_and_worst_rankings():
    relevant = torch.eye(20, dtype=torch.bool)
    category = torch.arange(20)
    best = retrieval_metrics(relevant.float(), relevant, category, category)
    worst = retrieval_metrics(-relevant.float(), relevant, category, category)
    assert best == dict.fromkeys(NAMES, 1.0) | {"queries": 20}
    assert worst == dict.fromkeys(NAMES, 0.0) | {"mrr": pytest.approx(1 / 20), "queries": 20}


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 30), st.integers(1, 4))
def test_top_k_is_a_stable_sort(seed, shapes, k, levels):
    scores = (levels * torch.rand(6, shapes, generator=torch.Generator().manual_seed(seed))).floor()
    scores[scores == 0] = -torch.inf
    values, columns = top_k(scores, k)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(columns, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


def test_category_given_searches_that_category_only():
    scores, relevant, query_category, shape_category = random_problem()
    given = restrict_to_category(scores, query_category, shape_category)
    values = per_query_metrics(given, relevant, query_category, shape_category)
    assert (values["category"] == 1).all()
    for i in range(len(scores)):
        inside = shape_category == query_category[i]
        alone = slow_metrics(
            scores[i : i + 1, inside], relevant[i : i + 1, inside], query_category[i : i + 1], shape_category[inside]
        )
        assert all(values[name][i] == pytest.approx(alone[name].item()) for name in NAMES)


def test_a_right_shape_that_is_hidden_is_never_found():
    """Query 0: both right shapes are hidden. Query 1: one of two. Query 2: nothing is left at all."""
    hidden = -torch.inf
    scores = torch.tensor([[hidden, 0.1, hidden], [0.3, 0.9, hidden], [hidden, hidden, hidden]])
    relevant = torch.tensor([[True, False, True], [True, False, True], [True, False, False]])
    values = per_query_metrics(scores, relevant, torch.tensor([1, 0, 0]), torch.tensor([0, 1, 0]))
    assert values["top1"].tolist() == [0, 0, 0] and values["top10"].tolist() == [0, 1, 0]
    assert values["mrr"].tolist() == [0, 1 / 2, 0] and values["map10"].tolist() == [0, 1 / 4, 0]
    assert values["category"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_results_than_one_are_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}; it must be at least 1"):
        top_k(torch.zeros(2, 3), k)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, r, q, c: (s[:0], r[:0], q[:0], c), "pass floats"),
        (lambda s, r, q, c: (s.long(), r, q, c), "pass floats"),
        (lambda s, r, q, c: (s, r[:, 1:], q, c), "relevant is"),
        (lambda s, r, q, c: (s, r.long(), q, c), "pass bool"),
        (lambda s, r, q, c: (s, r, c, q), "one per row and one per column"),
        (lambda s, r, q, c: (s / 0 * 0, r, q, c), "contain NaN"),
        (lambda s, r, q, c: (s, r & (torch.arange(40) != 7)[:, None], q, c), "query 7 has no right shape"),
    ],
)
def test_wrong_input_names_the_cure(change, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(*change(*random_problem()))


def slow_bootstrap(values, groups, samples, seed):
    """Draw shapes one by one, concatenate their values, take the mean."""
    rng = np.random.default_rng(seed)
    parts = [values[groups == name] for name in np.unique(groups)]
    means = [np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))]).mean() for _ in range(samples)]
    return np.quantile(means, [0.025, 0.975])


@pytest.fixture(scope="module")
def clustered():
    """300 outcomes of 60 shapes, 1 to 9 each, that mostly succeed or fail together."""
    rng = np.random.default_rng(0)
    groups = np.repeat([f"chair/{i}" for i in range(60)], rng.integers(1, 10, 60))
    easy = dict(zip(np.unique(groups), rng.beta(0.4, 0.2, 60), strict=True))
    values = (rng.random(len(groups)) < [easy[name] for name in groups]).astype(float)
    return values, groups


def test_interval_matches_resampling_one_by_one(clustered):
    values, groups = clustered
    expected = slow_bootstrap(values, groups, 4000, seed=1)
    assert bootstrap_interval(torch.from_numpy(values), groups, samples=4000) == pytest.approx(expected, abs=0.01)


def test_groups_of_one_give_the_binomial_interval():
    values = np.repeat([0.0, 1.0], [120, 280])
    low, high = bootstrap_interval(values, np.arange(400), samples=5000)
    half = 1.96 * (0.7 * 0.3 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.006)


def test_intervals_are_wider_by_shape_than_by_photo(clustered):
    values, groups = clustered
    by_shape = np.diff(bootstrap_interval(values, groups))
    by_photo = np.diff(bootstrap_interval(values, np.arange(len(values))))
    assert by_shape > 1.3 * by_photo


def test_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(2), 0
    groups = np.repeat(np.arange(80), 5)
    for _ in range(200):
        easy = rng.beta(2, 1, 80)  # of mean 2/3
        low, high = bootstrap_interval((rng.random(400) < easy[groups]).astype(float), groups, samples=400)
        covered += low <= 2 / 3 <= high
    assert 180 <= covered <= 198


def test_level_seed_and_single_group(clustered):
    values, groups = clustered
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, groups)
    assert bootstrap_interval(values, groups) != bootstrap_interval(values, groups, seed=1)
    assert np.diff(bootstrap_interval(values, groups, level=0.5)) < np.diff(bootstrap_interval(values, groups))
    with pytest.raises(ValueError, match="at least two shapes"):
        bootstrap_interval(values, np.zeros(len(values)))
    with pytest.raises(ValueError, match="one label per value"):
        bootstrap_interval(values, groups[1:])


def test_paired_interval_ignores_what_is_hard_for_both(clustered):
    values, groups = clustered
    better = values.copy()
    better[np.flatnonzero(values == 0)[::10]] = 1
    low, high = paired_interval(better, values, groups)
    assert 0 < low <= better.mean() - values.mean() <= high
    assert bootstrap_interval(better, groups)[0] < bootstrap_interval(values, groups)[1]  # which overlap


def test_summary_is_flat_and_agrees_with_its_parts(clustered):
    values, groups = clustered
    summary = summarise({"top1": torch.from_numpy(values), "mrr": torch.from_numpy(values / 2)}, groups)
    assert list(summary) == ["top1", "mrr", "top1_low", "top1_high", "mrr_low", "mrr_high", "queries"]
    assert summary["top1"] == pytest.approx(values.mean()) and summary["queries"] == len(values)
    assert (summary["top1_low"], summary["top1_high"]) == pytest.approx(bootstrap_interval(values, groups))
    assert summary["mrr_low"] == pytest.approx(summary["top1_low"] / 2)
    assert summarise({"top1": torch.ones(3)}, ["a", "a", "a"]) == {"top1": 1.0, "queries": 3}


def test_macro_counts_every_label_once():
    assert macro(torch.tensor([1.0, 1.0, 1.0, 0.0]), ["bed", "bed", "bed", "sofa"]) == 0.5
