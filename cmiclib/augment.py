"""Batches of photos and views for the encoders, cropped, mirrored and recoloured on the images' own device.

A crop or a resize is separable, so each image is resampled by two small matrices, one for its rows and one for
its columns. They hold an antialiasing triangle filter, which a bilinear `grid_sample` lacks when it shrinks; on
a CPU it takes the same time at the sizes of this project. Random numbers are drawn on the CPU from the given
generator and moved, so that a seed means the same on every device.

The released code seeds these draws with the clock's second, so that samples of one second share a crop; with
``crops="clock"`` they do so here, by count instead of by clock.
"""

import math

import torch
from torch import Tensor

from .color import exchange_colors, jitter_color
from .config import AugmentConfig
from .damage import NOISE_CELLS, damage_masks, draw_occluders, occlude
from .engine.device import to_device

_TRIES = 10
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

    Raises:
        ValueError: not a uint8 batch with four channels.
    """
    _check(photos, "(B, 4, S, S)", photos.ndim == 4 and photos.shape[1] == 4)
    boxes = draw_crops(len(photos), config.query_scale, config.translate, generator, config.aspect)
    flips = _draw_flips(len(photos), config.flip, generator)
    if config.crops == "clock":
        boxes, flips = _of_one_second(boxes, len(photos)), _of_one_second(flips, len(photos))
    rgb, mask = _split(resample(photos, size, boxes, flips))
    if config.occlusion:
        chosen = to_device(_draw_share(len(rgb), config.occlusion, generator), rgb.device)
        other = to_device(_another(len(rgb), generator), rgb.device)
        rgb = occlude(rgb, mask, draw_occluders(len(rgb), generator), other, chosen)
    rgb = _recolor(rgb, config, generator)
    if config.mask_damage:
        strength = torch.rand(len(mask), generator=generator) * _draw_share(len(mask), config.mask_damage, generator)
        mask = damage_masks(mask, torch.randn(len(mask), 1, NOISE_CELLS, NOISE_CELLS, generator=generator), strength)
    if config.mask_drop:
        mask = mask.masked_fill(
            to_device(_draw_share(len(mask), config.mask_drop, generator), mask.device).view(-1, 1, 1, 1), 1
        )
    return torch.cat((2 * rgb - 1, mask if config.mask_range == "reference" else 2 * mask - 1), dim=1)


def prepare_queries(photos: Tensor, size: int) -> Tensor:
    """Return photos as an evaluation sees them: resized, without randomness.

    Args:
        photos: uint8 (B, 4, S, S), RGB and mask.
        size: side of the result in pixels.

    Returns:
        float32 (B, 4, size, size): RGB in [-1, 1]; the mask is -1 or 1 whatever `mask_range` says of training.

    Raises:
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

    Raises:
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

    Raises:
        ValueError: not a uint8 batch of views.
    """
    _check(views, "(B, V, S, S)", views.ndim == 4)
    return (resample(views, size) / 127.5 - 1).unsqueeze(2)


def draw_crops(
    count: int, scale: tuple[float, float], shift: float, generator: torch.Generator, aspect: float = 4 / 3
) -> Tensor:
    """Draw boxes as torchvision's RandomResizedCrop does, each moved by up to `shift` in both directions.

    Area and aspect ratio are drawn together until the box fits, ten times at most; after that the box is a
    square of the area drawn first (one photo in a hundred at scale 0.85 to 0.95).

    Args:
        count: number of boxes n.
        scale: smallest and largest area as a share of the image.
        shift: largest shift as a share of the side.
        generator: of the CPU.
        aspect: largest width over height, and height over width.

    Returns:
        float32 (n, 4): left, top, width, height as shares of the side; a shifted box can leave [0, 1].
    """
    area = _uniform((_TRIES, count), scale, generator)
    log_ratio = _uniform((_TRIES, count), (math.log(1 / aspect), math.log(aspect)), generator)
    width, height = (area * log_ratio.exp()).sqrt(), (area / log_ratio.exp()).sqrt()
    fits = (width <= 1) & (height <= 1)  # (tries, n)
    first = fits.int().argmax(dim=0, keepdim=True)
    any_fits = fits.any(dim=0)
    side = area[0].sqrt()
    extent = torch.stack(
        [torch.where(any_fits, length.gather(0, first)[0], side) for length in (width, height)], dim=1
    )  # (n, 2)
    corner = torch.rand(count, 2, generator=generator) * (1 - extent)
    return torch.cat((corner + _uniform((count, 2), (-shift, shift), generator), extent), dim=1)


def resample(images: Tensor, size: int, boxes: Tensor | None = None, flips: Tensor | None = None) -> Tensor:
    """Cut a box out of each image and resize it, antialiased; outside the image its edge repeats.

    Args:
        images: (n, C, H, W), any dtype.
        size: side of the result in pixels.
        boxes: (n, 4) left, top, width, height as shares of the side; the whole image where absent.
        flips: bool (n,), mirror left and right afterwards; none where absent.

    Returns:
        float32 (n, C, size, size) in the range of `images`.
    """
    height, width = images.shape[-2:]
    if boxes is None:
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    boxes = to_device(boxes, images.device)
    rows = _triangle_filter(boxes[:, 1], boxes[:, 3], height, size)  # (n, size, H)
    columns = _triangle_filter(boxes[:, 0], boxes[:, 2], width, size)  # (n, size, W)
    if flips is not None:
        columns = torch.where(to_device(flips, images.device).view(-1, 1, 1), columns.flip(1), columns)
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("nyh,nchw,nxw->ncyx", rows, images.float(), columns)


def _triangle_filter(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Return (n, size, pixels) weights, each row a triangle as wide as an output pixel and summing to 1."""
    step = (length * pixels / size).unsqueeze(1)  # (n, 1) input pixels an output pixel
    centres = start.unsqueeze(1) * pixels + (torch.arange(size, device=start.device) + 0.5) * step
    positions = torch.arange(pixels, device=start.device) + 0.5
    distance = (positions - centres.clamp(0, pixels).unsqueeze(-1)).abs() / step.clamp(min=1).unsqueeze(-1)
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=-1, keepdim=True)


