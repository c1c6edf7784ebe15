"""The rule for verdicts, Holm's adjustment, and the table of claims."""

import itertools

import numpy as np
import pytest
from scipy import stats
from toybook import REPOSITORY
from toygrid import SOME, write_grid

from cmiclib.study.ablations import VARIANTS
from cmiclib.study.claims import (
    CLAIMS,
    CODE,
    LEVEL,
    OTHER,
    PAPER,
    PARTS,
    Claim,
    claims_table,
    counted_verdicts,
    holm,
    shown_claims,
    verdict,
)
from cmiclib.study.effects import SMALLEST_EFFECT, Effect, Grid

NAN = float("nan")


def made(difference: float, low: float, high: float) -> Effect:
    """An effect whose 95 % interval is as given, of five degrees of freedom; the interval's middle is its estimate."""
    half = (high - low) / 2
    return Effect(difference, low, high, [], half / stats.t.ppf(0.975, 5), 5.0)


RULE = [
    ("better", (0.03, 0.01, 0.05), "supported"),
    ("better", (0.01, 0.001, 0.02), "supported"),
    ("better", (0.009, 0.001, 0.02), "undecided"),  # surely positive, but small
    ("better", (0.005, 0.001, 0.009), "contradicted"),  # surely positive, and surely small
    ("better", (0.03, -0.001, 0.06), "undecided"),
    ("better", (0.0, -0.02, 0.02), "undecided"),
    ("better", (0.0, -0.009, 0.009), "contradicted"),
    ("better", (-0.03, -0.05, -0.01), "contradicted"),
    ("enough", (0.03, 0.01, 0.05), "supported"),
    ("enough", (0.0, -0.009, 0.009), "supported"),
    ("enough", (0.0, -0.02, 0.02), "undecided"),
    ("enough", (-0.03, -0.05, -0.01), "contradicted"),
    ("enough", (-0.02, -0.05, 0.01), "undecided"),
    ("enough", (-0.008, -0.015, -0.001), "undecided"),  # surely worse, but little
    ("better", (0.9, NAN, NAN), "undecided"),
    ("enough", (0.9, NAN, NAN), "undecided"),
]


@pytest.mark.parametrize(("kind", "numbers", "expected"), RULE)
def test_the_rule(kind, numbers, expected):
    assert SMALLEST_EFFECT == 0.01
    assert verdict(made(*numbers), kind) == expected


def test_nothing_is_said_of_what_was_not_run():
    assert verdict(None) == "not run" and verdict(None, "enough") == "not run"


def test_the_smallest_effect_moves_the_verdict():
    effect = made(0.03, 0.01, 0.05)
    assert [verdict(effect, smallest=s) for s in (0.01, 0.04, 0.06)] == ["supported", "undecided", "contradicted"]


def step_down(p, level):
    """Holm's procedure as its paper states it: from the smallest p-value on, reject until one is too large."""
    rejected, left = set(), sorted(range(len(p)), key=lambda i: p[i])
    while left and p[left[0]] <= level / len(left):
        rejected.add(left.pop(0))
    return rejected


def test_adjusted_p_values_reject_what_the_step_down_procedure_rejects():
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.random(generator.integers(1, 9)) ** 4
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2, 0.7):
            assert set(np.flatnonzero(adjusted <= level)) == step_down(p, level)
        assert (adjusted >= p).all() and (adjusted <= 1).all()
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand: ×3, ×1 and ×2, ×4


def test_tests_that_were_not_made_do_not_count():
    assert holm([0.01, NAN, 0.02]) == pytest.approx([0.02, NAN, 0.02], nan_ok=True)
    assert holm([]).size == 0 and np.isnan(holm([NAN])).all()


@pytest.fixture
def grid(tmp_path):
    return write_grid(tmp_path)


def test_claims_are_judged_by_rule_in_the_direction_that_they_claim(grid):
    claims = (
        Claim("a", "s", "none", "m"),
        Claim("b", "s", "triplet", "m", metric="category"),
        Claim("c", "s", "later", "m", better="variant"),
        Claim("d", "s", "none", "m", better="variant"),
        Claim("e", "s", "absent", "m"),
    )
    table = claims_table(grid, claims, SOME).set_index("claim")
    assert table.seen_effect.round(4).tolist()[:4] == [33.3333, 25.0, 0, -33.3333]
    assert table.unseen_effect["a"] == pytest.approx(100 * grid.effect("full", "none", seen=False).difference)
    assert table.seen_verdict["e"] == "not run" and table.seeds["e"] == 0 and np.isnan(table.seen_effect["e"])
    assert table.seen_verdict["c"] == "undecided"  # one seed
    assert table.metric.tolist()[:2] == ["Top-1", "category"]


def test_p_values_are_adjusted_within_a_group_over_seen_and_unseen_shapes_together(grid):
    claims = (
        Claim("a", "one", "none", "m"), Claim("b", "one", "triplet", "m"), Claim("c", "two", "none", "m"),
        Claim("d", "two", "later", "m"),
    )  # fmt: skip
    table = claims_table(grid, claims, SOME).set_index("claim")
    raw = {
        (claim.text, part): grid.effect(SOME[claim.variant].against, claim.variant, "top1", seen)
        for claim, (part, seen) in itertools.product(claims, PARTS.items())
    }
    for group in ({"a", "b"}, {"c", "d"}):
        family = [at for at in raw if at[0] in group]
        for side, p in (
            ("for", [raw[at].p_above(0.0) for at in family]), ("against", [raw[at].p_below(0.01) for at in family]),
        ):  # fmt: skip
            shown = [table.loc[name, f"{part}_{side}"] for name, part in family]
            assert shown == pytest.approx(holm(p), nan_ok=True)


def test_without_a_grid_no_claim_has_a_verdict():
    table = claims_table(None)
    assert set(table.seen_verdict) == set(table.unseen_verdict) == {"not run"} and len(table) == len(CLAIMS)
    assert "6 not run" in counted_verdicts(table)[0]
    assert (shown_claims(table)["seen shapes", "effect"] == "–").all()


def test_each_claim_names_a_variant_and_the_papers_parts_are_all_there():
    assert all(claim.variant in VARIANTS for claim in CLAIMS)
    assert len({(claim.variant, claim.metric) for claim in CLAIMS}) == len(CLAIMS)
    assert {VARIANTS[claim.variant].part for claim in CLAIMS} == {v.part for v in VARIANTS.values()} - {"–"}
    assert list(dict.fromkeys(claim.group for claim in CLAIMS)) == [PAPER, CODE, OTHER]
    assert all(claim.meaning and claim.meaning[-1] != "." for claim in CLAIMS)


def test_the_stored_verdicts_are_counted_by_group_and_follow_from_the_adjusted_p_values():
    table = claims_table(Grid.load(REPOSITORY / "data" / "results" / "ablations.json"))
    said = counted_verdicts(table)
    for sentence, (_, rows) in zip(said, table.groupby("group", sort=False), strict=True):
        for part in PARTS:
            counts = rows[f"{part}_verdict"].value_counts().reindex(["supported", "undecided", "contradicted"])
            named = ", ".join(f"{count} {name}" for name, count in counts.fillna(0).astype(int).items())
            assert f"on {part} shapes {named}" in sentence
    for part in PARTS:
        supported = table[f"{part}_verdict"] == "supported"
        assert (table[f"{part}_for"][supported] < LEVEL).all()
    shown = shown_claims(table)
    assert len(shown) == len(CLAIMS) and shown["", "claim"].str.contains("If so, ").all()
    assert set(shown["unseen shapes", "verdict"]) <= {"supported", "undecided", "contradicted"}
