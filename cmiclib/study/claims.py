"""Claims about the method, the paper's and others, and the verdict that the ablations give on each.

Claims of one group are judged together, so Holm's procedure (Scandinavian Journal of Statistics 6, 1979) adjusts the
p-values of :class:`.effects.Effect`: the chance that a group holds any wrong verdict stays below `LEVEL`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from .ablations import VARIANTS, Variant
from .effects import SMALLEST_EFFECT, Effect, Grid

LEVEL = 0.05
"""A claim is judged where its adjusted p-value lies below."""

Verdict = Literal["supported", "contradicted", "undecided", "not run"]
METRICS = {"top1": "Top-1", "category": "category"}
PARTS = {"seen": True, "unseen": False}


@dataclass(frozen=True)
class Claim:
    """One claim, and the variant that could refute it."""

    text: str
    group: str  # whose claims are judged together
    variant: str
    meaning: str  # what follows if the claim holds
    better: Literal["full", "variant"] = "full"  # which side the claim says is better
    kind: Literal["better", "enough"] = "better"  # "enough": that side loses nothing
    metric: str = "top1"


PAPER, CODE, OTHER = "the paper's abstract", "the method as the released code has it", "others"
CLAIMS: tuple[Claim, ...] = (
    Claim("Contrastive learning retrieves better than metric learning with triplets.", PAPER, "triplet",
          "the form of the loss matters, not only the network and the data"),
    Claim("Contrastive learning needs strong augmentation; colour transfer is one.", PAPER, "no-colour",
          "a training without colour transfer gives away accuracy"),
    Claim("Colours of other photos change a photo's appearance better than random ones.", PAPER, "colour-jitter",
          "the usual colour jitter cannot replace colour transfer"),
    Claim("The category loss keeps apart what is of different categories.", PAPER, "no-category",
          "a wrong first shape is more often of the right category", metric="category"),
    Claim("The category loss helps to find the own shape.", PAPER, "no-category",
          "labels of categories pay even for who wants the exact shape only"),
    Claim("Gray renderings say more of a shape than its outline does.", PAPER, "silhouettes",
          "the gallery has to be rendered with shading"),
    Claim("A query that weighs the views finds more than their mean.", CODE, "mean-fusion",
          "attention is worth its price over averaging the views once"),
    Claim("A query that weighs the views finds more than the best view alone.", CODE, "max-fusion",
          "several views together say more than the nearest one"),
    Claim("Twelve views are better than six.", CODE, "views-6",
          "half the views, and half the memory of an index, are not enough"),
    Claim("Twelve views are better than three.", CODE, "views-3", "a quarter of the views is not enough"),
    Claim("Twelve views are better than one.", CODE, "views-1", "the front view is not enough"),
    Claim("The photo's mask helps.", CODE, "no-mask", "it pays to mark the object in the photo"),
    Claim("A weight of 0.2 for the category loss is no worse than 1.", CODE, "category-1",
          "the code's weight need not be raised", kind="enough"),
    Claim("A temperature of 0.1 is no worse than 0.05.", CODE, "tau-0.05", "the code's τ need not be lowered",
          kind="enough"),
    Claim("A temperature of 0.1 is no worse than 0.2.", CODE, "tau-0.2", "the code's τ need not be raised",
          kind="enough"),
    Claim("The loss from photo to shape is enough without the other direction.", CODE, "symmetric",
          "the symmetric loss of other contrastive methods brings nothing here", kind="enough"),
    Claim("The published colour transfer does no harm beside the textbook's.", CODE, "released-colour",
          "results of the released code need no correction for its formula", "variant", "enough"),
    Claim("Weighting hard negatives improves contrastive learning (Robinson et al. 2021).", OTHER, "hard-negatives",
          "a later loss would have been the better choice", "variant"),
    Claim("A batch of more photos and shapes is better than one of half as many.", OTHER, "half-batch",
          "memory limits accuracy, because a batch holds the negatives"),
    Claim("Masks must be right: corrupted ones cost accuracy.", OTHER, "masks-0.8",
          "it pays to correct an automatic mask by hand"),
)  # fmt: skip
"""What the paper says or its code relies on. The paper's text was not at hand, so no section is cited; the abstract is
that of the accepted version, https://orca.cardiff.ac.uk/143849. A setting of the code counts as a claim."""


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values (n,) adjusted by Holm's procedure: to act on all below α is wrong anywhere with chance α at most.

    The i-th smallest of m p-values, from 0, is multiplied by m - i, and is never below a smaller one. A NaN is a test
    that was not made: it stays NaN and does not count.
    """
    adjusted = np.array(p, float)
    made = np.flatnonzero(~np.isnan(adjusted))
    order = made[np.argsort(adjusted[made], kind="stable")]
    scaled = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted


def evidence(
    effect: Effect | None, kind: Literal["better", "enough"] = "better", smallest: float = SMALLEST_EFFECT
) -> tuple[float, float]:
    """Return the p-values for and against a claim; the effect is the side that it prefers minus the other.

    ``better``: for it speaks that the difference is not 0 or less, against it that it is not ``smallest`` or more.
    ``enough``: that it is not ``-smallest`` or less, and not 0 or more. NaN where the effect has no interval.
    """
    if effect is None or np.isnan(effect.error):
        return np.nan, np.nan
    low, high = (0.0, smallest) if kind == "better" else (-smallest, 0.0)
    return effect.p_above(low), effect.p_below(high)


def verdict(
    effect: Effect | None, kind: Literal["better", "enough"] = "better", smallest: float = SMALLEST_EFFECT,
    adjusted: tuple[float, float] | None = None,
) -> Verdict:  # fmt: skip
    """Judge a claim by the p-values for and against it, by default those of `evidence`, without adjustment.

    ``better`` is supported where the p-value for it is below `LEVEL` and the difference at least the smallest effect of
    interest, and contradicted where that against it is below. ``enough`` is supported where the p-value for it is below
    the level, and contradicted where that against it is and the difference is at most minus the smallest effect. All
    else is undecided; one seed alone decides nothing.
    """
    if effect is None:
        return "not run"
    supports, contradicts = (p < LEVEL for p in adjusted or evidence(effect, kind, smallest))  # NaN: neither
    if supports and (kind == "enough" or effect.difference >= smallest):
        return "supported"
    if contradicts and (kind == "better" or effect.difference <= -smallest):
        return "contradicted"
    return "undecided"


def claims_table(
    grid: Grid | None, claims: Sequence[Claim] = CLAIMS, variants: Mapping[str, Variant] = VARIANTS
) -> pd.DataFrame:
    """Return one row per claim, judged on validation photos of seen and of unseen shapes.

    Columns: ``claim``, ``group``, ``meaning``, ``experiment``, ``metric``, ``seeds``; and for each part, ``seen`` and
    ``unseen``: ``…_effect`` with its 95 % interval ``…_low``, ``…_high`` (points; the side that the claim prefers minus
    the other), ``…_for`` and ``…_against``, adjusted p-values, and ``…_verdict``. A group's claims on both parts are
    adjusted together, those for and those against the claims each at half the level: p-values are doubled.
    """
    effects = {}
    for row, claim in enumerate(claims):
        sides = [variants[claim.variant].against, claim.variant]
        first, second = sides if claim.better == "full" else sides[::-1]
        for part, seen in PARTS.items():
            effects[row, part] = grid.effect(first, second, claim.metric, seen) if grid else None
    p = {at: evidence(effect, claims[at[0]].kind) for at, effect in effects.items()}
    for group in {claim.group for claim in claims}:
        family = [at for at in effects if claims[at[0]].group == group]
        both = zip(*(holm([p[at][side] for at in family]) for side in (0, 1)), strict=True)
        p |= dict(zip(family, both, strict=True))
    lines = []
    for row, claim in enumerate(claims):
        line: dict[str, Any] = {
            "claim": claim.text, "group": claim.group, "meaning": claim.meaning,
            "experiment": variants[claim.variant].title, "metric": METRICS[claim.metric], "seeds": 0,
        }  # fmt: skip
        for part in PARTS:
            effect, adjusted = effects[row, part], p[row, part]
            shown = [100 * value for value in effect[:3]] if effect else [np.nan] * 3
            line["seeds"] = max(line["seeds"], len(effect.by_seed) if effect else 0)
            values = [*shown, *adjusted, verdict(effect, claim.kind, adjusted=adjusted)]
            names = ("effect", "low", "high", "for", "against", "verdict")
            line |= {f"{part}_{name}": value for name, value in zip(names, values, strict=True)}
        lines.append(line)
    return pd.DataFrame(lines)


def counted_verdicts(table: pd.DataFrame) -> list[str]:
    """Return one sentence for each group of `claims_table`: how many claims are supported, undecided, contradicted."""
    said = []
    for group, rows in table.groupby("group", sort=False):
        parts = []
        for part in PARTS:
            counts = rows[f"{part}_verdict"].value_counts()
            named = ["supported", "undecided", "contradicted", *(["not run"] if "not run" in counts else [])]
            parts.append(f"on {part} shapes " + ", ".join(f"{counts.get(name, 0)} {name}" for name in named))
        of = f"Of the {len(rows)} claims of {group}" if group != OTHER else f"Of the {len(rows)} other claims"
        said.append(f"{of}: {'; '.join(parts)}.")
    return said


def shown_claims(table: pd.DataFrame) -> pd.DataFrame:
    """Return a part of `claims_table` as it stands in the book: a claim with its meaning; effect, p, verdict twice."""
    shown = {("", "claim"): [f"{row.claim} If so, {row.meaning}." for row in table.itertuples()]}
    shown["", "changed, judged by"] = (table.experiment + "; " + table.metric).tolist()
    for part in PARTS:
        effect, low, high, supports, contradicts, decided = (
            table[f"{part}_{name}"] for name in ("effect", "low", "high", "for", "against", "verdict")
        )
        over = f"{part} shapes"
        shown[over, "effect"] = [
            "–" if np.isnan(e) else f"{e:+.1f}" + ("" if np.isnan(a) else f" ({a:+.1f} to {b:+.1f})")
            for e, a, b in zip(effect, low, high, strict=True)
        ]
        p = np.where(decided == "contradicted", contradicts, supports)
        shown[over, "p"] = ["–" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}" for value in p]
        shown[over, "verdict"] = decided.tolist()
    return pd.DataFrame(shown)
