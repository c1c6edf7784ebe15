"""A photo of a car with an annotated pose: its mask is the silhouette of the posed model."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import SourceError
from ...geometry import load_mesh
from ...geometry.rays import Rays
from ...io.images import read_photo, square_crop
from ..photos import Cut, PhotoFile
from .camera import Pose, silhouette

FINEST = 3  # photos wider than three crops are reduced first: the crop keeps no more pixels than that


def cut_car(photo: PhotoFile, size: int) -> Cut:
    """Cut the square around the silhouette of a photo's model; its fact is the pose, its further file the model."""
    pose, (model,) = photo.facts, photo.also
    assert isinstance(pose, Pose)
    rgb = read_photo(photo.path)
    if rgb.shape[1] > FINEST * size:
        height = max(1, round(rgb.shape[0] * FINEST * size / rgb.shape[1]))
        rgb = np.asarray(Image.fromarray(rgb).resize((FINEST * size, height), Image.Resampling.BILINEAR))
    mask = silhouette(_scene(model, model.stat().st_mtime_ns), pose, rgb.shape[1], rgb.shape[0])
    if not mask.any():
        problem = f"its annotated pose shows nothing of {photo.shape_ids[0]}"
        raise SourceError(problem, path=photo.path, fix="correct the annotation")
    return Cut(square_crop(rgb, mask, size=size))


@lru_cache(maxsize=1)  # the photos of one model come one after the other
def _scene(model: Path, changed: int) -> Rays:
    return Rays(load_mesh(model))  # in the frame of its file, as the poses are
