"""Colour transfer between photos: the paper's augmentation of the queries.

Reinhard et al. (2001): give each Lab channel of one photo the mean and standard deviation of another photo.
The object keeps its shape and loses its own colours, so that an encoder cannot rely on them.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from .engine.device import to_device

_LAB_FLOOR, _RELEASED_FLOOR = 1e-8, 1e-6  # smallest variance; the released code's Lab counts in hundreds
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_RGB_FROM_XYZ = (
    (3.24048134, -1.53715152, -0.49853633),
    (-0.96925495, 1.87599, 0.04155593),
    (0.05564664, -0.20404134, 1.05731107),
)
_WHITE = (0.95047, 1.0, 1.08883)  # D65, two degrees


def transfer_color(source: Tensor, target: Tensor, variant: Literal["lab", "reference"] = "lab") -> Tensor:
    """Return the content of `target` in the colours of `source`, pair by pair over the whole image.

    Args:
        source: photos that lend their colours, float (B, 3, H, W) RGB in [0, 1].
        target: photos that keep their content, float (B, 3, h, w) RGB in [0, 1].
        variant: "lab" is the transfer in CIELAB; "reference" is the released code's, which multiplies RGB by
            255 before a conversion written for [0, 1]; the results differ by about 0.003.

    Returns:
        (B, 3, h, w) in [0, 1], of `target`'s dtype. A channel without contrast moves to the source's mean.

    ValueError: wrong shape, dtype, range or variant.
    """
    _check("source", source)
    _check("target", target)
    if len(source) != len(target):
        raise ValueError(f"{len(source)} sources for {len(target)} targets: pass one source for each target")
    return recolor(source, target, variant)


def recolor(source: Tensor, target: Tensor, variant: str = "lab") -> Tensor:
    """Compute `transfer_color` without checking the values, which would make the host wait for a GPU."""
    with torch.autocast(target.device.type, enabled=False):
        moments, lab = _moments(_to_lab(source, variant), variant), _to_lab(target, variant)
        return _from_lab(_match_moments(moments, lab, _moments(lab, variant)), variant).to(target.dtype)


def exchange_colors(images: Tensor, order: Tensor, variant: str = "lab") -> Tensor:
    """Return ``recolor(images[order], images)``, converting each image only once.

    Args:
        images: float (B, 3, H, W) RGB in [0, 1].
        order: int64 (B,), the image that lends each one its colours.
        variant: as of `transfer_color`.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    with torch.autocast(images.device.type, enabled=False):
        lab = _to_lab(images, variant)
        mean, std = _moments(lab, variant)
        return _from_lab(_match_moments((mean[order], std[order]), lab, (mean, std)), variant).to(images.dtype)


def jitter_color(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of each photo at random: the usual alternative to a transfer.

    Factors lie in [0.6, 1.4], and hues turn by up to a tenth of the circle, as is common in contrastive learning.

    Args:
        images: float (B, 3, H, W) RGB in [0, 1].
        generator: of the CPU; it decides all draws, whatever device holds the images.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    from kornia import enhance

    draws = 2 * torch.rand(4, len(images), generator=generator) - 1  # (4, B) in [-1, 1)
    brightness, contrast, saturation = to_device(1 + 0.4 * draws[:3], images.device)
    hue = 0.1 * 2 * math.pi * to_device(draws[3], images.device)
    with torch.autocast(images.device.type, enabled=False):
        images = enhance.adjust_brightness_accumulative(images, brightness)
        images = enhance.adjust_contrast_with_mean_subtraction(images, contrast)
        images = enhance.adjust_saturation_with_gray_subtraction(images, saturation)
        return enhance.adjust_hue(images, hue).clamp(0, 1)


def _check(name: str, image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2:].numel() < 2:
        raise ValueError(f"{name} has shape {tuple(image.shape)}: pass (B, 3, H, W) of two pixels or more")
    if not image.is_floating_point():
        raise ValueError(f"{name} is {image.dtype}: convert it to float and divide by 255")
    low, high = image.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
        raise ValueError(f"{name} spans [{low:.3g}, {high:.3g}]: scale RGB to [0, 1], without NaN")


def _to_lab(images: Tensor, variant: str) -> Tensor:
    if variant == "lab":
        from kornia.color import rgb_to_lab  # takes a moment to load

        return rgb_to_lab(images.to(torch.promote_types(images.dtype, torch.float32)))
    if variant == "reference":  # float32 would err by 2e-5, because the formula cancels large numbers
        return _lab_released(255 * images.double())
    raise ValueError(f"unknown variant {variant!r}: use 'lab' or 'reference'")


def _from_lab(lab: Tensor, variant: str) -> Tensor:
    if variant == "lab":
        from kornia.color import lab_to_rgb

        return lab_to_rgb(lab).clamp(0, 1)
    return (_rgb_released(lab) / 255).clamp(0, 1)


Moments = tuple[Tensor, Tensor]


def _match_moments(source: Moments, lab: Tensor, own: Moments) -> Tensor:
    return (lab - own[0]) * (source[1] / own[1]) + source[0]


def _moments(lab: Tensor, variant: str) -> Moments:
    variance, mean = torch.var_mean(lab, dim=(2, 3), keepdim=True)  # (B, 3, 1, 1), divided by pixels - 1
    return mean, variance.clamp(min=_LAB_FLOOR if variant == "lab" else _RELEASED_FLOOR).sqrt()


def _lab_released(rgb: Tensor) -> Tensor:
    """Convert RGB to the released code's Lab: ((L - 50) / 100, a / 100, b / 100)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mix(_XYZ_FROM_RGB, linear) / linear.new_tensor(_WHITE).view(3, 1, 1)
    x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack(((116 * y - 66) / 100, 5 * (x - y), 2 * (y - z)), dim=1)


def _rgb_released(lab: Tensor) -> Tensor:
    """Invert `_lab_released`; colours outside the gamut lose their negative channels."""
    lightness, a, b = lab.unbind(1)
    y = (100 * lightness + 66) / 116
    cubed = torch.stack((y + a / 5, y, (y - b / 2).clamp(min=0)), dim=1)
    xyz = torch.where(cubed > 0.2068966, cubed**3, (cubed - 16 / 116) / 7.787)
    linear = _mix(_RGB_FROM_XYZ, xyz * lab.new_tensor(_WHITE).view(3, 1, 1)).clamp(min=0)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def _mix(matrix: tuple[tuple[float, ...], ...], channels: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", channels.new_tensor(matrix), channels)
