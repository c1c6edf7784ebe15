"""The file of an index: safetensors, with vectors, photo encoder and whatever else is kept with them."""

import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..config import Config, ModelConfig, parse_config
from ..embed import Precision
from ..errors import CheckpointError
from ..io.atomic import write_atomically
from ..io.files import check_regular, reason
from ..model import CMIC
from ..weights import load_initial_weights

FORMAT = "cmic-index-1"
ENCODER, BACKBONE, EXTRA = "query_encoder.", "backbone.", "extra."


class Contents(NamedTuple):
    """What :class:`cmiclib.index.ShapeIndex` takes."""

    views: Tensor
    attention: Tensor
    shape_ids: list[str]
    model: CMIC | None
    config: Config | None
    precision: Precision
    gallery: str
    extra: dict[str, Tensor]
    about: dict[str, Any]


def write_index(path: Path, index: Contents, without_backbone: bool) -> None:
    """See :meth:`cmiclib.index.ShapeIndex.save`."""
    tensors = {"views": index.views.half() if without_backbone else index.views, "attention": index.attention}
    state, device = {}, "cpu"
    if index.model:
        state, device = index.model.query_encoder.state_dict(), index.model.attention_weight.device.type
        if without_backbone:
            state = _without_backbone(state, index.model.config, path)
    tensors |= {ENCODER + name: value for name, value in state.items()}
    tensors |= {EXTRA + name: value for name, value in index.extra.items()}
    config = json.dumps(index.config.model_dump(mode="json", exclude_defaults=True)) if index.config else ""
    metadata = {
        "format": FORMAT, "shape_ids": json.dumps(index.shape_ids), "config": config, "gallery": index.gallery,
        "device": device, "precision": index.precision, "about": json.dumps(index.about),
    }  # fmt: skip
    # safetensors writes from where the numbers lie, so a memory-mapped gallery costs no memory.
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(whole, temporary, metadata))


def _without_backbone(state: dict[str, Tensor], config: ModelConfig, path: Path) -> dict[str, Tensor]:
    fresh = _photo_encoder(config, with_weights=True).query_encoder.state_dict()
    for name, value in state.items():
        counts = name.endswith("num_batches_tracked")
        if name.startswith(BACKBONE) and not counts and not torch.equal(value.cpu(), fresh[name]):
            raise CheckpointError(f"the training changed {name}", path=path, fix="save the index with its backbone")
    return {name: value for name, value in state.items() if not name.startswith(BACKBONE)}


def read_index(path: Path, device: torch.device | str | None, precision: Precision | None) -> Contents:
    """See :meth:`cmiclib.index.ShapeIndex.load`."""
    check_regular(path, CheckpointError, fix="make one with `cmic index`")
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
        return _contents(tensors, metadata, path, device, precision)
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise CheckpointError(
            f"this is not a complete index ({type(error).__name__}: {error!s:.300})",
            path=path,
            fix="make it again with `cmic index`",
        ) from None


def _contents(
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    path: Path,
    device: torch.device | str | None,
    precision: Precision | None,
) -> Contents:
    ids, about = json.loads(metadata["shape_ids"]), json.loads(metadata.get("about", "{}"))
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids) or not isinstance(about, dict):
        raise ValueError("shape_ids must be a list of strings, about a dictionary")
    views, attention = tensors.pop("views"), tensors.pop("attention")
    if views.ndim != 3 or views.shape[0] != len(ids) or attention.shape != (views.shape[2],) * 2:
        raise ValueError(f"views {tuple(views.shape)} and attention {tuple(attention.shape)} of {len(ids)} shapes")
    if views.dtype not in (torch.float32, torch.bfloat16, torch.float16) or attention.dtype != torch.float32:
        raise ValueError(f"views are {views.dtype}, attention is {attention.dtype}")
    if views.dtype == torch.float16:
        views = F.normalize(views.float(), dim=-1)
    extra = {name.removeprefix(EXTRA): value for name, value in tensors.items() if name.startswith(EXTRA)}
    gallery = metadata.get("gallery", "")
    if not metadata["config"]:
        return Contents(views, attention, ids, None, None, "fp32", gallery, extra, about)
    config = parse_config(json.loads(metadata["config"]), path=str(path))
    if config.model.dim != len(attention):
        raise ValueError(f"its vectors have {len(attention)} numbers, its encoder's {config.model.dim}")
    own = {name.removeprefix(ENCODER): value for name, value in tensors.items() if name.startswith(ENCODER)}
    whole = any(name.startswith(BACKBONE) for name in own)
    if not whole and config.model.init == "random":
        raise ValueError("it lacks the backbone, whose weights are not those of a package or file")
    model = _photo_encoder(config.model, with_weights=not whole)
    encoder = model.query_encoder
    kept = {} if whole else {name: v for name, v in encoder.state_dict().items() if name.startswith(BACKBONE)}
    encoder.load_state_dict(kept | own)  # nothing but the whole backbone may be missing
    model.attention_weight.data = attention
    kind, stored = metadata.get("device", "cpu"), metadata.get("precision", "fp32")
    if stored not in get_args(Precision):
        raise ValueError(f"precision is '{stored}'")
    target = torch.device(device or (kind if kind == "cuda" and torch.cuda.is_available() else "cpu"))
    model.to(target)
    known: Precision = stored if target.type == kind else "fp32"  # type: ignore[assignment]
    return Contents(views, attention, ids, model.eval(), config, precision or known, gallery, extra, about)


def _photo_encoder(config: ModelConfig, with_weights: bool) -> CMIC:
    """Make a model to read a photo encoder into; torch's global random generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        model = CMIC(config)
    if with_weights:
        load_initial_weights(model.query_encoder, config.query_backbone, config.init)
    return model
