"""Defects of real photos that renderings lack: objects in front, wrong masks, missing masks.

None of them is in the paper; each has its own option, 0 by default. Random numbers are drawn on the CPU from the given
generator, and only where the option is on.
"""

import torch
from torch import Tensor
from torch.nn import functional

from .engine.device import to_device

OCCLUDER_ZOOM = (1.5, 3.5)  # How many times smaller the object in front is than in its own photo
NOISE_CELLS = 9  # Cells along a side of the noise that moves a mask's outline


def add_occluders(rgb: Tensor, mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Put another photo's object in front of this ``share`` of photos (B, 3, H, W) with masks (B, 1, H, W)."""
    chosen = to_device(draw_share(len(rgb), share, generator), rgb.device)
    other = to_device(another(len(rgb), generator), rgb.device)
    return occlude(rgb, mask, draw_occluders(len(rgb), generator), other, chosen)


def spoil_masks(mask: Tensor, damaged: float, dropped: float, generator: torch.Generator) -> Tensor:
    """Damage one share of the masks (B, 1, H, W) of 0 and 1, and drop another, which become 1 everywhere."""
    count = len(mask)
    if damaged:
        strength = torch.rand(count, generator=generator) * draw_share(count, damaged, generator)
        mask = damage_masks(mask, torch.randn(count, 1, NOISE_CELLS, NOISE_CELLS, generator=generator), strength)
    if dropped:
        mask = mask.masked_fill(to_device(draw_share(count, dropped, generator), mask.device).view(-1, 1, 1, 1), 1)
    return mask


def another(count: int, generator: torch.Generator) -> Tensor:
    """Draw for each of ``count`` photos another one of the batch, never itself (but for a batch of one)."""
    steps = torch.randint(1, max(count, 2), (count,), generator=generator)
    return (torch.arange(count) + steps) % count


def draw_share(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Draw bool (count,), each true with probability ``share``."""
    return torch.rand(count, generator=generator) < share


def occlude(rgb: Tensor, mask: Tensor, boxes: Tensor, other: Tensor, chosen: Tensor) -> Tensor:
    """Put another photo's object, smaller, in front; the mask stays, because Pix3D's masks ignore occluders.

    Photos (B, 3, H, W), masks (B, 1, H, W), 1 on the object. ``boxes`` (B, 4) are left, top, width and height, in sides
    of the photo, of the part of the ``other`` photo (B,) that fills this one where ``chosen``, bool (B,). A photo
    without a known mask (1 everywhere) gives no occluder.
    """
    moved = shift(torch.cat((rgb, mask), dim=1)[other], boxes)
    known = mask[other].flatten(1).amin(dim=1) == 0
    covers = (moved[:, 3:] > 0.5) & (known & chosen).view(-1, 1, 1, 1)
    return torch.where(covers, moved[:, :3], rgb)


def shift(images: Tensor, boxes: Tensor) -> Tensor:
    """Sample boxes (B, 4) of images (B, C, H, W) bilinearly; outside an image everything is 0."""
    left, top, width, height = to_device(boxes, images.device).to(images.dtype).unbind(dim=1)
    zero = torch.zeros_like(left)
    theta = torch.stack(
        [torch.stack([width, zero, 2 * left + width - 1], 1), torch.stack([zero, height, 2 * top + height - 1], 1)], 1
    )  # (B, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def draw_occluders(count: int, generator: torch.Generator) -> Tensor:
    """Draw boxes (count, 4) for `occlude`: larger than the photo, so that its object appears smaller, anywhere."""
    low, high = OCCLUDER_ZOOM
    zoom = low + (high - low) * torch.rand(count, 1, generator=generator)
    corner = -torch.rand(count, 2, generator=generator) * (zoom - 1)
    return torch.cat((corner, zoom, zoom), dim=1)


def damage_masks(mask: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    """Move the outlines of masks (B, 1, H, W) of 0 and 1, as an automatic mask errs, by normal noise (B, 1, c, c).

    ``strength`` (B,) goes from 0, which keeps a mask, to 1, where outlines move by a tenth of the side. A mask that is
    1 everywhere stays, and so does one of which nothing would be left.
    """
    side = mask.shape[-1]
    kernel = 2 * (side // 10) + 1
    soft = mask
    for sides, edges in (((kernel, 1), (kernel // 2, 0)), ((1, kernel), (0, kernel // 2))):  # in turn: a square is slow
        soft = functional.avg_pool2d(soft, sides, stride=1, padding=edges, count_include_pad=False)
    noise = to_device(noise, mask.device).to(mask.dtype)
    waves = functional.interpolate(noise, size=mask.shape[-2:], mode="bicubic", align_corners=False)
    strength = to_device(strength, mask.device).to(mask.dtype).view(-1, 1, 1, 1)
    moved = ((1 - strength) * mask + strength * (soft + 0.25 * waves) > 0.5).to(mask.dtype)
    usable = (mask.flatten(1).amin(dim=1) == 0) & (moved.flatten(1).amax(dim=1) == 1)
    return torch.where(usable.view(-1, 1, 1, 1), moved, mask)