def _split(photos: Tensor) -> tuple[Tensor, Tensor]:
    """Split resampled photos in [0, 255] into RGB in [0, 1] and a mask of 0 and 1."""
    return (photos[:, :3] / 255).clamp(0, 1), (photos[:, 3:] >= 127.5).float()


def _recolor(rgb: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    if config.color == "none":
        return rgb
    if config.color == "jitter":
        return jitter_color(rgb, generator)
    any_photo = config.style == "any"
    style = torch.randperm(len(rgb), generator=generator) if any_photo else _another(len(rgb), generator)
    return exchange_colors(rgb, to_device(style, rgb.device), config.color)


def _another(count: int, generator: torch.Generator) -> Tensor:
    """Draw for each of ``count`` photos another one of the batch, never itself (but for a batch of one)."""
    steps = torch.randint(1, max(count, 2), (count,), generator=generator)
    return (torch.arange(count) + steps) % count


def _draw_flips(count: int, flip: bool, generator: torch.Generator) -> Tensor:
    return _draw_share(count, 0.5 if flip else 0.0, generator)


def _draw_share(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Draw bool (count,), each true with probability ``share``."""
    return torch.rand(count, generator=generator) < share


def _of_one_second(draws: Tensor, samples: int) -> Tensor:
    """Give the samples that the released code handles within one second the draws of the first of them.

    Args:
        draws: (samples · k, …), k draws a sample.
        samples: in the order of the batch.
    """
    first = torch.arange(samples) // CLOCK_SAMPLES * CLOCK_SAMPLES
    return draws.unflatten(0, (samples, -1))[first].flatten(0, 1)


def _uniform(shape: tuple[int, int], bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)


def _check(images: Tensor, shape: str, fits: bool) -> None:
    if not fits or images.dtype != torch.uint8:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"found {found}: pass uint8 {shape}, as a benchmark stores it")
