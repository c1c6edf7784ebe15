"""What each design choice is worth: differences paired by seed, with their intervals.

Everything is computed from the two files that :func:`cmiclib.study.ablations.run_grid` writes.

**The interval.** A difference between two variants varies for two reasons: another seed trains another model, and
another sample would show other shapes. Its variance is the sum of two estimates: that of the mean over seeds, from
the spread of the seeds' differences; and that of the mean over photos, from the spread of the shapes' sums, because
photos of one shape succeed and fail together. The interval is the difference ± a quantile of Student's t times the
root of that sum, with Satterthwaite's degrees of freedom. Both estimates contain what seeds and shapes share, so the
interval is a little too wide rather than too narrow.

**The p-values.** The same estimate, error and degrees of freedom give the p-value of a one-sided t-test; it is doubled,
so that it falls below 5 % just where the 95 % interval leaves the tested bound out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ..config import Config
from .ablations import FULL, REFERENCE, VARIANTS, Variant, answers_path, config_hashes, read_stored

SMALLEST_EFFECT = 0.01
"""Smallest effect of interest: one point. A smaller one would change nobody's choice."""


class Effect(NamedTuple):
    """A difference of two variants, each in [-1, 1]; all but it and ``by_seed`` is NaN where one seed alone was run."""

    difference: float
    low: float
    high: float
    by_seed: list[float]
    error: float = np.nan  # standard error of the difference
    freedom: float = np.nan  # degrees of freedom of the t-distribution

    def p_above(self, bound: float) -> float:
        """Return twice the p-value of the test that the difference is at most ``bound``; at most 1, or NaN."""
        return self._p(self.difference - bound)

    def p_below(self, bound: float) -> float:
        """Return twice the p-value of the test that the difference is at least ``bound``; at most 1, or NaN."""
        return self._p(bound - self.difference)

    def _p(self, beyond: float) -> float:
        if self.error == 0:
            return 0.0 if beyond > 0 else 1.0
        return float(np.minimum(1, 2 * stats.t.sf(beyond / self.error, self.freedom)))


def paired_effect(
    first: np.ndarray, second: np.ndarray, groups: Sequence[str] | np.ndarray, level: float = 0.95
) -> Effect:
    """Return mean(first) - mean(second) with its interval over seeds and shapes; see this module.

    Both are (S, Q) outcomes of the same photos, one row per seed, the same seeds in both; ``groups`` (Q,) is the shape
    of each photo, ``level`` the interval's intended coverage. ValueError where the shapes do not fit, or for photos of
    fewer than two shapes.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)  # (S, Q)
    seeds, photos = difference.shape
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if len(codes) != photos or len(names) < 2:
        raise ValueError(f"{len(codes)} labels of {len(names)} shapes for {photos} photos: pass two shapes at least")
    by_seed, by_photo = difference.mean(axis=1), difference.mean(axis=0)
    mean = float(by_photo.mean())
    if seeds < 2:
        return Effect(mean, np.nan, np.nan, by_seed.tolist())
    sums = np.bincount(codes, weights=by_photo - mean)  # (G,)
    of_shapes = len(names) / (len(names) - 1) * float((sums**2).sum()) / photos**2
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    total = of_seeds + of_shapes
    freedom = total**2 / (of_seeds**2 / (seeds - 1) + of_shapes**2 / (len(names) - 1)) if total else 1.0
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * total**0.5
    return Effect(mean, mean - half, mean + half, by_seed.tolist(), total**0.5, freedom)


@dataclass(frozen=True)
class Grid:
    """The runs of a table, with what each answered."""

    rows: pd.DataFrame  # as in ablations.json
    photos: pd.DataFrame  # query_id, shape_id, category, seen of each validation photo
    shapes: pd.DataFrame  # shape_id, category of the gallery
    first: dict[tuple[str, int], np.ndarray]  # (variant, seed) → (Q,) gallery row of the first shape found
    benchmark: str  # its hash

    @classmethod
    def load(
        cls, table: Path, reference: Config = REFERENCE, variants: Mapping[str, Variant] = VARIANTS
    ) -> "Grid | None":
        """Read a table's rows of these variants' configurations, with their answers; None if there is no such row."""
        hashes = config_hashes(reference, variants)
        rows = read_stored(table) if table.is_file() else []
        rows = [row for row in rows if row["config_hash"] == hashes.get(row["variant"])]
        if not rows:
            return None
        stored = read_stored(answers_path(table))
        runs = [(row["variant"], row["seed"]) for row in rows]
        first = {(name, seed): np.array(stored["first"][f"{name} {seed}"].split(), int) for name, seed in runs}
        photos, shapes = pd.DataFrame(stored["photos"]), pd.DataFrame(stored["shapes"])
        return cls(pd.DataFrame(rows), photos, shapes, first, stored["benchmark"])

    def seeds(self, variant: str) -> list[int]:
        """Return the seeds that a variant was run with."""
        return sorted(seed for name, seed in self.first if name == variant)

    def outcomes(self, variant: str, seed: int, metric: str = "top1") -> np.ndarray:
        """Return for each photo whether the first shape is its own (``top1``) or of its category (``category``)."""
        found = self.shapes.iloc[self.first[variant, seed]]
        if metric == "category":
            return found.category.to_numpy() == self.photos.category.to_numpy()
        pairs = zip(found.shape_id, self.photos.shape_id, strict=True)
        return np.array([shape in own.split("|") for shape, own in pairs])

    def effect(self, first: str, second: str, metric: str = "top1", seen: bool = True) -> Effect | None:
        """Return the first variant minus the second over the seeds that both have; None where they share none."""
        part = self.photos.seen.to_numpy(bool) == seen
        seeds = [seed for seed in self.seeds(first) if seed in self.seeds(second)]
        if not seeds or self.photos.shape_id[part].nunique() < 2:
            return None
        a, b = (np.stack([self.outcomes(name, seed, metric)[part] for seed in seeds]) for name in (first, second))
        return paired_effect(a, b, self.photos.shape_id[part].to_numpy())

    def accuracy(self, variant: str, metric: str = "top1", seen: bool = True) -> list[float]:
        """Return a variant's accuracy with each seed."""
        part = self.photos.seen.to_numpy(bool) == seen
        return [float(self.outcomes(variant, seed, metric)[part].mean()) for seed in self.seeds(variant)]


