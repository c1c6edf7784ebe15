"""Photos and masks from files of every kind, and the square crop around the object, which is the query."""

import contextlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import ImageError
from .atomic import write_atomically
from .files import check_content, check_regular, reason
from .labels import of_colours, of_numbers

T = TypeVar("T")

MARGIN = 0.1  # of the longer side of an object, around it in a crop
MAX_PIXELS = 80_000_000  # more than cameras have; a small file can claim far more and fill the memory
MAX_BYTES = 1 << 29
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "TIFF", "GIF", "PPM")
"""Formats of photos; MPO counts as JPEG. Pillow's other readers are never asked; one would start Ghostscript."""
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".heic", ".heif", ".bmp", ".tif", ".tiff",
    ".gif", ".ppm",
)  # fmt: skip
_FIX = "save it again as JPEG or PNG"
_SIDEWAYS = {
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class Photo(NamedTuple):
    """A photo as it is looked at."""

    pixels: np.ndarray  # uint8 RGB (H, W, 3)
    opaque: np.ndarray | None  # bool (H, W), the object of a cut-out: its opaque pixels; None: none are transparent
    turn: int = 1  # the EXIF orientation that was applied; 1: none


def open_photo(path: str | Path) -> Photo:
    """Read a photo, upright, with the mask that it brings along; errors are those of :func:`read_photo`."""
    return _decoded(Path(path), photo_of)


def photo_of(image: Image.Image) -> Photo:
    """Convert an image that Pillow has loaded as :func:`open_photo` does."""
    upright, opaque = _upright(image), None
    if upright.has_transparency_data:
        opaque = np.asarray(upright.convert("RGBA"))[..., 3] >= 128
        if not opaque.any() or opaque.mean() > 0.999:  # round corners of a window make no cut-out
            opaque = None
    turn = 1
    with contextlib.suppress(Exception):  # as in _upright
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    return Photo(_rgb(upright), opaque, turn)


def read_photo(path: str | Path, upright: bool = True) -> np.ndarray:
    """Read a photo as uint8 RGB (H, W, 3).

    Transparent pixels lie on white; palettes, gray, CMYK and 16 bit are converted; of several frames the first counts.
    Without ``upright`` the pixels stay as they are in the file; a damaged EXIF block turns nothing.

    Raises:
        ImageError: no such file, not an image, cut off, or more than 80 million pixels.
    """
    return _decoded(Path(path), lambda image: photo_pixels(image, upright))


def photo_pixels(image: Image.Image, upright: bool = True) -> np.ndarray:
    """Convert an image that Pillow has loaded as :func:`read_photo` does."""
    return _rgb(_upright(image) if upright else image)


def read_mask(path: str | Path, size_of: np.ndarray | None = None, turn: int = 1) -> np.ndarray:
    """Read a mask as bool (H, W), True where the object is.

    It is the opacity if some pixels are transparent; of the colours of label tools, all but black or, without black,
    the border's; of few label numbers all but 0, where 255 beside others is a border that counts as nothing; else the
    gray value from 128 on.

    Args:
        path: the file.
        size_of: the mask's photo (H, W, …).
        turn: that photo's EXIF orientation; a mask of the photo as it is in its file is turned in the same way.

    Raises:
        ImageError: as :func:`read_photo`, or the photo has another size.
    """
    mask = _decoded(Path(path), mask_pixels)
    if size_of is None or mask.shape == size_of.shape[:2]:
        return mask
    if turn in _SIDEWAYS and mask.shape[::-1] == size_of.shape[:2]:
        return np.asarray(Image.fromarray(mask).transpose(_SIDEWAYS[turn]))
    raise ImageError(
        f"the mask is {mask.shape[1]}×{mask.shape[0]} pixels, its photo {size_of.shape[1]}×{size_of.shape[0]}",
        path=path,
        fix="give the mask that was made for this photo, in its full size",
    )


def mask_pixels(image: Image.Image) -> np.ndarray:
    """Convert an image that Pillow has loaded as :func:`read_mask` does."""
    image = _upright(image)
    if image.has_transparency_data:
        opaque = np.asarray(image.convert("RGBA"))[..., 3] >= 128
        if opaque.any() and not opaque.all():
            return opaque
        image = image.convert("RGBA").convert("RGB")
    if image.mode.startswith(("I", "F")):
        numbers = np.nan_to_num(np.asarray(image))
        numbers = numbers * 255 if image.mode == "F" and numbers.max() <= 1 else numbers
        return of_numbers((numbers if numbers.max() <= 255 else numbers // 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("1", "L"):
        return of_numbers(np.asarray(image.convert("L")))
    rgb = np.asarray(image.convert("RGB"))
    if image.mode == "P" and (rgb == rgb[0, 0]).all():  # numbers whose colours nobody chose
        return of_numbers(np.asarray(image))
    return of_colours(rgb)


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
    margin: float = MARGIN,
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
    left, top, side = square_around(clip_box(box, height, width), margin)
    rows, columns = top + np.arange(side), left + np.arange(side)
    clipped = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
    rgb = Image.fromarray(image[clipped]).resize((size, size), Image.Resampling.BILINEAR)
    if mask is None:
        alpha = np.full((size, size), 255, np.uint8)
    else:
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        cut = np.where(mask[clipped] & inside, 255, 0).astype(np.uint8)
        alpha = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR))
    return np.concatenate([np.asarray(rgb).transpose(2, 0, 1), alpha[None]])


def square_around(box: tuple[float, float, float, float], margin: float = MARGIN) -> tuple[int, int, int]:
    """Return left, top and side in pixels of the square that :func:`square_crop` cuts around a box."""
    x0, y0, x1, y1 = box
    side = max(1, round(max(x1 - x0, y1 - y0) * (1 + 2 * margin)))
    return round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side


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
        learn_heif()
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
    except Image.DecompressionBombError:
        problem = f"it claims more than {MAX_PIXELS // 1_000_000} million pixels"
        raise ImageError(problem, path=path, fix="make it smaller") from None
    except Image.UnidentifiedImageError:
        problem = f"cannot be read as an image: its start is not that of {', '.join(FORMATS)}"
        raise ImageError(problem, path=path, fix=_FIX) from None
    except Exception as error:  # Pillow's readers of damaged files raise nearly everything, with words about themselves
        problem = "cannot be read as an image: it is damaged or cut off"
        raise ImageError(problem, path=path, fix=_FIX) from error


@cache
def learn_heif() -> None:
    """Tell Pillow how to read HEIC, as telephones take photos; the others it knows."""
    if find_spec("pillow_heif"):  # a machine that only trains may lack it
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)


