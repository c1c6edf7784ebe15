"""Photos and views to vectors, as validation, evaluation, index and browser see them: whole, without randomness.

Each of the two directions has two halves. ``…_maps`` runs the frozen stages on pictures; what it returns can be kept.
``photo_vectors`` and ``head_vectors`` embed such maps. :func:`embed_queries` and :func:`embed_gallery` do both.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .augment import prepare_queries, prepare_views
from .config import Config
from .encoders import Encoder
from .engine.device import to_device
from .engine.distributed import Processes
from .io.files import release_pages
from .model import CMIC

Precision = Literal["fp32", "bf16"]
"""In what the encoders compute; vectors are always float32."""


def default_device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision_on(device: torch.device, config: Config) -> Precision:
    """Return the configured precision on a GPU, and fp32 on a CPU.

    Most CPUs have no instructions for bfloat16 and are 17 times slower in it; on the others the figures would differ.
    """
    return "fp32" if device.type == "cpu" else config.train.precision


def autocast(config: Config, device: torch.device, precision: Precision | None = None) -> torch.autocast:
    """Return the autocast context of a precision; by default that of :func:`precision_on`."""
    half = (precision or precision_on(device, config)) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


def embed_queries(
    model: CMIC, photos: np.ndarray, config: Config, batch: int = 256, precision: Precision | None = None
) -> Tensor:
    """Embed photos; with ``model.mirror`` a vector is the mean of the photo's and of its mirror image's, at length 1.

    Args:
        model: in evaluation mode, on any device.
        photos: (Q, 4, S, S) uint8, RGB and mask; any S.
        config: the model's configuration.
        batch: photos at a time.
        precision: default: :func:`precision_on` the model's device.

    Returns:
        (Q, d) float32 on the CPU, rows of length 1.
    """
    return photo_vectors(model, query_maps(model, photos, config, batch, precision), config, precision)


def embed_gallery(
    model: CMIC, views: np.ndarray, config: Config, batch: int = 32, precision: Precision | None = None
) -> Tensor:
    """Embed all views of all shapes.

    Args:
        model: in evaluation mode, on any device.
        views: (N, V, S, S) uint8; any S.
        config: the model's configuration.
        batch: shapes at a time.
        precision: default: :func:`precision_on` the model's device.

    Returns:
        (N, V, d) float32 on the CPU, last axis of length 1.
    """
    maps = view_maps(model, views, config, batch, precision)
    return head_vectors(model.view_encoder, maps, config, precision).unflatten(0, views.shape[:2])


def embed_in_shares(
    model: CMIC, views: np.ndarray, config: Config, processes: Processes, precision: Precision | None = None
) -> Tensor:
    """Embed a gallery together: each process embeds its share of the shapes; returns all (N, V, d) in each process."""
    own = embed_gallery(model, views[processes.shard(len(views))], config, precision=precision)
    return processes.gather(own.to(next(model.parameters()).device), len(views)).cpu()


def photo_vectors(model: CMIC, maps: Iterable[Tensor], config: Config, precision: Precision | None = None) -> Tensor:
    """Embed what :func:`query_maps` returned, or what was kept of it: (Q, d) float32 on the CPU."""
    vectors = [head_vectors(model.query_encoder, [block], config, precision) for block in maps]
    if config.model.mirror:
        vectors = [F.normalize(torch.add(*block.chunk(2)), dim=1) for block in vectors]
    return torch.cat(vectors) if vectors else torch.zeros(0, config.model.length)


@torch.no_grad()
def head_vectors(
    encoder: Encoder, maps: Iterable[Tensor], config: Config, precision: Precision | None = None
) -> Tensor:
    """Embed what the frozen stages returned, batch by batch; returns all rows (n, d) float32 on the CPU."""
    parts = []
    for block in maps:
        with autocast(config, block.device, precision):
            parts.append(encoder.head_forward(block).cpu())
    return torch.cat(parts) if parts else torch.zeros(0, config.model.length)


@torch.no_grad()
def query_maps(
    model: CMIC, photos: np.ndarray, config: Config, batch: int = 256, precision: Precision | None = None
) -> Iterator[Tensor]:
    """Run the frozen stages on photos (Q, 4, S, S), batch by batch: (b, …) each, on the model's device.

    With ``model.mirror`` each batch is (2·b, …): the photos, then their mirror images.
    """
    device = next(model.parameters()).device
    for start in range(0, len(photos), batch):
        block = to_device(torch.from_numpy(np.array(photos[start : start + batch])), device)  # (b, 4, S, S)
        if config.model.mirror:
            block = torch.cat([block, block.flip(-1)])
        with autocast(config, device, precision):
            pictures = model.photo_input(prepare_queries(block, config.model.image_size))
            maps = model.query_encoder.frozen_forward(pictures)
        yield maps  # outside of the context, which an error in the caller would leave switched on


@torch.no_grad()
def view_maps(
    model: CMIC, views: np.ndarray, config: Config, batch: int = 32, precision: Precision | None = None
) -> Iterator[Tensor]:
    """Run the frozen stages on the views (N, V, S, S) of ``batch`` shapes at a time: (n·V, …) each."""
    device = next(model.parameters()).device
    for start in range(0, len(views), batch):
        block = to_device(torch.from_numpy(np.array(views[start : start + batch])), device)  # (n, V, S, S)
        with autocast(config, device, precision):
            pictures = prepare_views(block, config.model.image_size).flatten(0, 1)
            maps = model.view_encoder.frozen_forward(pictures)
        release_pages(views)
        yield maps
