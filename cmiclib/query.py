"""A user's own photo as a query: file, mask or box in, the array that the encoder expects out."""

from pathlib import Path

import numpy as np

from .errors import ImageError
from .images import read_mask, read_photo, square_crop

QUERY_SIZE = 224
"""Side of a query in pixels; models resize it to their own."""

Box = tuple[float, float, float, float]


def load_query(photo: Path, mask: Path | None = None, box: Box | None = None) -> tuple[np.ndarray, str]:
    """Read a photo and cut its object out.

    Args:
        photo: an image file.
        mask: an image of the same size, white where the object is.
        box: x0, y0, x1, y1 of the object in pixels.

    Returns:
        uint8 (4, 224, 224), RGB and mask, and in words what marked the object.

    Raises:
        ImageError: an unreadable file, a mask that is empty or of another size, a box outside the photo, or both given.
    """
    if mask is not None and box is not None:
        raise ImageError("mask and box are both given", path=photo, fix="give one of the two")
    image = read_photo(photo)
    known = read_mask(mask, size_of=image) if mask is not None else None
    how = f"mask {mask}" if mask is not None else "box, no mask" if box is not None else "whole photo, no mask"
    try:
        return square_crop(image, known, box, size=QUERY_SIZE), how
    except ImageError as error:
        raise ImageError(error.problem, path=photo, fix=error.fix) from None


def parse_box(text: str) -> Box:
    """Read ``x0,y0,x1,y1``.

    Raises:
        ImageError: not four numbers.
    """
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        raise ImageError(f"'{text}' is not a box", fix="give four numbers: x0,y0,x1,y1") from None
    return x0, y0, x1, y1
