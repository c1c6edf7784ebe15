"""Batches of photos against distinct shapes (the released loader, with its top-up).

The batch of a step is a function of (seed, step) alone, so resuming needs no memory, and a run is the same however
often it was interrupted.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import TrainingError


@dataclass(frozen=True)
class Batch:
    """One training step's choice of rows."""

    photos: Tensor  # (B,) positions in the list of training photos
    shapes: Tensor  # (C,) distinct shape rows: the columns of the score matrix
    target: Tensor  # (B,) the column of each photo's own shape


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a CPU generator that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def draw_batch(photo_shape: Tensor, shapes: int, size: int, seed: int, step: int, columns: int = 0) -> Batch:
    """Choose the photos and shapes of one step.

    ``photo_shape`` (P,) is the shape row of each training photo, ``shapes`` the number of rows with or without photos;
    steps are counted from 0 over the whole training. ``size`` photos come in random order, each once an epoch; the last
    incomplete batch of an epoch is left out. Shapes that occur twice collapse into one column, then random others fill
    the columns up to ``size``, or to ``columns`` if that is more. TrainingError if photos or shapes are too few.
    """
    if len(photo_shape) < size or shapes < size:
        raise TrainingError(
            f"a batch of {size} needs as many photos and distinct shapes, "
            f"the training part has {len(photo_shape)} and {shapes}",
            fix=f"set train.batch={min(len(photo_shape), shapes)} or smaller",
        )
    epoch, place = divmod(step, len(photo_shape) // size)
    order = torch.randperm(len(photo_shape), generator=step_generator(seed, epoch, "epoch"))
    photos = order[place * size : (place + 1) * size]
    own, target = photo_shape[photos].unique(return_inverse=True)
    everything = torch.arange(shapes)
    others = everything[~torch.isin(everything, own)]
    fill = torch.randperm(len(others), generator=step_generator(seed, step, "top-up"))[: max(size, columns) - len(own)]
    return Batch(photos, torch.cat([own, others[fill]]), target)
