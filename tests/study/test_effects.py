"""Paired effects, their intervals and p-values."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats
from toybook import REPOSITORY
from toygrid import SOME, write_grid

from cmiclib.errors import CheckpointError
from cmiclib.study.ablations import REFERENCE, VARIANTS, Variant, config_hash, variant_config
from cmiclib.study.effects import (
    SCALES,
    UNORDERED,
    Grid,
    along,
    effect_table,
    lost_photos,
    paired_effect,
)

STORED = REPOSITORY / "data" / "results" / "ablations.json"


def test_without_differences_between_shapes_it_is_the_t_interval_over_seeds():
    by_seed = np.array([0.1, 0.3, 0.2, 0.5, 0.1])
    first = np.repeat(by_seed[:, None], 12, axis=1)
    effect = paired_effect(first, np.zeros_like(first), np.repeat(np.arange(4), 3))
    expected = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))
    assert effect.difference == pytest.approx(0.24) and effect.by_seed == pytest.approx(by_seed)


def test_without_differences_between_seeds_it_is_the_t_interval_over_shapes():
    by_shape = np.array([0.0, 1.0, 1.0, -1.0, 0.0, 1.0])
    first = np.repeat(by_shape, 5)[None].repeat(3, axis=0)
    effect = paired_effect(first, np.zeros_like(first), np.repeat(np.arange(6), 5))
    expected = stats.ttest_1samp(by_shape, 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("by_seed", [[0.1, 0.3, 0.2, 0.5, 0.1], [0.01, -0.02, 0.04], [-0.1, -0.2, -0.12]])
@pytest.mark.parametrize("bound", [0.0, 0.01, -0.05])
def test_p_values_are_those_of_two_one_sided_t_tests(by_seed, bound):
    first = np.repeat(np.array(by_seed)[:, None], 12, axis=1)
    effect = paired_effect(first, np.zeros_like(first), np.repeat(np.arange(4), 3))
    for p, side in ((effect.p_above(bound), "greater"), (effect.p_below(bound), "less")):
        assert p == pytest.approx(min(1, 2 * stats.ttest_1samp(by_seed, bound, alternative=side).pvalue))


def test_the_interval_of_level_one_minus_p_ends_at_the_tested_bound():
    generator = np.random.default_rng(3)
    for _ in range(20):
        first = generator.random((4, 60)) < 0.7
        second, groups = generator.random((4, 60)) < 0.6, generator.integers(0, 12, 60)
        effect = paired_effect(first, second, groups)
        if (p := effect.p_above(0.01)) < 1:
            assert paired_effect(first, second, groups, level=1 - p).low == pytest.approx(0.01)
        else:
            p = effect.p_below(0.01)
            assert paired_effect(first, second, groups, level=1 - p).high == pytest.approx(0.01)


def test_where_nothing_is_to_be_found_p_is_as_often_small_as_it_says():
    generator, groups = np.random.default_rng(1), np.repeat(np.arange(40), 4)
    small = 0
    for _ in range(800):
        of_seed = 0.05 * generator.standard_normal((5, 1))
        of_shape = (0.3 * generator.standard_normal(40))[groups]
        first = of_seed + of_shape + 0.1 * generator.standard_normal((5, 160))
        small += paired_effect(first, np.zeros_like(first), groups).p_above(0) < 0.05
    assert small / 800 < 0.04  # 0.025 of a one-sided test, and chance


def test_what_is_equal_has_an_interval_of_no_width_and_p_is_0_or_1():
    equal = np.ones((3, 4))
    effect = paired_effect(equal, equal, list("aabb"))
    assert effect[:3] == (0, 0, 0)
    assert [effect.p_above(b) for b in (-0.1, 0, 0.1)] == [0, 1, 1]
    assert [effect.p_below(b) for b in (-0.1, 0, 0.1)] == [1, 1, 0]


def test_one_seed_has_no_interval():
    effect = paired_effect(np.ones((1, 4)), np.zeros((1, 4)), list("aabb"))
    assert effect.difference == 1 and np.isnan(effect.low) and np.isnan(effect.high) and np.isnan(effect.p_above(0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="two shapes"):
        paired_effect(np.ones((2, 4)), np.ones((2, 4)), list("aaaa"))
    with pytest.raises(ValueError, match="labels"):
        paired_effect(np.ones((2, 4)), np.ones((2, 4)), list("aab"))


def test_intervals_cover_the_truth_as_often_as_they_should():
    """Seeds, shapes and single answers vary; the truth is the mean over all seeds and shapes that could have been."""
    generator, covered = np.random.default_rng(0), []
    groups = np.repeat(np.arange(40), 4)
    for spread_seed, spread_shape in itertools.product((0.0, 0.05), (0.05, 0.3)):
        hits = 0
        for _ in range(400):
            of_seed = spread_seed * generator.standard_normal((5, 1))
            of_shape = (spread_shape * generator.standard_normal(40))[groups]
            first = 0.1 + of_seed + of_shape + 0.3 * generator.standard_normal((5, 160))
            effect = paired_effect(first, np.zeros_like(first), groups)
            hits += effect.low < 0.1 < effect.high
        covered.append(hits / 400)
    assert all(0.93 <= share <= 1 for share in covered), covered


@pytest.fixture
def grid(tmp_path):
    return write_grid(tmp_path)


def test_rows_of_another_configuration_are_not_shown_as_this_ones(grid, tmp_path):
    table = tmp_path / "ablations.json"
    changed = SOME | {"none": Variant("no category loss", ("loss.category_weight=0.0",), "loss")}
    assert Grid.load(table, variants=changed).seeds("none") == []
    assert Grid.load(table, variants=changed).seeds("full") == [0, 1, 2]
    assert Grid.load(table, REFERENCE.override(["train.steps=7"]), SOME) is None


def test_a_grid_knows_what_was_right(grid):
    assert grid.seeds("full") == [0, 1, 2] and grid.seeds("absent") == [] and grid.benchmark == "abc"
    assert grid.outcomes("full", 1).tolist() == [True] * 7 + [False]
    assert grid.outcomes("none", 0).tolist() == [True, False, True, False, True, True, True, True]
    assert grid.outcomes("triplet", 1, "category").tolist() == [True] * 4 + [False, True, True, True]
    assert grid.accuracy("triplet") == pytest.approx([0, 1 / 6])
    assert grid.accuracy("full", seen=False) == [1, 0.5, 1]


def test_effects_are_paired_by_the_seeds_that_both_have(grid):
    effect = grid.effect("full", "none")
    assert effect.by_seed == pytest.approx([1 / 3, 1 / 3]) and effect.difference == pytest.approx(1 / 3)
    assert grid.effect("full", "later").by_seed == [0]
    assert grid.effect("full", "absent") is None
    assert grid.effect("full", "none", seen=False).by_seed == pytest.approx([0, -0.5])


def test_the_table_compares_each_variant_with_its_own_reference(grid):
    table = effect_table(grid, variants=SOME).set_index("variant")
    assert table.index.tolist() == ["none", "triplet", "later"]
    assert table.difference.to_dict() == pytest.approx({"none": 1 / 3, "triplet": 2 / 3 - 1 / 12, "later": 0})
    assert table.seeds.to_dict() == {"none": 2, "triplet": 2, "later": 1}
    assert table.accuracy["none"] == pytest.approx(2 / 3)


def test_no_table_and_no_rows_are_no_grid_and_a_damaged_one_is_named(tmp_path):
    assert Grid.load(tmp_path / "ablations.json") is None
    (tmp_path / "ablations.json").write_text("[]")
    assert Grid.load(tmp_path / "ablations.json") is None
    (tmp_path / "ablations.json").write_text("[{")
    with pytest.raises(CheckpointError, match="ablations"):
        Grid.load(tmp_path / "ablations.json")


def test_accuracy_along_a_scale_leaves_open_what_was_not_run(grid):
    steps = {"one": "later", "two": "absent", "all": "full"}
    assert along(grid, steps) == [[1.0], [], [1.0, 1.0, 1.0]]
    assert along(grid, steps, seen=False) == [[1.0], [], [1.0, 0.5, 1.0]]
    assert {name for _, each in SCALES.values() for name in each.values()} <= set(VARIANTS)
    assert set(SCALES) > UNORDERED


def test_lost_are_the_photos_that_one_always_and_the_other_never_gets_right(grid):
    lost = lost_photos(grid, "none")
    assert lost.query_id.tolist() == ["q1", "q3"] and lost.found.tolist() == ["chair/b", "chair/a"]
    assert lost_photos(grid, "triplet").query_id.tolist() == [
        "q0",
        "q2",
        "q4",
        "q6",
    ]  # q7 was wrong once in the full one
    assert lost_photos(grid, "absent").empty and lost_photos(grid, "later").empty


def test_the_stored_table_is_of_these_variants_and_agrees_with_its_answers():
    rows = json.loads(STORED.read_text())
    assert len({(row["config_hash"], row["seed"]) for row in rows}) == len(rows)
    assert len({row["variant"] for row in rows}) > 12
    grid = Grid.load(STORED)
    assert len(grid.rows) == len(rows)
    for row in rows:
        name, seed = row["variant"], row["seed"]
        assert row["config_hash"] == config_hash(variant_config(name, seed), VARIANTS[name].data)
        assert row["overrides"] == VARIANTS[name].changes
        assert row["seconds"] > 0 and row["machine"] and row["date"]
        for part, metric in ((True, "top1"), (False, "unseen_top1")):
            outcomes = grid.outcomes(name, seed)[grid.photos.seen.to_numpy(bool) == part]
            assert outcomes.mean() == pytest.approx(row["metrics"][metric])
