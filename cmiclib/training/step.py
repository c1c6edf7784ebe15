"""One training step up to its loss: which photos and shapes it compares, how they are augmented, what it costs.

All randomness of a step is a function of (seed, step).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..augment import augment_queries, augment_views, prepare_views
from ..batches import Batch, draw_batch, step_generator
from ..benchmark import Benchmark
from ..config import Config, TrainConfig
from ..embed import autocast
from ..engine.device import to_device
from ..engine.distributed import ALONE, Processes
from ..model import CMIC
from .features import AugmentedFeatures, draw_photos, draw_views, training_shapes
from .other_losses import total_loss

PICTURES = AugmentedFeatures()


@dataclass(frozen=True)
class TrainingData:
    """The training photos and the shapes that a step may put beside them, whole, on the training device.

    These are the shapes on the photos and, with ``train.distractors``, those that no photo of any split shows. A shape
    that only photos of other splits show is unseen: training does not even look at its views.
    """

    photos: Tensor  # (P, 4, S, S) uint8
    photo_shape: Tensor  # (P,) row of views, on the CPU; the first right shape where a photo has several
    views: Tensor  # (N, V, S, S) uint8
    category: Tensor  # (N,) code of each shape
    copies: AugmentedFeatures = PICTURES
    also_right: Tensor | None = None  # (P, N) bool on the CPU, further right shapes; None where no photo has any

    @classmethod
    def load(cls, benchmark: Benchmark, device: torch.device, distractors: bool = True) -> "TrainingData":
        """Read the training part of a benchmark."""
        rows, shapes = benchmark.rows("train"), training_shapes(benchmark, distractors)
        right = benchmark.relevant(rows)  # (P, gallery)
        own = right.argmax(axis=1)  # (P,) gallery row of each photo's shape
        further = right[:, shapes] & (shapes != own[:, None]) if (right.sum(axis=1) > 1).any() else None
        arrays = benchmark.images[rows], benchmark.views[shapes], benchmark.shape_category()[shapes]
        photos, views, category = (torch.from_numpy(array).to(device) for array in arrays)
        photo_shape = torch.from_numpy(np.searchsorted(shapes, own))
        also_right = None if further is None else torch.from_numpy(further)
        return cls(photos, photo_shape, views, category, also_right=also_right)

    def draw(self, settings: TrainConfig, step: int) -> Batch:
        """Choose the photos and shapes of a step; raises TrainingError where the batch is too large for the data."""
        return draw_batch(self.photo_shape, len(self.views), settings.batch, settings.seed, step, settings.shapes)


class StepInput(NamedTuple):
    """What one step compares, the whole batch, on the training device."""

    photos: Tensor  # (B, 4, size, size), or what the frozen stages returned for them
    views: Tensor  # (C, V, 1, size, size), or what the frozen stages returned for them
    target: Tensor  # (B,) the column of each photo's own shape
    category: Tensor  # (C,) code of each column's category
    also_right: Tensor  # bool (B, C), further right shapes, which the losses leave out


def step_input(data: TrainingData, config: Config, step: int) -> StepInput:
    """Draw and augment the batch of a step; a function of ``(config.train.seed, step)``."""
    device, size, settings = data.photos.device, config.model.image_size, config.train
    batch = data.draw(settings, step)
    generator = step_generator(settings.seed, step, "augment")
    further = torch.zeros(len(batch.photos), len(batch.shapes), dtype=torch.bool)
    if data.also_right is not None:
        further = data.also_right[batch.photos][:, batch.shapes]
    chosen = torch.rand(len(batch.shapes), data.views.shape[1], generator=generator).argsort(1)[:, : settings.views]
    rows, shapes, target, further, chosen = (
        to_device(tensor, device) for tensor in (batch.photos, batch.shapes, batch.target, further, chosen)
    )
    with autocast(config, device):
        if data.copies.photos is None:
            photos = augment_queries(data.photos[rows], config.augment, size, generator)  # (B, 4, size, size)
        else:
            photos = draw_photos(data.copies.photos, rows, generator)
        if data.copies.views is None:
            views = data.views[shapes[:, None], chosen]  # (C, V, S, S)
            if config.augment.views:
                views = augment_views(views, config.augment, size, generator)  # (C, V, 1, size, size)
            else:
                views = prepare_views(views, size)
        else:
            views = draw_views(data.copies.views, shapes, chosen, generator)
    return StepInput(photos, views, target, data.category[shapes], further)


def training_loss(
    model: CMIC | DistributedDataParallel, given: StepInput, config: Config, step: int, processes: Processes = ALONE
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of one step: total, instance and category term, each a scalar on the device.

    Every process has the whole batch, embeds its share and computes the whole loss.
    """
    photos, views, target, category, also_right = given
    purpose = "dropout" if processes.first else f"dropout {processes.rank}"
    torch.manual_seed(step_generator(config.train.seed, step, purpose).initial_seed())
    with autocast(config, photos.device):
        query, gallery = model(
            photos[processes.shard(len(photos))], views[processes.shard(len(views))],
            photos_are_features=config.train.copies > 0, views_are_features=config.train.view_copies > 0,
        )  # fmt: skip
    query, gallery = processes.gather(query, len(photos)), processes.gather(gallery, len(views))  # (B, d), (C, V, d)
    whole: CMIC = model.module if isinstance(model, DistributedDataParallel) else model
    scores = whole.score(query, gallery).masked_fill(also_right, -torch.inf)  # (B, C); neither right nor wrong
    same = (category[target][:, None] == category[None, :]) & ~also_right  # (B, C)
    return total_loss(scores, target, same, config.loss)
