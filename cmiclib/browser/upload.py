"""Photos and masks that a visitor sends: decoded within limits, or refused with a sentence that names no path.

Only the pixels of an upload are kept, and the browser encodes them anew. Name and type are the sender's claims.
"""

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import ImageError
from ..io.foreground import own_mask
from ..io.images import learn_heif, mask_pixels, photo_of

FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "BMP")  # each decoder is a way in
MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000  # as telephones take them; a small file can claim thousands of times more
LONGEST = 3000  # pixels; larger photos are made smaller, because a query has 224
SMALLEST = 16  # pixels a side
LARGER = "make it smaller, or cut the object out with some surroundings"


class Upload(NamedTuple):
    """A photo as a visitor sent it, made smaller where it was large."""

    photo: np.ndarray  # uint8 RGB (H, W, 3), upright
    sent: tuple[int, int]  # its height and width before
    mask: np.ndarray | None  # bool (H, W), the photo's own, see `own_mask`; None: it brings none along
    how: str  # where the mask comes from, in words


def read_upload(content: bytes) -> Upload:
    """Decode a photo as :func:`cmiclib.io.images.open_photo` does, to at most `LONGEST` pixels a side.

    ImageError: empty, too large, of another format, damaged, or with too many or too few pixels.
    """
    pixels, opaque, _ = photo_of(_decode(content, "photo"))
    photo, sent = _shrink(pixels), (pixels.shape[0], pixels.shape[1])
    mask = own_mask(photo, None if opaque is None else _shrink(opaque.astype(np.uint8) * 255) >= 128)
    return Upload(photo, sent, *(mask or (None, "")))


def read_mask_upload(content: bytes, photo: np.ndarray) -> np.ndarray:
    """Decode the mask of a photo that :func:`read_upload` returned: bool (H, W), made smaller with its photo.

    It converts as :func:`cmiclib.io.images.read_mask` does. ImageError also if it is empty or does not fit the photo.
    """
    mask = mask_pixels(_decode(content, "mask"))
    height, width = photo.shape[:2]
    if mask.shape != (height, width):
        scaled = _shrink(mask.astype(np.uint8) * 255)
        if scaled.shape != (height, width):
            sizes = f"the mask has {mask.shape[1]}×{mask.shape[0]} pixels, its photo {width}×{height}"
            raise ImageError(sizes, fix="give the mask that was made for this photo, in its full size")
        mask = scaled >= 128
    if not mask.any():
        raise ImageError("the mask is empty", fix="give a mask that is white where the object is, or none")
    return mask


def _decode(content: bytes, what: str) -> Image.Image:
    """Check the size, then let Pillow decode."""
    if not content:
        raise ImageError(f"the {what} is an empty file", fix="choose another file")
    if len(content) > MAX_BYTES:
        raise ImageError(f"the {what} has {len(content) / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}", fix=LARGER)
    try:
        learn_heif()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and of odd files
            image = Image.open(io.BytesIO(content), formats=FORMATS)  # noqa: TID251 (uploads have tighter limits)
            size = f"the {what} has {image.width}×{image.height} pixels"
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{size}, more than {MAX_PIXELS // 1_000_000} million", fix=LARGER)
            if min(image.size) < SMALLEST:
                raise ImageError(f"{size}, too few to show an object", fix=f"choose one of at least {SMALLEST} a side")
            image.load()
            return image
    except Image.UnidentifiedImageError:
        fix = f"save it as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ImageError(f"the {what} is {_looks_like(content)}", fix=fix) from None
    except Image.DecompressionBombError:
        raise ImageError(f"the {what} claims more than {MAX_PIXELS // 1_000_000} million pixels", fix=LARGER) from None
    except ImageError:
        raise
    except Exception:  # decoders of damaged files fail in many ways, and their messages name memory addresses
        fix = "send it again, or save it again as JPEG or PNG"
        raise ImageError(f"the {what} is damaged or cut off", fix=fix) from None


def _looks_like(content: bytes) -> str:
    """Say what a file seems to be that Pillow does not read."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    guesses = {
        "an SVG drawing, not a photo": b"<svg" in start,
        "a page of HTML or XML, not a photo": start.startswith(b"<"),
        "a video, or a damaged HEIC or AVIF file": content[4:8] == b"ftyp",
        "a TIFF file, which is not read here": content[:4] in (b"II*\0", b"MM\0*"),
    }
    return next(
        (words for words, fits in guesses.items() if fits), "not an image, or of a format that is not read here"
    )


def _shrink(pixels: np.ndarray) -> np.ndarray:
    """Resize (H, W) or (H, W, 3) uint8 to at most `LONGEST` pixels a side."""
    scale = LONGEST / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = tuple(max(1, round(length * scale)) for length in pixels.shape[1::-1])
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
