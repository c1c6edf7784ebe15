"""Materials of practice photos: random colours and textures that need no coordinates of a mesh."""

import colorsys
from dataclasses import dataclass

import numpy as np

from ...geometry import GAMMA


@dataclass(frozen=True)
class Material:
    """Colour, texture and gloss of some of a shape's faces; colours are linear light."""

    color: np.ndarray  # (3,)
    second: np.ndarray  # (3,) the texture's other colour
    kind: str  # plain, grain, weave, spots
    scale: float
    gloss: float


def draw_material(rng: np.random.Generator) -> Material:
    """Draw a material: a third gray to white, a third of the colours of wood, a third of any colour."""
    family = rng.integers(3)
    if family == 0:
        hue, saturation = rng.random(), 0.08 * rng.random()
        value = rng.choice([0.12, 0.5, 0.9]) + rng.uniform(-0.1, 0.1)
    elif family == 1:
        hue, saturation, value = rng.uniform(0.04, 0.13), rng.uniform(0.2, 0.75), rng.uniform(0.2, 0.9)
    else:
        hue, saturation, value = rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.15, 0.9)
    color = _linear(hue, saturation, value)
    other = _linear(hue + rng.normal(0, 0.03), saturation * rng.uniform(0.5, 1.2), value * rng.uniform(0.5, 1.3))
    kind = str(rng.choice(["plain", "grain", "weave", "spots"], p=[0.45, 0.25, 0.15, 0.15]))
    gloss = float(rng.choice([0.0, 0.15, 0.6], p=[0.5, 0.3, 0.2]) * rng.random())
    return Material(color, other, kind, float(np.exp(rng.uniform(0, 1.5))), gloss)


def _linear(hue: float, saturation: float, value: float) -> np.ndarray:
    """Linear light (3,) of a colour; what is out of range is clipped."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0.02), 1))) ** GAMMA


def texture(points: np.ndarray, material: Material, rng: np.random.Generator) -> np.ndarray:
    """Return the share (n,) of a material's second colour, a pattern in space so that no mesh needs coordinates."""
    if material.kind == "plain":
        return np.zeros(len(points))
    rough = _waves(points, rng, 3 * material.scale)
    if material.kind == "spots":
        return np.clip(3 * rough, 0, 1)
    axis = rng.integers(3)
    across = np.delete(points, axis, axis=1) @ rng.normal(size=2)
    if material.kind == "grain":
        return 0.5 + 0.5 * np.sin(material.scale * (12 * across + 4 * rough))
    depth = rng.uniform(0.3, 1.0)
    return 0.5 + depth / 6 * np.sign(np.sin(40 * material.scale * points)).sum(axis=1)


def _waves(points: np.ndarray, rng: np.random.Generator, scale: float, count: int = 5) -> np.ndarray:
    """Smooth noise (n,) in about [-1, 1]: some sine waves of random directions."""
    directions = rng.normal(size=(3, count)) * scale
    return np.sin(points @ directions + rng.uniform(0, 2 * np.pi, count)).mean(axis=1)
