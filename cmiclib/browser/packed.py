"""A trained model small enough for a repository: what training changed, the gallery's vectors, the photos' vectors.

The demo's convolutions keep their ImageNet weights, which come with an installed package (:mod:`cmiclib.weights`). So a
packed model holds the photo encoder without its backbone; unit vectors are kept in half precision. It searches the very
gallery that it was made for, and no other. ``tools/pack/pack_model.py`` makes ``data/browser/sweethome.safetensors``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..benchmark import Benchmark
from ..config import parse_config
from ..encoders import load_initial_weights
from ..errors import CheckpointError
from ..evaluation.projection import Atlas, shape_points
from ..index import ShapeIndex
from ..io.atomic import write_atomically
from ..io.files import check_regular, reason
from ..model import CMIC
from .retriever import Retriever

FORMAT = "cmic-packed-1"
ENCODER, BACKBONE = "query_encoder.", "backbone."


def pack(retriever: Retriever, path: Path, origin: dict[str, Any]) -> None:
    """Write a packed model.

    Args:
        retriever: its index, test photos and map are packed.
        path: the file to write.
        origin: where the weights come from, in words and numbers; kept with them.

    Raises:
        CheckpointError: training changed the backbone, so that its weights cannot be left out.
        StorageError: the disk is full.
    """
    index, atlas = retriever.index, retriever.atlas
    assert index.model is not None and index.config is not None  # a retriever embeds photos
    state = index.model.query_encoder.state_dict()
    fresh = CMIC(index.config.model).query_encoder
    load_initial_weights(fresh, index.config.model.query_backbone, index.config.model.init)
    for name, value in fresh.state_dict().items():
        if (
            name.startswith(BACKBONE)
            and not name.endswith("num_batches_tracked")
            and not torch.equal(value, state[name])
        ):
            raise CheckpointError(f"training changed {name}", fix="pack a model whose backbone is frozen")
    tensors = {ENCODER + name: value for name, value in state.items() if not name.startswith(BACKBONE)}
    tensors |= {
        "views": index.views.half(),
        "attention": index.attention,
        "photos": retriever.embed_photos().half(),
        "places": torch.from_numpy(atlas.places),
        "rows": torch.from_numpy(atlas.rows.astype(np.int32)),
    }
    metadata = {
        "format": FORMAT,
        "benchmark": retriever.gallery.hash,
        "config": index.config.model_dump_json(),
        "origin": json.dumps(origin),
    }
    ready = {name: value.contiguous().cpu() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(ready, temporary, metadata))


def unpack(path: Path, gallery: Benchmark) -> tuple[Retriever, dict[str, Any]]:
    """Return a packed model, ready to be asked, and where it comes from.

    Raises:
        CheckpointError: missing, damaged, of another gallery, or the package with the backbone's weights is missing.
    """
    check_regular(path, CheckpointError, fix="check it out again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError("this is not a packed model", path=path, fix="check it out again")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"cannot be read ({reason(error)})", path=path, fix="check it out again") from None
    if metadata.get("benchmark") != gallery.hash:
        raise CheckpointError(
            f"the packed model is of another state of the benchmark than '{gallery.name}' here",
            path=path,
            fix="train on this one with `make reproduce`, or check both out together",
        )
    try:
        return _retriever(tensors, metadata, path, gallery), json.loads(metadata["origin"])
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"does not hold what one holds ({type(error).__name__}: {error!s:.300})",
            path=path,
            fix="check it out again",
        ) from None


def _retriever(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, gallery: Benchmark) -> Retriever:
    config = parse_config(json.loads(metadata["config"]), path=str(path))
    model, dim = CMIC(config.model), config.model.dim
    shapes = {
        "views": (*gallery.views.shape[:2], dim),
        "attention": (dim, dim),
        "photos": (len(gallery.rows("test")), dim),
        "places": (len(tensors["rows"]), 2),
    }
    for name, shape in shapes.items():
        if tensors[name].shape != shape or not tensors[name].is_floating_point():
            raise ValueError(f"{name} are {tensors[name].dtype} {tuple(tensors[name].shape)}, not numbers {shape}")
    load_initial_weights(model.query_encoder, config.model.query_backbone, config.model.init)
    own = {name.removeprefix(ENCODER): value for name, value in tensors.items() if name.startswith(ENCODER)}
    model.query_encoder.load_state_dict(own, strict=False)
    model.attention_weight.data = tensors["attention"]
    views, photos = (F.normalize(tensors[name].float(), dim=-1) for name in ("views", "photos"))
    index = ShapeIndex(views, tensors["attention"], gallery.shapes.shape_id.tolist(), model.eval(), config)
    atlas = _atlas(tensors["places"].numpy(), tensors["rows"].numpy(), photos, views, gallery)
    return Retriever(index, gallery, vectors=photos, atlas=atlas)


def _atlas(places: np.ndarray, rows: np.ndarray, photos: Tensor, views: Tensor, gallery: Benchmark) -> Atlas:
    """Put a map together again: its points are among the vectors that are kept anyway."""
    category = gallery.queries.category.to_numpy()[gallery.rows("test")]
    shapes = gallery.shapes.category.to_numpy()
    known = int(np.isin(shapes, category).sum()) if len(photos) else len(shapes)  # as `build_map` chose them
    some, known_rows = rows[: len(rows) - known], rows[len(rows) - known :]
    return Atlas(
        points=torch.cat([photos[some], shape_points(views)[known_rows]]),
        places=places,
        category=np.concatenate([category[some], shapes[known_rows]]),
        is_photo=np.arange(len(rows)) < len(some),
        rows=rows,
    )
