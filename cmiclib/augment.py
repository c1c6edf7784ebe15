"""Batches of photos and views for the encoders, cropped, mirrored and recoloured on the images' own device.

Random numbers are drawn on the CPU from the given generator and moved, so that a seed means the same on every device.

The released code seeds these draws with the clock's second, so that samples of one second share a crop; with
``crops="clock"`` they do so here, by count instead of by clock.
"""

import torch
from torch import Tensor

from .color import exchange_colors, jitter_color
from .config import AugmentConfig
from .crops import draw_crops, resample
from .damage import add_occluders, another, draw_share, spoil_masks
from .engine.device import to_device

CLOCK_SAMPLES = 5
"""Samples that share a crop with ``crops="clock"``: the released code was seen to draw 4 to 8 crops for 30 photos."""


def augment_queries(photos: Tensor, config: AugmentConfig, size: int, generator: torch.Generator) -> Tensor:
    """Return training photos: one crop, shift and flip shared by photo and mask, then new colours.

    What a shift brings in from outside repeats the edge, as in `images.square_crop`; the released code fills it
    with black, which would enter the colour statistics.

    Args:
        photos: uint8 (B, 4, S, S), RGB and mask.
        config: scales, shift, colours and the mask's range.
        size: side of the result in pixels.
        generator: of the CPU.

    Returns:
        float32 (B, 4, size, size): RGB in [-1, 1]; the mask is -1 or 1, or 0 or 1 with `mask_range="reference"`.

    ValueError: not a uint8 batch with four channels.
    """
    _check(photos, "(B, 4, S, S)", photos.ndim == 4 and photos.shape[1] == 4)
    boxes = draw_crops(len(photos), config.query_scale, config.translate, generator, config.aspect)
    flips = _draw_flips(len(photos), config.flip, generator)
    if config.crops == "clock":
        boxes, flips = _of_one_second(boxes, len(photos)), _of_one_second(flips, len(photos))
    rgb, mask = _split(resample(photos, size, boxes, flips))
    if config.occlusion:
        rgb = add_occluders(rgb, mask, config.occlusion, generator)
    rgb = _recolor(rgb, config, generator)
    if config.mask_damage or config.mask_drop:
        mask = spoil_masks(mask, config.mask_damage, config.mask_drop, generator)
    return torch.cat((2 * rgb - 1, mask if config.mask_range == "reference" else 2 * mask - 1), dim=1)


def prepare_queries(photos: Tensor, size: int) -> Tensor:
    """Return photos as an evaluation sees them: resized, without randomness.

    Args:
        photos: uint8 (B, 4, S, S), RGB and mask.
        size: side of the result in pixels.

    Returns:
        float32 (B, 4, size, size): RGB in [-1, 1]; the mask is -1 or 1 whatever `mask_range` says of training.

    ValueError: not a uint8 batch with four channels.
    """
    _check(photos, "(B, 4, S, S)", photos.ndim == 4 and photos.shape[1] == 4)
    rgb, mask = _split(resample(photos, size))
    return 2 * torch.cat((rgb, mask), dim=1) - 1


def augment_views(views: Tensor, config: AugmentConfig, size: int, generator: torch.Generator) -> Tensor:
    """Return training views, each with a crop and a flip of its own.

    Args:
        views: uint8 (B, V, S, S), grayscale.
        config: the views' scale, and whether to flip.
        size: side of the result in pixels.
        generator: of the CPU.

    Returns:
        float32 (B, V, 1, size, size) in [-1, 1].

    ValueError: not a uint8 batch of views.
    """
    _check(views, "(B, V, S, S)", views.ndim == 4)
    count = views.shape[0] * views.shape[1]
    boxes = draw_crops(count, config.view_scale, 0.0, generator, config.aspect)
    flips = _draw_flips(count, config.flip, generator)
    if config.crops == "clock":
        boxes, flips = _of_one_second(boxes, len(views)), _of_one_second(flips, len(views))
    cropped = resample(views.flatten(0, 1).unsqueeze(1), size, boxes, flips)  # (B·V, 1, size, size)
    return (cropped / 127.5 - 1).unflatten(0, views.shape[:2])


def prepare_views(views: Tensor, size: int) -> Tensor:
    """Return views as an evaluation sees them: resized, without randomness.

    Args:
        views: uint8 (B, V, S, S), grayscale.
        size: side of the result in pixels.

    Returns:
        float32 (B, V, 1, size, size) in [-1, 1].

    ValueError: not a uint8 batch of views.
    """
    _check(views, "(B, V, S, S)", views.ndim == 4)
    return (resample(views, size) / 127.5 - 1).unsqueeze(2)


def _split(photos: Tensor) -> tuple[Tensor, Tensor]:
    """Split resampled photos in [0, 255] into RGB in [0, 1] and a mask of 0 and 1."""
    return (photos[:, :3] / 255).clamp(0, 1), (photos[:, 3:] >= 127.5).float()


def _recolor(rgb: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    if config.color == "none":
        return rgb
    if config.color == "jitter":
        return jitter_color(rgb, generator)
    any_photo = config.style == "any"
    style = torch.randperm(len(rgb), generator=generator) if any_photo else another(len(rgb), generator)
    return exchange_colors(rgb, to_device(style, rgb.device), config.color)


def _draw_flips(count: int, flip: bool, generator: torch.Generator) -> Tensor:
    return draw_share(count, 0.5 if flip else 0.0, generator)


def _of_one_second(draws: Tensor, samples: int) -> Tensor:
    """Give the samples that the released code handles within one second the draws of the first of them.

    Args:
        draws: (samples · k, …), k draws a sample.
        samples: in the order of the batch.
    """
    first = torch.arange(samples) // CLOCK_SAMPLES * CLOCK_SAMPLES
    return draws.unflatten(0, (samples, -1))[first].flatten(0, 1)


def _check(images: Tensor, shape: str, fits: bool) -> None:
    if not fits or images.dtype != torch.uint8:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"found {found}: pass uint8 {shape}, as a benchmark stores it")
