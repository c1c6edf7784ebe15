"""The protocol of views, which a prepared benchmark states and a renderer follows, and the frames of files."""

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..errors import MeshError

_AXES = {
    "+x": (1, 0, 0), "-x": (-1, 0, 0), "+y": (0, 1, 0), "-y": (0, -1, 0), "+z": (0, 0, 1), "-z": (0, 0, -1),
}  # fmt: skip


class ViewProtocol(BaseModel):
    """How views are made; `benchmark.json` holds it, because scores of two protocols cannot be compared.

    It does not say the size of the images, because a model resizes what it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    azimuths: tuple[float, ...] = tuple(range(0, 360, 30))  # degrees; 0 looks at the front (+z), 90 at the side at +x
    elevation: float = 20.0  # degrees above the horizon
    fov: float = 30.0  # field of view in degrees, the same across and down
    background: int = 255  # gray value around the shape
    samples: int = 2  # rays for each pixel along each side, averaged
    frame: str = "bounding box centred at the origin, farthest vertex at distance 1, +y up, front towards +z"

    @property
    def distance(self) -> float:
        """Distance of the camera from the origin: the unit sphere just touches the borders of the image."""
        return 1 / math.sin(math.radians(self.fov) / 2)


PROTOCOL = ViewProtocol()
"""The protocol of this library's benchmarks."""


def frame_rotation(up: str, front: str) -> np.ndarray:
    """Return the 3×3 rotation that takes axis `up` to +y and axis `front` to +z; MeshError: they are parallel."""
    for axis in (up, front):
        if axis not in _AXES:
            raise MeshError(f"unknown axis '{axis}'", fix=f"use one of: {', '.join(_AXES)}")
    y, z = np.array(_AXES[up]), np.array(_AXES[front])
    if y @ z:
        raise MeshError(f"up '{up}' and front '{front}' are parallel", fix="name two different axes")
    return np.stack([np.cross(y, z), y, z]).astype(float)