def _decoded(path: Path, convert: Callable[[Image.Image], T]) -> T:
    if path.is_dir():
        raise ImageError("this is a folder, not a photo", path=path, fix="name its files, as in FOLDER/*.jpg")
    if not path.is_file():
        raise ImageError("no such file", path=path, fix="correct the path")
    check_regular(path, ImageError, MAX_BYTES)
    try:
        with path.open("rb") as file:
            check_content(file.read(512), path, ImageError)
    except OSError as error:
        raise ImageError(f"cannot be read ({reason(error)})", path=path, fix="check the path") from None
    image = decode_image(path, path)
    try:
        return convert(image)
    except (ValueError, OSError, MemoryError) as error:  # colours that Pillow does not convert, such as Lab
        problem = f"cannot be read as an image: its colours ({image.mode}) are not converted"
        raise ImageError(problem, path=path, fix=_FIX) from error


def _rgb(image: Image.Image) -> np.ndarray:
    """Return pixels as uint8 (H, W, 3), transparent ones over white."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(_eight_bit(image).convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF blocks, as in Pix3D, fail in many ways; the pixels are still good
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit files open as I;16 or I
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        numbers = np.nan_to_num(np.asarray(image))
        return Image.fromarray((numbers * (255 if numbers.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    return image


def _mask_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 of the True pixels (H, W), the far side exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ImageError("the mask is empty", fix="give a mask that marks the object, or no mask")
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
