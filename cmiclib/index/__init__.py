"""Embed a gallery once, search it exactly, keep it in one file.

An index file is self-contained: the gallery's view embeddings, the attention matrix and the photo encoder, so that
``cmic search`` needs nothing else. The score is :meth:`cmiclib.model.CMIC.score`, the one of training and evaluation.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..benchmark import Benchmark
from ..config import Config, Fusion, parse_config
from ..embed import embed_gallery, embed_in_shares, embed_queries
from ..engine.distributed import ALONE, Processes
from ..errors import CheckpointError
from ..io.atomic import write_atomically
from ..io.files import check_regular, reason
from ..metrics import top_k
from ..model import CMIC, fused_scores, fused_weights

FORMAT = "cmic-index-1"
BLOCK = 1 << 26
"""Products of queries and views in a block of the gallery: 256 MB where all of them exist at once."""


class SearchResult(NamedTuple):
    """The first k shapes of each query, best first."""

    ids: list[list[str]]  # Q lists of k
    scores: Tensor  # (Q, k)
    weights: Tensor  # (Q, k, V) how much each view of the shape counted


class ShapeIndex:
    """A gallery ready to be searched.

    Args:
        views: (N, V, d) float32, or bfloat16 for half the memory; last axis of length 1. They may be memory-mapped.
        attention: (d, d) float32, the matrix W of :func:`cmiclib.model.attention_scores`.
        shape_ids: N names.
        model: the encoder of photos; without one, :meth:`search` takes vectors only.
        config: the model's configuration.
    """

    def __init__(
        self,
        views: Tensor,
        attention: Tensor,
        shape_ids: list[str],
        model: CMIC | None = None,
        config: Config | None = None,
    ):
        if views.ndim != 3 or len(views) != len(shape_ids) or attention.shape != (views.shape[2],) * 2:
            raise ValueError(
                f"expected views (N, V, d), attention (d, d) and N ids, got {tuple(views.shape)}, "
                f"{tuple(attention.shape)} and {len(shape_ids)}"
            )
        self.views, self.attention, self.shape_ids = views, attention, list(shape_ids)
        self.model, self.config = model, config

    @classmethod
    def build(
        cls,
        model: CMIC,
        benchmark: Benchmark,
        config: Config | None = None,
        dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
    ) -> "ShapeIndex":
        """Embed every shape of a benchmark's gallery; puts the model into evaluation mode.

        Args:
            model: on any device; the index itself stays on the CPU.
            benchmark: its views are the gallery.
            config: the run's configuration; default: fp32 and the augmentation's defaults.
            dtype: float32, or bfloat16: half the size, and scores that differ in the third digit.
            processes: each embeds its share, and all get the whole index.
        """
        config = config or Config(model=model.config)
        pictures = benchmark.views
        if processes.count == 1:
            views = embed_gallery(model.eval(), pictures, config)
        else:
            views = embed_in_shares(model.eval(), pictures, config, processes)
        attention = model.attention_weight.detach().cpu()
        return cls(views.to(dtype), attention, benchmark.shapes.shape_id.tolist(), model, config)

    @classmethod
    def from_arrays(
        cls, views: np.ndarray, attention: np.ndarray, shape_ids: list[str], dtype: torch.dtype = torch.float32
    ) -> "ShapeIndex":
        """Make an index from numpy arrays: views (N, V, d), attention (d, d); ``dtype`` as in :meth:`build`."""
        return cls(torch.as_tensor(views).to(dtype), torch.as_tensor(attention).float(), list(shape_ids))

    def __len__(self) -> int:
        return len(self.shape_ids)

    def embed(self, photos: np.ndarray) -> Tensor:
        """Photos (Q, 4, S, S) uint8 → query vectors (Q, d).

        Raises:
            CheckpointError: the index was made from arrays and holds no photo encoder.
        """
        if self.model is None or self.config is None:
            raise CheckpointError("this index holds no photo encoder", fix="build it with `cmic index --run …`")
        return embed_queries(self.model, photos, self.config)

    @property
    def fusion(self) -> Fusion:
        """How views become a score."""
        return self.config.model.fusion if self.config else "attention"

    @torch.no_grad()
    def scores(self, query: Tensor | np.ndarray) -> Tensor:
        """Query vectors (Q, d) → scores (Q, N) float32."""
        vectors = _vectors(query)
        scores = vectors.new_empty(len(vectors), len(self))
        for part, block in self._blocks(vectors):
            scores[:, part] = block
        return scores

    @torch.no_grad()
    def rank(self, query: Tensor | np.ndarray, k: int = 10) -> tuple[Tensor, Tensor]:
        """Return gallery rows and scores, both (Q, k), exactly; of equal scores the lower row comes first.

        The gallery is read once, block by block; the memory that it takes does not grow with the gallery.
        """
        vectors = _vectors(query)
        best = vectors.new_empty(len(vectors), 0)
        rows = torch.empty(len(vectors), 0, dtype=torch.int64)
        for part, block in self._blocks(vectors):
            scores, columns = top_k(block, k)
            candidates = torch.cat([rows, columns + part.start], dim=1)  # equal scores in the order of rows
            best, places = top_k(torch.cat([best, scores], dim=1), k)
            rows = candidates.gather(1, places)
        return rows, best

    def _blocks(self, query: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Score the gallery in blocks of nearly one size: which shapes, and (Q, n)."""
        products = len(query) * self.views.shape[0] * self.views.shape[1]
        count = max(1, min(len(self), -(-products // BLOCK)))
        for i in range(count):
            part = slice(len(self) * i // count, len(self) * (i + 1) // count)
            yield part, fused_scores(query, self.views[part], self.attention, self.fusion)

    @torch.no_grad()
    def search(self, query: Tensor | np.ndarray, k: int = 10) -> SearchResult:
        """Return ids, scores and view weights of the k best shapes of each query (Q, d); all N where k is larger."""
        rows, scores = self.rank(query, k)
        weights = scores.new_zeros(*rows.shape, self.views.shape[1])  # (Q, k, V)
        for i, vector in enumerate(_vectors(query)):  # one query at a time: (k, V, d) copies stay small
            weights[i] = fused_weights(vector[None], self.views[rows[i]], self.attention, self.fusion)[0]
        return SearchResult([[self.shape_ids[i] for i in line] for line in rows.tolist()], scores, weights)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically.

        Raises:
            StorageError: the disk is full or read-only.
        """
        tensors = {"views": self.views, "attention": self.attention}
        if self.model:
            tensors |= {f"query_encoder.{name}": value for name, value in self.model.query_encoder.state_dict().items()}
        metadata = {
            "format": FORMAT,
            "shape_ids": json.dumps(self.shape_ids),
            "config": self.config.model_dump_json() if self.config else "",
        }
        # safetensors writes from where the numbers lie, so a memory-mapped gallery costs no memory.
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        write_atomically(Path(path), lambda temporary: save_file(whole, temporary, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "ShapeIndex":
        """Open an index file; its views stay on the disk, memory-mapped, until a search reads them.

        Raises:
            CheckpointError: missing, damaged or not an index.
        """
        check_regular(Path(path), CheckpointError, fix="make one with `cmic index`")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise CheckpointError("this is not an index file", path=path, fix="make one with `cmic index`")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"the index cannot be read ({reason(error)})", path=path, fix="make it again with `cmic index`"
            ) from None
        try:
            ids = json.loads(metadata["shape_ids"])
            if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
                raise ValueError("its ids are no list of names")
            views, attention = tensors.pop("views"), tensors.pop("attention")
            if views.ndim != 3 or views.shape[0] != len(ids) or attention.shape != (views.shape[2],) * 2:
                raise ValueError(
                    f"views {tuple(views.shape)} and attention {tuple(attention.shape)} of {len(ids)} shapes"
                )
            if views.dtype not in (torch.float32, torch.bfloat16) or attention.dtype != torch.float32:
                raise ValueError(f"its views are {views.dtype}, its attention {attention.dtype}")
            if not metadata["config"]:
                return cls(views, attention, ids)
            config = parse_config(json.loads(metadata["config"]), path=str(path))
            if config.model.dim != len(attention):
                raise ValueError(f"its vectors have {len(attention)} numbers, its encoder's {config.model.dim}")
            model = CMIC(config.model)
            prefix = "query_encoder."
            model.query_encoder.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items()})
            model.attention_weight.data = attention
            return cls(views, attention, ids, model.eval(), config)
        except (KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise CheckpointError(
                f"the index does not hold what one holds ({type(error).__name__}: {error!s:.300})",
                path=path,
                fix="make it again with `cmic index`",
            ) from None


def _vectors(query: Tensor | np.ndarray) -> Tensor:
    return torch.as_tensor(query).detach().float()
