"""The file of an index: safetensors, with vectors, photo encoder and whatever else is kept with them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..config import Config, ModelConfig, parse_config
from ..embed import Precision, precision_on
from ..errors import CheckpointError
from ..io.atomic import write_atomically
from ..io.files import check_regular, reason
from ..model import CMIC
from ..weights import load_initial_weights

FORMAT = "cmic-index-1"
ENCODER, BACKBONE, EXTRA = "query_encoder.", "backbone.", "extra."


@dataclass(eq=False, repr=False)
class Contents:
    """What a gallery's search needs: the fields of :class:`cmiclib.index.ShapeIndex`."""

    views: Tensor  # (N, V, d) float32, or bfloat16 for half the memory; last axis of length 1; may be memory-mapped
    attention: Tensor  # (d, d) float32, the matrix W of `cmiclib.model.attention_scores`
    shape_ids: list[str]  # N names
    model: CMIC | None = (
        None  # on any device, read without its encoder of views; None: only vectors can be searched with
    )
    config: Config | None = None  # the model's
    precision: Precision | None = None  # in what the encoder computes; default: as configured on the model's device
    gallery: str = ""  # sha256 of the pictures that the views were made from, where known
    extra: dict[str, Tensor] = field(default_factory=dict)  # arrays that are kept in the same file
    about: dict[str, Any] = field(default_factory=dict)  # facts that are kept in the same file, ready for JSON

    def __post_init__(self) -> None:
        views, attention, ids = self.views, self.attention, self.shape_ids
        if views.ndim != 3 or len(views) != len(ids) or attention.shape != (views.shape[2],) * 2:
            raise ValueError(
                f"views {tuple(views.shape)} and attention {tuple(attention.shape)} of {len(ids)} shapes do not fit: "
                "pass views (N, V, d), attention (d, d) and N ids"
            )
        if self.precision is None:
            self.precision = precision_on(self.device, self.config) if self.config else "fp32"

    @property
    def device(self) -> torch.device:
        """Where photos are embedded; the gallery is searched on the CPU."""
        return self.model.attention_weight.device if self.model else torch.device("cpu")


def write_index(path: Path, index: Contents, without_backbone: bool) -> None:
    """See :meth:`cmiclib.index.ShapeIndex.save`."""
    tensors = {"views": index.views.half() if without_backbone else index.views, "attention": index.attention}
    state = index.model.query_encoder.state_dict() if index.model else {}
    if index.model and without_backbone:
        state = _without_backbone(state, index.model.config, path)
    tensors |= {ENCODER + name: value for name, value in state.items()}
    tensors |= {EXTRA + name: value for name, value in index.extra.items()}
    config = json.dumps(index.config.model_dump(mode="json", exclude_defaults=True)) if index.config else ""
    metadata = {
        "format": FORMAT, "shape_ids": json.dumps(index.shape_ids), "config": config, "gallery": index.gallery,
        "device": index.device.type, "precision": index.precision or "fp32", "about": json.dumps(index.about),
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
    head = {name: value for name, value in state.items() if not name.startswith(BACKBONE)}
    return {name: value.half() if value.ndim > 1 else value for name, value in head.items()}


def read_index(path: Path, device: torch.device | str | None) -> Contents:
    """See :meth:`cmiclib.index.ShapeIndex.load`."""
    fix = "make it, or make it again, with `cmic index`"
    check_regular(path, CheckpointError, fix=fix)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError("this is not an index file", path=path, fix=fix)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"the index cannot be read ({reason(error)})", path=path, fix=fix) from None
    try:
        return _contents(tensors, metadata, path, device)
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        problem = f"this is not a complete index ({type(error).__name__}: {error!s:.300})"
        raise CheckpointError(problem, path=path, fix=fix) from None


def _contents(
    tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, device: torch.device | str | None
) -> Contents:
    ids, about = json.loads(metadata["shape_ids"]), json.loads(metadata.get("about", "{}"))
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids) or not isinstance(about, dict):
        raise ValueError("shape_ids must be a list of strings, about a dictionary")
    views, attention = tensors.pop("views"), tensors.pop("attention")
    if views.dtype not in (torch.float32, torch.bfloat16, torch.float16) or attention.dtype != torch.float32:
        raise ValueError(f"views are {views.dtype}, attention is {attention.dtype}")
    extra = {name.removeprefix(EXTRA): value for name, value in tensors.items() if name.startswith(EXTRA)}
    contents = Contents(views, attention, ids, gallery=metadata.get("gallery", ""), extra=extra, about=about)
    if views.dtype == torch.float16:
        contents.views = F.normalize(views.float(), dim=-1)
    if not metadata["config"]:
        return contents
    config = parse_config(json.loads(metadata["config"]), path=str(path))
    if config.model.length != len(attention):
        raise ValueError(f"its vectors have {len(attention)} numbers, its encoder's {config.model.length}")
    own = {name.removeprefix(ENCODER): value for name, value in tensors.items() if name.startswith(ENCODER)}
    whole = any(name.startswith(BACKBONE) for name in own)
    if not whole and config.model.init == "random":
        raise ValueError("it lacks the backbone, whose weights are not those of a package or file")
    model = _photo_encoder(config.model, with_weights=not whole)
    encoder = model.query_encoder
    kept = {} if whole else {name: v for name, v in encoder.state_dict().items() if name.startswith(BACKBONE)}
    encoder.load_state_dict(kept | own)  # nothing but the whole backbone may be missing
    model.attention_weight.data = attention[: config.model.dim, : config.model.dim].contiguous()
    kind, stored = metadata.get("device", "cpu"), metadata.get("precision", "fp32")
    if stored not in get_args(Precision):
        raise ValueError(f"precision is '{stored}'")
    target = torch.device(device or (kind if kind == "cuda" and torch.cuda.is_available() else "cpu"))
    contents.model, contents.config = model.to(target).eval(), config
    contents.precision = stored if target.type == kind else "fp32"  # type: ignore[assignment]
    return contents


def _photo_encoder(config: ModelConfig, with_weights: bool) -> CMIC:
    """Make a model to read a photo encoder into; torch's global random generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        model = CMIC(config, photos_only=True)
    if with_weights:
        load_initial_weights(model.query_encoder, config.query_backbone, config.init)
    return model
