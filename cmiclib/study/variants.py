"""A benchmark as a run is to see it: fewer views, silhouettes, wrong masks; see :class:`cmiclib.config.DataConfig`.

Training and evaluation get the same altered benchmark, so that a gallery of three views is one everywhere. What is
altered is named in the benchmark's hash.
"""

from dataclasses import replace

import numpy as np
import torch

from ..benchmark import Benchmark
from ..config import DataConfig
from ..damage import NOISE_CELLS, damage_masks

BLOCK = 256
"""Masks that are damaged at a time."""


def altered(benchmark: Benchmark, data: DataConfig) -> Benchmark:
    """Return the benchmark with what ``data`` changes; itself where nothing changes, or it is changed so already.

    Args:
        benchmark: as prepared; its files stay as they are.
        data: what to change.

    Returns:
        A benchmark whose changed arrays are in memory, whose protocol lists the kept azimuths, with another hash.

    Raises:
        ValueError: it has been altered in another way.
    """
    change = data.model_dump(mode="json")
    before = benchmark.meta.get("altered", DataConfig().model_dump(mode="json"))
    if change == before:
        return benchmark
    if "altered" in benchmark.meta:
        raise ValueError(f"this benchmark is altered already: {before}; pass the one that was opened")
    background = benchmark.protocol.background
    arrays, meta = dict(benchmark.arrays), benchmark.meta | {"altered": change}
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


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return the positions of ``count`` of ``total`` views around a shape, int64, the front view first."""
    return np.arange(count) * total // count


def silhouettes(views: np.ndarray, background: int = 255) -> np.ndarray:
    """Make every pixel of views (N, V, S, S) uint8 that is not wholly background black."""
    return np.where(views == background, background, 0).astype(np.uint8)


def wrong_masks(masks: np.ndarray, strength: float) -> np.ndarray:
    """Move the outline of every mask, each in its own way and always the same.

    Args:
        masks: (Q, S, S) uint8, 255 on the object; one that is 255 everywhere stays.
        strength: as in :func:`cmiclib.damage.damage_masks`.

    Returns:
        (Q, S, S) uint8 of 0 and 255.
    """
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for start in range(0, len(masks), BLOCK):
        mask = (torch.from_numpy(masks[start : start + BLOCK])[:, None] >= 128).float()  # (b, 1, S, S)
        noise = torch.randn(len(mask), 1, NOISE_CELLS, NOISE_CELLS, generator=generator)
        blocks.append(damage_masks(mask, noise, torch.full((len(mask),), strength))[:, 0])
    return (255 * torch.cat(blocks)).to(torch.uint8).numpy()
