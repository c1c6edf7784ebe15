"""Photos and masks from files of every kind, and the square crop around the object that a query is."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError, StorageError
from .files import check_regular

MAX_PIXELS = 80_000_000  # more than any camera of today; a small file can claim far more and fill the memory
MAX_BYTES = 1 << 29
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Formats of photos. Pillow's other readers are never asked; the one for PostScript would start Ghostscript."""
_FIX = "save it again as JPEG or PNG"


def read_photo(path: str | Path, upright: bool = True) -> np.ndarray:
    """Read a photo, upright, as uint8 RGB (H, W, 3).

    EXIF rotation is applied (an unreadable EXIF block is ignored), transparency laid over white; palettes, gray,
    CMYK and 16 bit are converted. Of several frames the first one counts.

    Args:
        path: the file.
        upright: apply the EXIF rotation; False leaves the pixels as they lie in the file.

    Raises:
        ImageError: no such file, no image, cut off, or more than 80 million pixels.
    """
    return _decoded(Path(path), lambda image: photo_pixels(image, upright))


def photo_pixels(image: Image.Image, upright: bool = True) -> np.ndarray:
    """Bring an image that Pillow has loaded to uint8 RGB (H, W, 3), as :func:`read_photo` says."""
    return _rgb(_upright(image) if upright else image)


def read_mask(path: str | Path, size_of: np.ndarray | None = None) -> np.ndarray:
    """Read a mask as bool (H, W): True where the object is.

    Taken from the transparency if there is any, else from the gray value: at least 128, or above 0 in files
    that hold nothing above 1.

    Args:
        path: the file.
        size_of: the photo (H, W, …) that it belongs to.

    Raises:
        ImageError: as `read_photo`, or the photo has another size.
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
    """Bring an image that Pillow has loaded to bool (H, W), as :func:`read_mask` says."""
    gray = _gray(_upright(image))
    return gray >= 128 if gray.max() > 1 else gray > 0


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask, bool (H, W), as a PNG, white where the object is.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        Image.fromarray(mask.astype(np.uint8) * 255).save(path, "PNG")
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror or error})", path=path, fix="choose another file"
        ) from error


def square_crop(
    image: np.ndarray,
    mask: np.ndarray | None = None,
    box: tuple[float, float, float, float] | None = None,
    margin: float = 0.1,
    size: int = 224,
) -> np.ndarray:
    """Cut the square around the object and resize it.

    The square has the centre of the box and 1 + 2·margin times its longer side. Where it leaves the photo, the
    photo's border is repeated and the mask is 0.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W); None: not known, the mask channel is 255 everywhere.
        box: x0, y0, x1, y1 in pixels; default: the mask's box; without both, the whole photo and no margin.
        margin: share of the longer side that is added on each side.
        size: side S of the result in pixels.

    Returns:
        uint8 (4, S, S): RGB and mask.

    Raises:
        ImageError: an empty mask, a mask of another size, or a box without area inside the photo.
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
    """Return the part of a box x0, y0, x1, y1 that lies inside a photo of this size, in pixels.

    Raises:
        ImageError: there is none, or a side is not a number.
    """
    x0, y0, x1, y1 = (float(side) for side in np.clip(box, 0, [width, height, width, height]))
    if not (x1 > x0 and y1 > y0):
        raise ImageError(
            f"the box {tuple(map(float, box))} has no area inside the photo of {width}×{height} pixels",
            fix="give x0,y0,x1,y1 in pixels with x0 < x1 and y0 < y1",
        )
    return x0, y0, x1, y1


def decode_image(file: Path | BinaryIO, path: Path) -> Image.Image:
    """Open an image of one of `FORMATS` and read its first frame.

    Args:
        file: the file, or its bytes where it is part of an archive.
        path: its name, for the message.

    Raises:
        ImageError: no image, cut off, or more than 80 million pixels.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
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
    """Pixels as uint8 (H, W, 3), transparency over white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(_eight_bit(image).convert("RGB"))


def _gray(image: Image.Image) -> np.ndarray:
    """Opacity where there is any, else gray values, uint8 (H, W)."""
    if image.has_transparency_data:
        opacity = np.asarray(image.convert("RGBA"))[..., 3]
        return opacity if opacity.min() < 255 else np.asarray(image.convert("RGBA").convert("L"))
    if image.mode.startswith("I") and (labels := np.asarray(image)).max() <= 255:  # small numbers in a 16 bit file
        return labels.clip(0).astype(np.uint8)
    return np.asarray(_eight_bit(image).convert("L")) if image.mode != "P" else _palette_mask(image)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block (there are some in Pix3D) fails in many ways and is no reason to stop
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit files open as I;16 or I
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image


def _palette_mask(image: Image.Image) -> np.ndarray:
    """Gray values of a palette image; the bare indices where the palette shows nothing, as label tools write."""
    gray = np.asarray(image.convert("L"))
    return gray if gray.max() > gray.min() else np.asarray(image)


def _mask_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Box x0, y0, x1, y1 of the True pixels (H, W), the far side exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ImageError("the mask is empty", fix="give a mask that marks the object, or none")
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
