"""When nothing fits: a limit for the best score, below which the shape is probably not in the gallery.

It is chosen on validation photos, so that one in ten of those whose shape is in the gallery lies below it; they also
decide whether a notice is given at all. Its error rates are measured on test photos, which choose nothing: how many
lie below it, with their shapes in the gallery and with these taken out. Photos with and without a mask have limits of
their own, because their scores differ.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..index.query import cut_query
from .retriever import Answer, MaskChoice, Retriever

MOST = 96  # photos of a split, spread evenly
LEAST = 20  # photos of a split; with fewer an error rate is too uncertain
AT_ONCE = 2  # photos embedded between two visitors' questions
SHARE = 0.1  # of the validation photos whose shape is there
WORTH = 2.0  # on validation photos a notice must come this many times as often where the shape is missing


@dataclass(frozen=True)
class Limit:
    """A limit for the best score, and the shares of test photos below it."""

    score: float
    present: float  # whose shape is in the gallery
    absent: float  # whose shape was taken out
    photos: int
    worth: bool  # whether a score below it says anything, by validation photos


class Doubt:
    """The limits of a gallery; :meth:`steps` computes them a few photos at a time, so that questions can come between.

    ``limits`` is empty until that is done, and stays so where the benchmark has too few photos.
    """

    def __init__(self, retriever: Retriever, least: int = LEAST):
        self.retriever, self.least, self.limits, self.done = retriever, least, dict[MaskChoice, Limit](), False

    def steps(self) -> Iterator[None]:
        """Compute the limits; each step embeds some photos."""
        for mask in ("given", "none"):
            best = {}
            for split in ("val", "test"):
                rows = self._rows(split, mask)
                if len(rows) >= self.least:
                    scores = []
                    for start in range(0, len(rows), AT_ONCE):
                        scores.append(self._scores(rows[start : start + AT_ONCE], mask))
                        yield
                    best[split] = self._best(rows, torch.cat(scores).numpy())
            if len(best) == 2:
                score = float(np.quantile(best["val"][0], SHARE))
                present, absent = ((values < score).mean() for values in best["test"])
                worth = bool((best["val"][1] < score).mean() >= WORTH * (best["val"][0] < score).mean())
                self.limits[mask] = Limit(score, float(present), float(absent), len(best["test"][0]), worth)
        self.done = True

    def _rows(self, split: str, mask: MaskChoice) -> np.ndarray:
        rows = self.retriever.gallery.rows(split)  # type: ignore[arg-type]
        rows = rows[np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int)]
        if mask == "given":
            rows = rows[[not self.retriever.gallery.images[row][3].all() for row in rows]] if len(rows) else rows
        return rows

    def _scores(self, rows: np.ndarray, mask: MaskChoice) -> torch.Tensor:
        images = self.retriever.gallery.images[rows]
        if mask == "none":
            photos = [np.ascontiguousarray(image[:3].transpose(1, 2, 0)) for image in images]
            images = np.stack([cut_query(photo, None, None, automatic=False).image for photo in photos])
        return self.retriever.index.scores(self.retriever.index.embed(images))

    def _best(self, rows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the best scores (Q,) of the whole gallery, and of the gallery without the right shapes."""
        others = np.where(self.retriever.gallery.relevant(rows), -np.inf, scores)
        return scores.max(axis=1), others.max(axis=1)

    def notice(self, answer: Answer) -> str:
        """Return the notice for an answer whose best score is below the limit; else an empty string."""
        limit = self.limits.get(answer.choice.mask)
        if (
            limit is None
            or not limit.worth
            or (answer.choice.box and answer.choice.mask == "none")
            or answer.found[0].score >= limit.score
        ):
            return ""
        return (
            f"Probably not in this gallery: the best score, {answer.found[0].score:.3f}, is below {limit.score:.3f}. "
            f"Of {limit.photos} test photos {limit.absent:.0%} score so low when their shape is taken out of the "
            f"gallery, and {limit.present:.0%} when it is there; other kinds of photos can differ."
        )

    def words(self) -> str:
        """Say what a visitor may expect of the notice."""
        kinds = {"given": "with a mask", "none": "without a mask"}
        if not self.done:
            return "Whether nothing fits is not said yet: the limit is still being computed."
        if not self.limits:
            return "Whether nothing fits is not said: this gallery has too few photos to find a limit for the score."
        parts = [
            f"{kinds[mask]}, of {limit.photos} test photos {limit.absent:.0%} get it when their shape is taken out of "
            f"the gallery, and {limit.present:.0%} when it is there"
            if limit.worth
            else f"{kinds[mask]} there is none, because scores hardly tell ({limit.absent:.0%} against "
            f"{limit.present:.0%})"
            for mask, limit in self.limits.items()
        ]
        return (
            f"A notice says when probably nothing fits: {'; '.join(parts)}. With an automatic mask, "
            "and with a box and no mask, there is no notice."
        )
