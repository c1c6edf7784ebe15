"""Which pixels of a mask are the object: in gray values, in the label numbers and in the colours of label tools."""

import numpy as np
from PIL import Image

IGNORED = (224, 224, 192)
"""The colour of borders that count as nothing in Pascal VOC's masks."""


def of_numbers(gray: np.ndarray) -> np.ndarray:
    """Return the object of gray values (H, W), which may be few label numbers, with 255 as a border."""
    values, counts = np.unique(gray, return_counts=True)
    inner = (values > 0) & (values < 255)
    if len(values) <= 32 and values[0] == 0:
        if values[-1] <= 200:
            return gray > 0
        if inner.any() and values[inner].max() <= 100 and counts[inner].sum() > counts[-1] / 2:
            return (gray > 0) & (gray < 255)
    return gray >= 128 if len(values) > 1 else gray > 0


def of_colours(rgb: np.ndarray) -> np.ndarray:
    """Return the object of colours (H, W, 3), which label tools give, or of a gray mask that is stored in colour."""
    peak, spread = rgb.max(axis=2), np.ptp(rgb, axis=2)
    colourful = (spread > 48) & (peak >= 32)
    few = len(np.unique(rgb[:: 1 + rgb.shape[0] // 500, :: 1 + rgb.shape[1] // 500].reshape(-1, 3), axis=0)) <= 256
    if colourful.sum() < (0.001 * rgb[..., 0].size if few else 0.5 * (peak >= 32).sum()) or not colourful.any():
        return of_numbers(np.asarray(Image.fromarray(rgb).convert("L")))
    ground = np.zeros(3, int)
    if (peak < 32).mean() < 0.01:
        border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
        colours, counts = np.unique(border, axis=0, return_counts=True)
        ground = colours[counts.argmax()].astype(int)
    apart = np.abs(rgb - ground).max(axis=2)
    if not few:  # JPEG blurs the borders
        return np.asarray(apart >= max(32, apart.max() / 2))
    kept = (apart > 0) & (rgb != IGNORED).any(axis=2)
    return np.asarray(kept if kept.any() else apart > 0)
