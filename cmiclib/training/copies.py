"""Augmented copies of the training pictures, taken through the frozen stages once, before training.

Frozen stages give the same maps in every step, and they are most of the work. So each photo and each view is
augmented some times (``train.copies``, ``train.view_copies``), as a training step would do it, and the maps of these
copies stay in memory; a step draws one of them for each of its pictures. Colours and surroundings come from photos of
the same batch, here as there. Where only one of the two encoders has frozen stages worth the memory, only its pictures
have copies. Validation looks at the same pictures again and again, so their maps are kept, too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..augment import augment_queries, augment_views
from ..batches import step_generator
from ..config import Config
from ..embed import autocast, query_maps, view_maps
from ..encoders import Encoder
from ..engine.device import to_device
from ..model import CMIC

BATCH = 96
"""Pictures at a time: the maps of the first stages of so many fit into memory on every device."""


@dataclass(frozen=True)
class AugmentedFeatures:
    """What :meth:`.Encoder.frozen_forward` returns: maps, or features where all stages are frozen."""

    photos: Tensor | None  # (K, P, …)
    views: Tensor | None  # (L, N, V, …)


def draw_photos(copies: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one of the ``copies`` (K, P, …) of each photo in ``rows`` (B,); returns (B, …)."""
    return copies[_draw(len(copies), rows, generator), rows]


def draw_views(copies: Tensor, shapes: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one of the ``copies`` (L, N, V, …) of views ``chosen`` (B, v) of ``shapes`` (B,); returns (B, v, …)."""
    return copies[_draw(len(copies), chosen, generator), shapes[:, None], chosen]


@dataclass(frozen=True)
class ValidationFeatures:
    """Maps of the validation photos and of the gallery, batch by batch, without randomness."""

    queries: list[Tensor]
    views: list[Tensor]

    @classmethod
    def make(cls, model: CMIC, photos: np.ndarray, views: np.ndarray, config: Config) -> "ValidationFeatures":
        """Run the frozen stages on photos (Q, 4, S, S) and views (N, V, S, S)."""
        return cls(list(query_maps(model, photos, config)), list(view_maps(model, views, config)))


def _draw(copies: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return to_device(torch.randint(copies, like.shape, generator=generator), like.device)


@torch.no_grad()
def make_copies(model: CMIC, photos: Tensor, views: Tensor, config: Config, progress: bool = True) -> AugmentedFeatures:
    """Augment every training picture as often as the configuration says, and run the frozen stages.

    Args:
        model: on the pictures' device.
        photos: uint8 (P, 4, S, S).
        views: uint8 (N, V, S, S).
        config: augmentation, size, seed and numbers of copies.
        progress: show a progress bar.
    """
    size, settings, device = config.model.image_size, config.train, photos.device
    total = settings.copies * len(photos) + settings.view_copies * views.shape[:2].numel()
    bar = tqdm(total=total, desc="frozen stages", unit="picture", disable=not progress)

    def run(encoder: Encoder, pictures: Tensor) -> Tensor:
        bar.update(len(pictures))
        with autocast(config, device):
            return encoder.frozen_forward(pictures)

    photo_copies, view_copies = [], []
    for copy in range(settings.copies):
        order = torch.randperm(len(photos), generator=step_generator(settings.seed, copy, "copy"))
        maps = []
        for rows in order.split(BATCH):
            generator = step_generator(settings.seed, copy, f"photos from {rows[0]}")
            pictures = augment_queries(photos[to_device(rows, device)], config.augment, size, generator)
            maps.append(run(model.query_encoder, model.photo_input(pictures)))
        photo_copies.append(torch.cat(maps)[to_device(order.argsort(), device)])
    shapes = max(1, BATCH // views.shape[1])
    for copy in range(settings.view_copies):
        maps = []
        for start in range(0, len(views), shapes):
            generator = step_generator(settings.seed, copy, f"views from {start * views.shape[1]}")
            pictures = augment_views(views[start : start + shapes], config.augment, size, generator)
            maps.append(run(model.view_encoder, pictures.flatten(0, 1)))
        view_copies.append(torch.cat(maps).unflatten(0, views.shape[:2]))
    bar.close()
    return AugmentedFeatures(*(torch.stack(maps) if maps else None for maps in (photo_copies, view_copies)))
