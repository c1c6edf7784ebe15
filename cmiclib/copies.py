"""Augmented copies of the training pictures, taken through the frozen stages once, before training.

Frozen stages give the same maps in every step, and they are most of the work. So each photo and each view is
augmented ``train.copies`` times, as a training step would do it, and the maps of these copies stay in memory; a step
draws one of them for each of its pictures. With copies, colours and surroundings come from photos of the same
preparation batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .augment import augment_queries, augment_views
from .batches import step_generator
from .config import Config
from .embed import autocast
from .model import CMIC

BATCH = 96
"""Pictures at a time: the maps of the first stages of so many fit into memory on every device."""


@dataclass(frozen=True)
class Copies:
    """Maps, or features where all stages are frozen, as :meth:`cmiclib.encoders.Encoder.begin` returns them."""

    photos: Tensor  # (K, P, …)
    views: Tensor  # (K, N, V, …)

    def draw_photos(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a copy of each photo in ``rows`` (B,); returns (B, …)."""
        return self.photos[self._draw(rows, generator), rows]

    def draw_views(self, shapes: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a copy of views ``chosen`` (B, V) of ``shapes`` (B,); returns (B, V, …)."""
        return self.views[self._draw(chosen, generator), shapes[:, None], chosen]

    def _draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.photos), like.shape, generator=generator).to(like.device)


@torch.no_grad()
def make_copies(model: CMIC, photos: Tensor, views: Tensor, config: Config, progress: bool = True) -> Copies:
    """Augment every training picture ``train.copies`` times and run the frozen stages.

    Args:
        model: on the pictures' device.
        photos: uint8 (P, 4, S, S).
        views: uint8 (N, V, S, S).
        config: augmentation, size, seed and number of copies.
        progress: show a progress bar.
    """
    size, settings, device = config.model.image_size, config.train, photos.device
    flat = views.flatten(0, 1).unsqueeze(1)  # (N·V, 1, S, S)
    bar = tqdm(total=settings.copies * (len(photos) + len(flat)), desc="copies", unit="picture", disable=not progress)

    def run(encoder: nn.Module, pictures: Tensor) -> Tensor:
        bar.update(len(pictures))
        with autocast(config, device):
            return encoder.begin(pictures)  # type: ignore[operator]

    photo_copies, view_copies = [], []
    for copy in range(settings.copies):
        order = torch.randperm(len(photos), generator=step_generator(settings.seed, copy, "copy"))
        maps = []
        for rows in order.split(BATCH):
            generator = step_generator(settings.seed, copy, f"photos from {rows[0]}")
            pictures = augment_queries(photos[rows.to(device)], config.augment, size, generator)
            maps.append(run(model.query_encoder, model.photo_input(pictures)))
        photo_copies.append(torch.cat(maps)[order.argsort().to(device)])
        maps = []
        for start in range(0, len(flat), BATCH):
            generator = step_generator(settings.seed, copy, f"views from {start}")
            pictures = augment_views(flat[start : start + BATCH], config.augment, size, generator)
            maps.append(run(model.view_encoder, pictures.flatten(0, 1)))
        view_copies.append(torch.cat(maps).unflatten(0, views.shape[:2]))
    bar.close()
    return Copies(torch.stack(photo_copies), torch.stack(view_copies))
