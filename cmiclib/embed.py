"""Photos and views to vectors, as evaluation, index and browser see them: whole, in batches, without randomness."""

from collections.abc import Iterable, Iterator

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


def default_device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def embed_queries(model: CMIC, photos: np.ndarray, config: Config, batch: int = 256) -> Tensor:
    """Embed photos without any randomness; with ``model.mirror``, as the mean of both directions.

    Args:
        model: in evaluation mode, on any device.
        photos: (Q, 4, S, S) uint8, RGB and mask; any S.
        config: the model's configuration.
        batch: photos at a time.

    Returns:
        (Q, d) float32 on the CPU, rows of length 1.
    """
    vectors = head_vectors(model.query_encoder, query_maps(model, photos, config, batch), config)
    if not config.model.mirror:
        return vectors
    mirrored = head_vectors(model.query_encoder, query_maps(model, photos[..., ::-1], config, batch), config)
    return F.normalize(vectors + mirrored, dim=1)


def embed_gallery(model: CMIC, views: np.ndarray, config: Config, batch: int = 32) -> Tensor:
    """Embed all views of all shapes.

    Args:
        model: in evaluation mode, on any device.
        views: (N, V, S, S) uint8; any S.
        config: the model's configuration.
        batch: shapes at a time.

    Returns:
        (N, V, d) float32 on the CPU, last axis of length 1.
    """
    return head_vectors(model.view_encoder, view_maps(model, views, config, batch), config).unflatten(
        0, views.shape[:2]
    )


def embed_in_shares(model: CMIC, views: np.ndarray, config: Config, processes: Processes) -> Tensor:
    """Embed a gallery together: each process its share of the shapes; returns all of them (N, V, d) in each process."""
    own = embed_gallery(model, views[processes.shard(len(views))], config)
    return processes.gather(own.to(next(model.parameters()).device), len(views)).cpu()


@torch.no_grad()
def head_vectors(encoder: Encoder, maps: Iterable[Tensor], config: Config) -> Tensor:
    """Embed what the frozen stages returned, batch by batch; returns all rows (n, d) float32 on the CPU."""
    parts = []
    for block in maps:
        with autocast(config, block.device):
            parts.append(encoder.head_forward(block).cpu())
    return torch.cat(parts) if parts else torch.zeros(0, config.model.dim)


@torch.no_grad()
def query_maps(model: CMIC, photos: np.ndarray, config: Config, batch: int = 256) -> Iterator[Tensor]:
    """Run the frozen stages on photos (Q, 4, S, S), batch by batch: (b, …) each, on the model's device."""
    device = next(model.parameters()).device
    for start in range(0, len(photos), batch):
        block = to_device(torch.from_numpy(np.array(photos[start : start + batch])), device)  # (b, 4, S, S)
        with autocast(config, device):
            pictures = model.photo_input(prepare_queries(block, config.model.image_size))
            yield model.query_encoder.frozen_forward(pictures)


@torch.no_grad()
def view_maps(model: CMIC, views: np.ndarray, config: Config, batch: int = 32) -> Iterator[Tensor]:
    """Run the frozen stages on the views (N, V, S, S) of ``batch`` shapes at a time: (n·V, …) each."""
    device = next(model.parameters()).device
    for start in range(0, len(views), batch):
        block = to_device(torch.from_numpy(np.array(views[start : start + batch])), device)  # (n, V, S, S)
        with autocast(config, device):
            yield model.view_encoder.frozen_forward(prepare_views(block, config.model.image_size).flatten(0, 1))
        release_pages(views)


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """Return the autocast context of the configured precision.

    A CPU computes in fp32 whatever is configured: most have no instructions for bfloat16 and are 17 times slower in it,
    and those that have some would give other figures.
    """
    half = config.train.precision == "bf16" and device.type != "cpu"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)