def effect_table(
    grid: Grid, metric: str = "top1", seen: bool = True, variants: Mapping[str, Variant] = VARIANTS
) -> pd.DataFrame:
    """Return one row for each variant that was run: its loss, in [-1, 1], positive where the full method is better.

    Columns: ``variant``, ``name``, ``part``, ``accuracy`` (mean over seeds), ``difference`` (of the variant that it is
    compared with and the variant), ``low``, ``high``, ``by_seed``, ``seeds``.
    """
    lines = []
    for name, variant in variants.items():
        effect = grid.effect(variant.against, name, metric, seen) if name != variant.against else None
        if effect:
            own = {"variant": name, "name": variant.title, "part": variant.part, "seeds": len(effect.by_seed)}
            lines.append(own | {"accuracy": float(np.mean(grid.accuracy(name, metric, seen)))} | effect._asdict())
    columns = ["variant", "name", "part", "seeds", "accuracy", "difference", "low", "high", "by_seed"]
    return pd.DataFrame(lines, columns=columns)


SCALES: dict[str, tuple[str, dict[str, str]]] = {
    "Views": ("views of each shape", {"1": "views-1", "3": "views-3", "6": "views-6", "12": "full"}),
    "Batch": ("photos and shapes in a batch", {"¼": "quarter-batch", "½": "half-batch", "full": "full"}),
    "Masks": ("the photo's mask", {
        "none": "no-mask", "corrupted": "masks-0.8", "slightly\nwrong": "masks-0.6", "exact": "full",
    }),
}  # fmt: skip
"""Title → label of the axis, and its steps with their variants."""
UNORDERED = {"Masks"}
"""The scales of `SCALES` whose steps have no order: no mask is not less than a corrupted one."""


def along(grid: Grid, steps: Mapping[str, str], seen: bool = True) -> list[list[float]]:
    """Return each step's Top-1 with each seed; an empty list where the variant was not run or there are no photos."""
    any_photo = bool((grid.photos.seen.to_numpy(bool) == seen).any())
    return [grid.accuracy(name, seen=seen) if any_photo else [] for name in steps.values()]


def lost_photos(grid: Grid, variant: str, against: str = FULL) -> pd.DataFrame:
    """Return photos that ``against`` always gets right and ``variant`` never, with every seed that both have.

    To avoid picking, it is the first photo of each such shape in the benchmark's order. Columns: ``query_id``,
    ``shape_id``, ``category``, ``seen`` and ``found``, the shape that the variant found with its first seed.
    """
    seeds = [seed for seed in grid.seeds(against) if seed in grid.seeds(variant)]
    if not seeds:
        return grid.photos.iloc[:0].assign(found=[])
    right, wrong = (np.stack([grid.outcomes(name, seed) for seed in seeds]) for name in (against, variant))
    found = grid.shapes.shape_id.to_numpy()[grid.first[variant, seeds[0]]]
    lost = np.flatnonzero(right.all(axis=0) & ~wrong.any(axis=0))
    return grid.photos.assign(found=found).iloc[lost].drop_duplicates("shape_id")
