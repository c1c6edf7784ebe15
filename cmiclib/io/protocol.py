"""The protocol of views, which a prepared benchmark states and a renderer follows."""

import math

from pydantic import BaseModel, ConfigDict


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
