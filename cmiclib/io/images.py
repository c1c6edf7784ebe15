"""Photos and masks from files of every kind, and the square crop around the object, which is the query."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError
from .atomic import write_atomically
from .files import check_regular

MAX_PIXELS = 80_000_000  # more than cameras have; a small file can claim far more and fill the memory
MAX_BYTES = 1 << 29
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Formats of photos. Pillow's other readers are never asked; the one for PostScript would start Ghostscript."""
_FIX = "save it again as JPEG or PNG"


def read_photo(path: str | Path, upright: bool = True) -> np.ndarray:
    """Read a photo, upright, as uint8 RGB (H, W, 3).

    Transparent pixels lie on white; palettes, gray, CMYK and 16 bit are converted; of several frames the first counts.

    Args:
        path: the file.
        upright: apply the EXIF rotation, unless its block is damaged; False keeps the pixels as they are in the file.

    Raises:
        ImageError: no such file, not an image, cut off, or more than 80 million pixels.
    """
    return _decoded(Path(path), lambda image: photo_pixels(image, upright))


def photo_pixels(image: Image.Image, upright: bool = True) -> np.ndarray:
    """Convert an image that Pillow has loaded as :func:`read_photo` does."""
    return _rgb(_upright(image) if upright else image)


def read_mask(path: str | Path, size_of: np.ndarray | None = None) -> np.ndarray:
    """Read a mask as bool (H, W), True where the object is.

    It is the opacity if any pixel is transparent, else the gray value: at least 128, or 1 in a file of zeros and ones.

    Args:
        path: the file.
        size_of: the mask's photo (H, W, …).

    Raises:
        ImageError: as :func:`read_photo`, or the photo has another size.
    """
    mask = _decoded(Path(path), mask_pixels)
    if size_of is not None and mask.shape != size_of.shape[:2]:
        raise ImageError(
            f"the mask is {mask.shape[1]}×{mask.shape[0]} pixels, its photo {size_of.shape[1]}×{size_of.shape[0]}",
            path=path,
            fix="give the mask that was made for this photo, in its full size",
        )
    return mask


def mask_pixels(image: Image.Image) -> np.ndarray:
    """Convert an image that Pillow has loaded as :func:`read_mask` does."""
    gray = _gray(_upright(image))
    return gray >= 128 if gray.max() > 1 else gray > 0


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask, bool (H, W), as a PNG, white where the object is.

    Raises:
        StorageError: it cannot be written.
    """
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    write_atomically(Path(path), lambda temporary: picture.save(temporary, "PNG"))


def square_crop(
    image: np.ndarray,
    mask: np.ndarray | None = None,
    box: tuple[float, float, float, float] | None = None,
    margin: float = 0.1,
    size: int = 224,
) -> np.ndarray:
    """Cut the square around the object and resize it.

    The square has the centre of the box and 1 + 2·margin times its longer side. Outside the photo its border pixels are
    repeated and the mask is 0.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W); without one the mask channel is 255 everywhere.
        box: x0, y0, x1, y1 in pixels; default: the mask's box; without either the whole photo, and no margin.
        margin: share of the longer side to add on each side.
        size: side S of the result in pixels.

    Returns:
        uint8 (4, S, S): RGB and mask.

    Raises:
        ImageError: the mask is empty or of another size, or the box has no area inside the photo.
    """
    height, width = image.shape[:2]
    if mask is not None and mask.shape != (height, width):
        raise ImageError(
            f"the mask is {mask.shape[1]}×{mask.shape[0]} pixels, the photo {width}×{height}",
            fix="give the mask that was made for this photo",
        )
    if box is None:
        box = _mask_box(mask) if mask is not None else (0, 0, width, height)
        margin = margin if mask is not None else 0.0
    x0, y0, x1, y1 = clip_box(box, height, width)
    side = max(1, round(max(x1 - x0, y1 - y0) * (1 + 2 * margin)))
    rows = round((y0 + y1 - side) / 2) + np.arange(side)
    columns = round((x0 + x1 - side) / 2) + np.arange(side)
    clipped = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
    rgb = Image.fromarray(image[clipped]).resize((size, size), Image.Resampling.BILINEAR)
    if mask is None:
        alpha = np.full((size, size), 255, np.uint8)
    else:
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        cut = np.where(mask[clipped] & inside, 255, 0).astype(np.uint8)
        alpha = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR))
    return np.concatenate([np.asarray(rgb).transpose(2, 0, 1), alpha[None]])


def clip_box(box: tuple[float, float, float, float], height: int, width: int) -> tuple[float, float, float, float]:
    """Return the part of a box x0, y0, x1, y1 inside a photo of this size, in pixels.

    Raises:
        ImageError: that part is empty, or a side is NaN.
    """
    x0, y0, x1, y1 = (float(side) for side in np.clip(box, 0, [width, height, width, height]))
    if not (x1 > x0 and y1 > y0):
        raise ImageError(
            f"the box {tuple(map(float, box))} has no area inside the photo of {width}×{height} pixels",
            fix="give x0,y0,x1,y1 in pixels with x0 < x1 and y0 < y1",
        )
    return x0, y0, x1, y1


def decode_image(file: Path | BinaryIO, path: Path) -> Image.Image:
    """Read the first frame of an image of one of `FORMATS`.

    Args:
        file: the file, or its content where it is part of an archive.
        path: its name, for the message.

    Raises:
        ImageError: not an image, cut off, or more than 80 million pixels.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:  # noqa: TID251 (the one place)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{image.width}×{image.height} pixels are more than {MAX_PIXELS // 1_000_000} million",
                    path=path,
                    fix="make it smaller",
                )
            image.load()
            return image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(str(error), path=path, fix="make it smaller") from None
    except Exception as error:  # Pillow's readers of damaged files raise nearly everything
        raise ImageError(f"cannot be read as an image ({error})", path=path, fix=_FIX) from None


def _decoded(path: Path, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    if not path.is_file():
        raise ImageError("no such file", path=path, fix="correct the path")
    check_regular(path, ImageError, MAX_BYTES)
    image = decode_image(path, path)
    try:
        return convert(image)
    except (ValueError, OSError, MemoryError) as error:  # colours that Pillow does not convert, such as Lab
        raise ImageError(f"cannot be read as an image ({error})", path=path, fix=_FIX) from None


def _rgb(image: Image.Image) -> np.ndarray:
    """Return pixels as uint8 (H, W, 3), transparent ones over white."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(_eight_bit(image).convert("RGB"))


def _gray(image: Image.Image) -> np.ndarray:
    """Return opacity if a pixel is transparent, else gray values, uint8 (H, W)."""
    if image.has_transparency_data:
        opacity = np.asarray(image.convert("RGBA"))[..., 3]
        return opacity if opacity.min() < 255 else np.asarray(image.convert("RGBA").convert("L"))
    if image.mode.startswith("I") and (labels := np.asarray(image)).max() <= 255:  # small numbers in a 16 bit file
        return labels.clip(0).astype(np.uint8)
    return np.asarray(_eight_bit(image).convert("L")) if image.mode != "P" else _palette_mask(image)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF blocks, as in Pix3D, fail in many ways; the pixels are still good
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit files open as I;16 or I
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image


def _palette_mask(image: Image.Image) -> np.ndarray:
    """Return gray values of a palette image, or its indices where all colours are alike, as label tools write them."""
    gray = np.asarray(image.convert("L"))
    return gray if gray.max() > gray.min() else np.asarray(image)


def _mask_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 of the True pixels (H, W), the far side exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ImageError("the mask is empty", fix="give a mask that marks the object, or no mask")
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
