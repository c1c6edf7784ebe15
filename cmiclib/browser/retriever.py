"""The browser without widgets: it answers a question about a photo with a ranking and its reasons.

The live widget, the app and the report's static page all show an :class:`Answer` of :meth:`Retriever.answer`. It
searches a photo of the benchmark with its stored crop, as :mod:`cmiclib.evaluation.report` does, and cuts any other
photo as ``cmic search`` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..benchmark import Benchmark
from ..errors import ImageError
from ..evaluation.projection import Atlas, build_map
from ..evaluation.report import Scored
from ..index import SearchResult, ShapeIndex
from ..index.query import Box, Query, cut_query, embed, stored_query, with_silhouette
from ..io.foreground import ALONE
from ..metrics import top_k

GIVEN = "given mask"
MaskChoice = Literal["given", "automatic", "none"]
# Orders of the photos: words → column of `Retriever.table`, ascending. Only the first needs no scores.
ORDERS = {
    "by name": ("query_id", True), "most doubtful first": ("doubt", True),
    "surest first": ("margin", False), "worst first": ("margin", True),
}  # fmt: skip
BLOCK = 32  # photos embedded between two reports of progress


@dataclass(frozen=True)
class Question:
    """A photo and what is known about it."""

    name: str
    photo: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray | None = None  # (H, W) bool; None: unknown
    sent: tuple[int, int] | None = None  # height and width of the photo as the visitor sent it; None: that of `photo`
    stored: Query | None = None  # the benchmark's own crop
    own: frozenset[str] = frozenset()  # ids of the right shapes
    category: str = ""
    how: str = GIVEN  # where the mask comes from, in words

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in which boxes are given: those of the photo before it was made smaller."""
        return self.sent or (self.photo.shape[0], self.photo.shape[1])

    def in_photo(self, box: Box | None) -> Box | None:
        """Return a box of the photo as it was sent in pixels of :attr:`photo`."""
        if box is None:
            return None
        down, across = self.photo.shape[0] / self.size[0], self.photo.shape[1] / self.size[1]
        return box[0] * across, box[1] * down, box[2] * across, box[3] * down


@dataclass(frozen=True)
class Choice:
    """How to cut the object out of a photo, and how many shapes to return."""

    mask: MaskChoice = "given"
    box: Box | None = None  # x0, y0, x1, y1 in pixels of the photo as it was sent
    mirror: bool = False
    top: int = 8
    exact: bool = False  # go on until the ranking is proven; matters to a database
    category: str = ""  # search only the shapes of this one; empty: all


@dataclass(frozen=True)
class Found:
    """One shape of a ranking."""

    rank: int  # from 1
    row: int  # of the gallery
    shape_id: str
    category: str
    score: float
    right: bool
    weights: np.ndarray  # (V,) how much each view counted, sums to 1


@dataclass(frozen=True)
class Answer:
    """A ranking with its reasons."""

    question: Question
    choice: Choice
    query: Query
    vector: Tensor  # (d,) what the photo became
    found: list[Found]
    lead: float | None  # the first score minus the second; None: the gallery has one shape
    rank: int | None  # of the best right shape, from 1; None: no right shape is known
    margin: float | None  # the best right shape's score minus the best wrong one's; None: one of the two is missing
    own: Found | None = None  # the best right shape, wherever it lies
    certified: bool = True  # whether `found` is proven to be the best of the gallery
    visited: int = 0  # how many shapes were scored

    def record(self) -> dict[str, Any]:
        """Return the answer for JSON; ``object`` and ``results`` as in ``cmic search --json``."""
        results = [vars(each) | {"weights": [round(float(w), 6) for w in each.weights]} for each in self.found]
        for result in results:
            del result["row"]
        box = list(self.choice.box) if self.choice.box else None
        return {
            "photo": self.question.name, "object": self.query.how, "mask": self.choice.mask, "box": box,
            "mirrored": self.choice.mirror, "own": sorted(self.question.own), "rank": self.rank, "margin": self.margin,
            "lead": self.lead, "certified": self.certified, "visited": self.visited, "results": results,
        }  # fmt: skip


