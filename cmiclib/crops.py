"""Random boxes, and images resampled to them.

A crop or a resize is separable, so each image is resampled by two small matrices, one for its rows and one for its
columns. They hold an antialiasing triangle filter, which a bilinear `grid_sample` lacks when it shrinks; on a CPU this
takes the same time at the sizes of this project.
"""

import math

import torch
from torch import Tensor

from .engine.device import to_device

_TRIES = 10


def draw_crops(
    count: int, scale: tuple[float, float], shift: float, generator: torch.Generator, aspect: float = 4 / 3
) -> Tensor:
    """Draw boxes as torchvision's RandomResizedCrop does, each moved by up to ``shift`` in both directions.

    Area and aspect ratio are drawn together until the box fits, ten times at most; after that the box is a square of
    the area drawn first (one photo in a hundred at scale 0.85 to 0.95). ``scale`` is the smallest and largest area,
    ``aspect`` the largest width over height and height over width, ``generator`` the CPU's. Returns float32 (count, 4):
    left, top, width, height, like ``shift`` as shares of the side; a shifted box can leave [0, 1].
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

    Images are (n, C, H, W) of any dtype and become float32 (n, C, size, size) in the same range. ``boxes`` (n, 4) are
    left, top, width, height as shares of the side, by default the whole image; where ``flips``, bool (n,), is set, left
    and right are mirrored afterwards.
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


def _uniform(shape: tuple[int, int], bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)
