"""Pixels of a rendered frame: read Blender's layered EXR, develop linear light into a photo."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

TYPES = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1


def read_exr(path: Path) -> dict[str, np.ndarray]:
    """Channels (height, width) of an uncompressed scan-line EXR, by name.

    Blender's Python can't hand out a render's passes without a detour over its compositor. A file without
    compression is a header and rows of numbers, which costs less than that detour.
    """
    data = path.read_bytes()
    if data[:4] != b"\x76\x2f\x31\x01":
        raise ValueError(f"{path} is no OpenEXR file")
    at, channels, window = 8, [], (0, 0, -1, -1)
    while data[at]:
        name, at = _text(data, at)
        _, at = _text(data, at)
        size = struct.unpack_from("<i", data, at)[0]
        at += 4
        if name == "compression" and data[at]:
            raise ValueError(f"{path}: compressed; render with the codec NONE")
        if name == "dataWindow":
            window = struct.unpack_from("<4i", data, at)
        if name == "channels":
            c = at
            while data[c]:
                channel, c = _text(data, c)
                channels.append((channel, TYPES[struct.unpack_from("<i", data, c)[0]]))
                c += 16
        at += size
    width, height = window[2] - window[0] + 1, window[3] - window[1] + 1
    row = np.dtype([("y", "<i4"), ("size", "<i4")] + [(n, t, (width,)) for n, t in channels])
    rows = np.frombuffer(data, row, count=height, offset=at + 1 + 8 * height)
    return {n: rows[n].astype(np.float32) for n, _ in channels}


def layer(channels: dict[str, np.ndarray], ending: str) -> np.ndarray:
    """The one channel whose name ends so, whatever Blender calls the view layer."""
    names = [n for n in channels if n.endswith(ending)]
    if len(names) != 1:
        raise KeyError(f"{ending}: found {names} among {sorted(channels)}")
    return channels[names[0]]


def develop(linear: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB (h, w, 3) to an 8-bit photo, as a camera would: exposure, tone curve, white balance, noise.

    The meter weighs the object as much as the whole frame, so that a dark object before a bright window is
    still seen; the white balance takes away a part of the colour cast.
    """
    linear = np.nan_to_num(np.maximum(linear, 0.0), posinf=1e4)
    light = np.log(linear @ np.array([0.2126, 0.7152, 0.0722]) + 1e-4)
    weight = 1.0 + mask * (mask.size / max(1, mask.sum()))
    level = np.exp((light * weight).sum() / weight.sum())
    bright = np.percentile(np.exp(light[mask] if mask.any() else light), 95)
    exposure = min(0.2 / level, 1.3 / bright) * 2 ** rng.uniform(-0.5, 0.6)
    cast = (linear.mean((0, 1)) + 1e-6) / (linear.mean() + 1e-6)
    x = linear * exposure * (1 + rng.normal(0, 0.04, 3)) / cast ** rng.uniform(0.3, 0.9)
    x = (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)  # Narkowicz's fit of the ACES curve
    x = np.clip(x, 0, 1)
    x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    x = x + rng.normal(0, rng.uniform(0.0, 0.015), linear.shape)
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
