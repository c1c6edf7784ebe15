"""Embed a gallery once, search it exactly, keep it in one file.

An index file is self-contained: the gallery's view embeddings, the attention matrix and the photo encoder, so that
``cmic search`` needs nothing else. The score is :meth:`cmiclib.model.CMIC.score`, the one of training and evaluation.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .altered import altered
from .benchmark import Benchmark
from .checkpoint import write_atomically
from .config import Config, Fusion, parse_config
from .embed import embed_gallery, embed_queries
from .errors import CheckpointError
from .files import check_regular
from .metrics import top_k
from .model import CMIC, fused_scores, fused_weights

FORMAT = "cmic-index-1"
FEW_QUERIES, MANY_SHAPES = 4, 2_000
"""So few queries of so many shapes are searched in one compiled pass; less is done within a millisecond either way."""


class SearchResult(NamedTuple):
    """The first k shapes of each query, best first."""

    ids: list[list[str]]  # Q lists of k
    scores: Tensor  # (Q, k)
    weights: Tensor  # (Q, k, V) how much each view of the shape counted


class ShapeIndex:
    """A gallery ready to be searched.

    Args:
        views: (N, V, d) float32, last axis of length 1.
        attention: (d, d), the matrix W of :func:`cmiclib.model.attention_scores`.
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
    def build(cls, model: CMIC, benchmark: Benchmark, config: Config | None = None) -> "ShapeIndex":
        """Embed every shape of a benchmark's gallery; puts the model into evaluation mode.

        Args:
            model: on any device; the index itself stays on the CPU.
            benchmark: its views are the gallery, altered as the configuration says.
            config: the run's configuration; default: fp32 and the augmentation's defaults.
        """
        config = config or Config(model=model.config)
        views = embed_gallery(model.eval(), altered(benchmark, config.data).views, config)
        attention = model.attention_weight.detach().cpu()
        return cls(views, attention, benchmark.shapes.shape_id.tolist(), model, config)

    @classmethod
    def from_arrays(cls, views: np.ndarray, attention: np.ndarray, shape_ids: list[str]) -> "ShapeIndex":
        """Make an index from numpy arrays: views (N, V, d), attention (d, d)."""
        return cls(torch.as_tensor(views).float(), torch.as_tensor(attention).float(), list(shape_ids))

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
        """Query vectors (Q, d) → scores (Q, N)."""
        vectors = self._vectors(query)
        if self.fusion == "attention" and 0 < len(vectors) <= FEW_QUERIES and len(self) >= MANY_SHAPES:
            from .scan import scan  # compiles, so only where it pays

            return scan(torch.as_tensor(query).float(), self.views, self.attention.float())
        return fused_scores(vectors, self.views, self.attention, self.fusion)

    def rank(self, query: Tensor | np.ndarray, k: int = 10) -> tuple[Tensor, Tensor]:
        """Return gallery rows and scores, both (Q, k), exactly; of equal scores the lower row comes first."""
        scores, rows = top_k(self.scores(query), k)
        return rows, scores

    @torch.no_grad()
    def search(self, query: Tensor | np.ndarray, k: int = 10) -> SearchResult:
        """Return ids, scores and view weights of the k best shapes of each query (Q, d); all N where k is larger."""
        rows, scores = self.rank(query, k)
        weights = scores.new_zeros(*rows.shape, self.views.shape[1])  # (Q, k, V)
        for i, vector in enumerate(self._vectors(query)):  # one query at a time: (k, V, d) copies stay small
            weights[i] = fused_weights(vector[None], self.views[rows[i]], self.attention, self.fusion)[0]
        return SearchResult([[self.shape_ids[i] for i in line] for line in rows.tolist()], scores, weights)

    def _vectors(self, query: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(query).to(self.views)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically.

        Raises:
            StorageError: the disk is full or read-only.
        """
        tensors = {"views": self.views.contiguous(), "attention": self.attention.contiguous()}
        if self.model is not None:
            state = self.model.query_encoder.state_dict()
            tensors |= {f"query_encoder.{name}": value.contiguous().cpu() for name, value in state.items()}
        config = self.config.model_dump_json() if self.config else ""
        metadata = {"format": FORMAT, "shape_ids": json.dumps(self.shape_ids), "config": config}
        write_atomically(Path(path), lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "ShapeIndex":
        """Read an index file.

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
                f"the index cannot be read ({error})", path=path, fix="make it again with `cmic index`"
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
            if not (views.is_floating_point() and attention.is_floating_point()):
                raise ValueError("its vectors are no numbers with a fraction")
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