class Retriever:
    """A gallery with its index and photo encoder, and its test photos to search with.

    Their vectors (Q, d) and the map are computed when needed, if they are not given. BenchmarkError: the index belongs
    to another gallery.
    """

    def __init__(
        self, index: ShapeIndex, gallery: Benchmark, vectors: Tensor | None = None, atlas: Atlas | None = None
    ):
        index.check_gallery(gallery)
        self.index, self.gallery, self.vectors, self.known_atlas = index, gallery, vectors, atlas
        self.rows = gallery.rows("test")  # (Q,)
        self.azimuths = tuple(gallery.protocol.azimuths)

    def embed_photos(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Tensor:
        """Embed the test photos once, (Q, d); ``progress`` gets the number done and their total."""
        if self.vectors is None:
            parts = []
            for start in range(0, len(self.rows), BLOCK):
                parts.append(self.index.embed(self.gallery.images[self.rows[start : start + BLOCK]]))
                progress(start + len(parts[-1]), len(self.rows))
            self.vectors = torch.cat(parts) if parts else torch.zeros(0, self.index.views.shape[2])
        return self.vectors

    @cached_property
    def listing(self) -> pd.DataFrame:
        """One row for each test photo: row, query_id, category, shape_id."""
        columns = ["query_id", "category", "shape_id"]
        return self.gallery.queries[columns].iloc[self.rows].reset_index(drop=True).assign(row=self.rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The listing with outcome (right or wrong), margin and doubt; it embeds the photos if needed.

        ``margin``: the best right score minus the best wrong one; NaN if one of the two is missing. ``doubt``: the
        margin's absolute value.
        """
        if not len(self.rows):
            return self.listing.assign(outcome="", margin=np.nan, doubt=np.nan)
        scored = Scored(self.index.scores(self.embed_photos()), self.rows, self.gallery).table()
        outcome, margin = np.where(scored.top1 == 1, "right", "wrong"), scored.margin.to_numpy()
        margin = np.where(np.isfinite(margin), margin, np.nan)
        return self.listing.assign(outcome=outcome, margin=margin, doubt=np.abs(margin))

    def select(self, category: str = "", outcome: str = "", order: str = "by name") -> pd.DataFrame:
        """Return the photos of a category and an outcome (empty: all) in one of `ORDERS`.

        The columns are those of :attr:`table` if the scores are known or needed, else of the listing.
        """
        scored = outcome or order != "by name" or self.vectors is not None
        table = self.table if scored else self.listing
        for column, wanted in (("category", category), ("outcome", outcome)):
            table = table[table[column] == wanted] if wanted else table
        column, ascending = ORDERS[order]
        return table.sort_values([column, "query_id"], ascending=[ascending, True])

    def spread(self, count: int) -> pd.DataFrame:
        """Return ``count`` photos, spread evenly from the surest to the worst.

        They come from the first photo of each shape; if those are too few, from the first two, and so on.
        """
        table = self.table.sort_values("query_id")
        turn = table.groupby("shape_id").cumcount()  # 0 for the first photo of a shape, 1 for its second, …
        reached = turn.value_counts().sort_index().cumsum()  # photos up to each turn
        table = table[turn <= (reached < count).sum()]
        table = table.sort_values(["margin", "query_id"], ascending=[False, True])
        return table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int)]

    def stored(self, row: int) -> Question:
        """Return the question of one of the benchmark's photos, by its row."""
        query, record = stored_query(self.gallery, row), self.gallery.queries.iloc[row]
        photo, own = np.ascontiguousarray(query.image[:3].transpose(1, 2, 0)), frozenset(record.shape_id.split("|"))
        return Question(record.query_id, photo, query.mask, stored=query, own=own, category=record.category)

    def answer(self, question: Question, choice: Choice = Choice()) -> Answer:
        """Search the gallery; ImageError if the photo lacks the mask that was chosen, or the box or mask is empty.

        ImageError also if no shape is of the category.
        """
        query = cut(question, choice, self.index)
        vector = embed(self.index, [query])  # (1, d)
        rows = self._rows_of(choice.category)  # (M,) what is searched
        if choice.category:
            highest, places = top_k(self.index.scores(vector)[:, rows], max(2, choice.top))
            ids = [[self.index.shape_ids[row] for row in rows[places[0].numpy()]]]
            weights = self.index.view_weights(vector, torch.from_numpy(rows)[places])
            result = SearchResult(ids, highest, weights, [True], [len(rows)])
        else:
            result = self.index.search(vector, max(2, choice.top), choice.exact)
        proof, first_scores = (result.certified[0], result.visited[0]), result.scores[0].tolist()
        found = [
            self._found(question, rank, shape_id, score, weights)
            for rank, (shape_id, score, weights) in enumerate(
                zip(result.ids[0], first_scores, result.weights[0], strict=True), 1
            )
        ][: choice.top]
        lead = first_scores[0] - first_scores[1] if len(first_scores) > 1 else None
        right = np.isin(self.index.shape_ids, sorted(question.own))[rows]  # (M,)
        if not right.any():
            return Answer(question, choice, query, vector[0], found, lead, None, None, None, *proof)
        scores = self.index.scores(vector)[0, rows].numpy()  # (M,)
        order = np.argsort(-scores, kind="stable")
        best, right = scores[order], right[order]
        first = int(right.argmax())
        margin = None if right.all() else float(best[first] - best[right.argmin()])
        row = rows[order[first]]
        weights = self.index.view_weights(vector, torch.tensor([[row]]))[0, 0]
        own = self._found(question, first + 1, self.index.shape_ids[row], float(best[first]), weights)
        return Answer(question, choice, query, vector[0], found, lead, first + 1, margin, own, *proof)

    def _found(self, question: Question, rank: int, shape_id: str, score: float, weights: Tensor) -> Found:
        row = self.row_of[shape_id]
        category = self.gallery.shapes.category.iloc[row]
        return Found(rank, row, shape_id, category, score, shape_id in question.own, weights.numpy())

    def _rows_of(self, category: str) -> np.ndarray:
        if not category:
            return np.arange(len(self.index))
        rows = np.flatnonzero(self.gallery.shapes.category == category)
        if not len(rows):
            known = ", ".join(sorted(set(self.gallery.shapes.category))[:30])
            raise ImageError(f"the gallery has no shapes of the category '{category:.60}'", fix=f"use one of {known}")
        return rows

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each shape id."""
        return {shape_id: row for row, shape_id in enumerate(self.index.shape_ids)}

    @property
    def atlas(self) -> Atlas:
        """The map of test photos and shapes; computing it takes some seconds."""
        if self.known_atlas is None:
            category, shapes = self.gallery.queries.category.to_numpy()[self.rows], self.gallery.shapes.category
            self.known_atlas = build_map(self.embed_photos(), category, self.index.views.float(), shapes.to_numpy())
        return self.known_atlas


def cut(question: Question, choice: Choice, index: ShapeIndex | None = None) -> Query:
    """Cut the object out as chosen, for an ``index``; raises as :meth:`Retriever.answer` does."""
    if choice.mask == "given" and question.mask is None:
        raise ImageError("this photo has no mask", fix="give one, use none, or choose the automatic mask")
    if question.stored is not None and choice.box is None and choice.mask == best_mask(question):
        query = question.stored
    else:
        mask, box = question.mask if choice.mask == "given" else None, question.in_photo(choice.box)
        how = question.how if box is None else f"{question.how}, within the box"
        query = cut_query(question.photo, mask, box, choice.mask == "automatic", how)
        query = with_silhouette(query, index) if index else query
    if choice.mirror:
        soft = None if query.soft is None else np.ascontiguousarray(query.soft[:, ::-1])
        image, how = np.ascontiguousarray(query.image[:, :, ::-1]), f"{query.how}, mirrored"
        query = query._replace(image=image, soft=soft, how=how)
    return query


def best_mask(question: Question, box: Box | None = None) -> MaskChoice:
    """Return the default: the photo's own mask if it has one, else none, which beats the automatic one.

    What stands alone on a plain ground gives way to a ``box``, as in `own_mask`: it says what counts.
    """
    own = question.mask is not None and not (box is not None and question.how == ALONE)
    return "given" if own else "none"
