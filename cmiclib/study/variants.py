"""Variants of a benchmark for the ablations: fewer views, silhouettes, wrong masks.

An ablation passes the same variant to training and to scoring, so a gallery of three views has three views in both. The
variant's hash differs from the benchmark's, so no run of one is mistaken for a run of the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch

from ..benchmark import Benchmark
from ..damage import NOISE_CELLS, damage_masks

BLOCK = 256  # Masks that are damaged together


@dataclass(frozen=True)
class Change:
    """What a variant changes of a benchmark; by default nothing."""

    views: int = 12  # of each shape, evenly spaced around it, 1 to 12
    shading: Literal["gray", "none"] = "gray"  # "none" turns the views into silhouettes
    mask_error: float = 0.0  # how wrong each photo's mask is, in [0, 1]; always in the same way

    def values(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


UNCHANGED = Change()


def apply_variant(benchmark: Benchmark, data: Change) -> Benchmark:
    """Return the benchmark with what ``data`` changes, or the benchmark itself where nothing changes.

    Its files stay as they are: the changed arrays are in memory, the protocol lists the kept azimuths, and the hash
    differs.
    """
    if not data.values():
        return benchmark
    background = benchmark.protocol.background
    arrays, meta = dict(benchmark.arrays), benchmark.meta
    hashes, protocol = dict(meta["sha256"]), dict(meta["protocol"])
    if data.views < benchmark.views.shape[1]:
        kept = evenly_spaced(benchmark.views.shape[1], data.views)
        arrays["views.npy"] = np.asarray(arrays["views.npy"][:, kept])
        protocol["azimuths"] = [benchmark.protocol.azimuths[i] for i in kept]
        hashes["views.npy"] += f" views={data.views}"
    if data.shading == "none":
        arrays["views.npy"] = silhouettes(arrays["views.npy"], background)
        hashes["views.npy"] += " silhouettes"
    if data.mask_error:
        images = np.array(arrays["queries.npy"])
        images[:, 3] = wrong_masks(images[:, 3], data.mask_error)
        arrays["queries.npy"] = images
        hashes["queries.npy"] += f" mask_error={data.mask_error}"
    return replace(benchmark, arrays=arrays, meta=meta | {"sha256": hashes, "protocol": protocol})


def seen_photos(benchmark: Benchmark, rows: Sequence[int], data: Change, masked: bool = True) -> np.ndarray:
    """Return photos (R, 4, S, S) uint8 with the masks that a variant sees; 255 everywhere unless ``masked``."""
    images = np.array(benchmark.images[rows])
    if data.mask_error:
        images[:, 3] = wrong_masks(benchmark.images[:, 3], data.mask_error, rows)
    if not masked:
        images[:, 3] = 255
    return images


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return the positions of ``count`` of ``total`` views around a shape, int64, the front view first."""
    return np.arange(count) * total // count


def silhouettes(views: np.ndarray, background: int = 255) -> np.ndarray:
    """Make every pixel of views (N, V, S, S) uint8 that is not wholly background black."""
    return np.where(views == background, background, 0).astype(np.uint8)


def wrong_masks(masks: np.ndarray, strength: float, rows: Sequence[int] | None = None) -> np.ndarray:
    """Move the outline of every mask (Q, S, S) uint8, 255 on the object, each in its own way and always the same.

    Strength and exceptions are those of :func:`cmiclib.damage.damage_masks`; returns (Q, S, S) uint8 of 0 and 255, or
    only those of ``rows``, in their order.
    """
    generator = torch.Generator().manual_seed(0)
    wanted = np.arange(len(masks)) if rows is None else np.asarray(rows)
    moved = np.empty((len(wanted), *masks.shape[1:]), np.uint8)
    for start in range(0, len(masks), BLOCK):
        noise = torch.randn(min(BLOCK, len(masks) - start), 1, NOISE_CELLS, NOISE_CELLS, generator=generator)
        (here,) = np.nonzero((start <= wanted) & (wanted < start + BLOCK))
        if len(here):
            mask = (torch.from_numpy(np.array(masks[wanted[here]]))[:, None] >= 128).float()  # (b, 1, S, S)
            damaged = damage_masks(mask, noise[wanted[here] - start], torch.full((len(mask),), strength))
            moved[here] = (255 * damaged[:, 0]).to(torch.uint8).numpy()
    return moved
