"""Embed a gallery once, search it exactly, keep it in one file.

An index file is self-contained: the gallery's view embeddings, the attention matrix and the photo encoder, so that
``cmic search`` needs nothing else. The score is :meth:`cmiclib.model.CMIC.score`, the one of training and evaluation.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..benchmark import Benchmark
from ..config import Config, Fusion
from ..embed import embed_gallery, embed_in_shares, embed_queries, head_vectors
from ..engine.distributed import ALONE, Processes
from ..errors import BenchmarkError, CheckpointError
from ..metrics import top_k
from ..model import CMIC, fused_scores, fused_weights
from .file import Contents, read_index, write_index

BLOCK = 1 << 26  # Products of queries and views in a block of the gallery: 256 MB where all of them exist at once


@dataclass(frozen=True)
class SearchResult:
    """The first k shapes of each query, best first; ``ids, scores, weights = result`` takes it apart."""

    ids: list[list[str]]  # Q lists of k
    scores: Tensor  # (Q, k)
    weights: Tensor  # (Q, k, V) how much each view of the shape counted
    certified: list[bool]  # Q; whether these are proven to be the best of the gallery
    visited: list[int]  # Q; how many shapes were scored

    def __iter__(self) -> Iterator[Any]:
        return iter((self.ids, self.scores, self.weights))


class ShapeIndex(Contents):
    """A gallery ready to be searched; its fields are those of :class:`cmiclib.index.file.Contents`."""

    @classmethod
    def build(
        cls, model: CMIC, benchmark: Benchmark, config: Config | None = None, dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE, maps: Iterable[Tensor] | None = None, vectors: Tensor | None = None,
    ) -> "ShapeIndex":  # fmt: skip
        """Embed every shape of a benchmark's gallery; puts the model, on any device, into evaluation mode.

        The configuration is by default fp32; the vectors stay on the CPU in ``dtype``: float32, or bfloat16 for half
        the size, and scores that differ in the third digit. Several ``processes`` embed a share each, and all get the
        whole index. ``maps`` are what the frozen stages return for the views, and ``vectors`` (N, V, d) what the whole
        encoder returns, where that is known.
        """
        config = config or Config(model=model.config)
        ids, attention = benchmark.shapes.shape_id.tolist(), model.eval().attention().detach().cpu()
        if vectors is not None:
            views = vectors
        elif maps is not None:
            views = head_vectors(model.eval().view_encoder, maps, config).unflatten(0, benchmark.views.shape[:2])
        elif processes.count == 1:
            views = embed_gallery(model.eval(), benchmark.views, config)
        else:
            views = embed_in_shares(model.eval(), benchmark.views, config, processes)
        return cls(views.to(dtype), attention, ids, model, config, gallery=views_sha256(benchmark))

    @classmethod
    def from_arrays(
        cls, views: np.ndarray, attention: np.ndarray, shape_ids: list[str], dtype: torch.dtype = torch.float32
    ) -> "ShapeIndex":
        """Make an index from numpy arrays: views (N, V, d), attention (d, d); ``dtype`` as in :meth:`build`."""
        return cls(torch.as_tensor(views).to(dtype), torch.as_tensor(attention).float(), list(shape_ids))

    def __len__(self) -> int:
        return len(self.shape_ids)

    @property
    def fusion(self) -> Fusion:
        """How views become a score."""
        return self.config.model.fusion if self.config else "attention"

    @property
    def view_count(self) -> int:
        """V, the views of a shape."""
        return self.views.shape[1]

    def _made_from(self, benchmark: Benchmark) -> bool:
        return not self.gallery or views_sha256(benchmark) in ("", self.gallery)

    def check_gallery(self, benchmark: Benchmark) -> None:
        """Raise BenchmarkError for other shapes, another order, another number of views, or other pictures."""
        ids, views = benchmark.shapes.shape_id.tolist(), benchmark.views.shape[1]
        if self.shape_ids != ids:
            if len(ids) != len(self):
                problem = f"it has {len(ids)} shapes, the index {len(self)}"
            else:
                row = next(i for i, pair in enumerate(zip(ids, self.shape_ids, strict=True)) if pair[0] != pair[1])
                same = "the same shapes in another order" if set(ids) == set(self.shape_ids) else "other shapes"
                problem = f"it has {same}; in row {row} '{ids[row]}', the index '{self.shape_ids[row]}'"
        elif views != self.view_count:
            problem = f"its shapes have {views} views, those of the index {self.view_count}"
        elif not self._made_from(benchmark):
            problem = "its views have changed since the index was made"
        else:
            return
        problem = f"the index does not belong to the gallery '{benchmark.name}': {problem}"
        fix = "make the index from this benchmark with `cmic index`, or give the benchmark that it was made from"
        raise BenchmarkError(problem, path=benchmark.path, fix=fix)

    def embed(self, photos: np.ndarray) -> Tensor:
        """Photos (Q, 4, S, S) uint8 → query vectors (Q, d); CheckpointError if the index holds no photo encoder."""
        if self.model is None or self.config is None:
            raise CheckpointError("this index holds no photo encoder", fix="build it with `cmic index --run …`")
        return embed_queries(self.model, photos, self.config, precision=self.precision)

    @torch.no_grad()
    def scores(self, query: Tensor | np.ndarray) -> Tensor:
        """Query vectors (Q, d) → scores (Q, N) float32; raises ValueError for vectors with NaN."""
        vectors = self._vectors(query)
        scores = vectors.new_empty(len(vectors), len(self))
        for part, block in self._blocks(vectors):
            scores[:, part] = block
        return scores

    @torch.no_grad()
    def rank(self, query: Tensor | np.ndarray, k: int = 10) -> tuple[Tensor, Tensor]:
        """Return gallery rows and scores, both (Q, k), exactly; of equal scores the lower row comes first.

        The gallery is read once, block by block, so the memory needed does not grow with the gallery. ValueError for k
        below 1, or vectors with NaN.
        """
        vectors = self._vectors(query)
        best = vectors.new_empty(len(vectors), 0)
        rows = torch.empty(len(vectors), 0, dtype=torch.int64)
        for part, block in self._blocks(vectors):
            scores, columns = top_k(block, k)
            candidates = torch.cat([rows, columns + part.start], dim=1)  # equal scores in the order of rows
            best, places = top_k(torch.cat([best, scores], dim=1), k)
            rows = candidates.gather(1, places)
        return rows, best

    def _vectors(self, query: Tensor | np.ndarray) -> Tensor:
        vectors = torch.as_tensor(query).detach().float()
        bad = (~vectors.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist() if vectors.ndim > 1 else []
        if bad:
            named = ", ".join(map(str, bad[:10])) + (" and more" if len(bad) > 10 else "")
            raise ValueError(f"query vectors contain NaN or Inf in rows {named}; check the photos and the encoder")
        return vectors

    def _blocks(self, query: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Score the gallery in blocks of nearly equal size: which shapes, and (Q, n)."""
        products = len(query) * self.views.shape[0] * self.views.shape[1]
        count = max(1, min(len(self), -(-products // BLOCK)))
        for i in range(count):
            part = slice(len(self) * i // count, len(self) * (i + 1) // count)
            yield part, fused_scores(query, self.views[part], self.attention, self.fusion)

    @torch.no_grad()
    def search(self, query: Tensor | np.ndarray, k: int = 10, exact: bool = False) -> SearchResult:
        """Return ids, scores and view weights of the k best shapes of each query (Q, d), by :meth:`rank`; N at most.

        It is exact here; ``exact`` matters to :class:`cmiclib.index.lance.LanceIndex`.
        """
        rows, scores = self.rank(query, k)
        ids = [[self.shape_ids[i] for i in line] for line in rows.tolist()]
        asked = len(ids)
        return SearchResult(ids, scores, self.view_weights(query, rows), [True] * asked, [len(self)] * asked)

    @torch.no_grad()
    def view_weights(self, query: Tensor | np.ndarray, rows: Tensor) -> Tensor:
        """Return how much each view of some shapes counts: query (Q, d), gallery rows (Q, K) → (Q, K, V)."""
        weights = torch.zeros(*rows.shape, self.views.shape[1])
        for i, vector in enumerate(self._vectors(query)):  # one query at a time: (K, V, d) copies stay small
            weights[i] = fused_weights(vector[None], self.views[rows[i]], self.attention, self.fusion)[0]
        return weights

    def save(self, path: str | Path, without_backbone: bool = False) -> None:
        """Write one safetensors file, atomically; StorageError if the disk is full or read-only.

        ``without_backbone`` makes a small file. The photo encoder's backbone is left out; reading the file takes it
        from where the training took it, such as an installed package; CheckpointError if the training changed it.
        Views and matrices are written in float16.
        """
        write_index(Path(path), self, without_backbone)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str | None = None) -> "ShapeIndex":
        """Open an index file, or a database of :class:`cmiclib.index.lance.LanceIndex`, by what lies there.

        A file's views stay on the disk, memory-mapped, until a search reads them.

        Photos are embedded on ``device``, by default one of the kind that embedded the gallery, else the CPU; in the
        gallery's precision, or in fp32 on another kind of device. CheckpointError for a file that is missing, damaged
        or not an index.
        """
        if "://" in str(path) or (Path(path) / "head.lance").is_dir():
            from .lance import LanceIndex

            return LanceIndex.load(path, device)
        return cls(**vars(read_index(Path(path), device)))


def views_sha256(benchmark: Benchmark) -> str:
    """Return the digest of a benchmark's pictures of views, or an empty string."""
    return benchmark.meta.get("sha256", {}).get("views.npy", "")
