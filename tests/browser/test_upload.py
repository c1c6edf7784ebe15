"""Uploads, friendly and hostile: the right pixels, or a sentence that names no path."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.ExifTags import Base

from cmiclib.browser.upload import LONGEST, MAX_BYTES, read_mask_upload, read_upload
from cmiclib.errors import ImageError
from cmiclib.io.foreground import ALONE, OPAQUE

RED, BLUE, SIZE = (230, 30, 30), (20, 40, 220), (60, 40)  # width, height


def picture() -> Image.Image:
    """60 × 40 pixels: red above, blue below."""
    image = Image.new("RGB", SIZE, RED)
    image.paste(BLUE, (0, 20, 60, 40))
    return image


def file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *more: bytes, bits: int = 8, kind: int = 0) -> bytes:
    """A PNG whose header claims a size, with no more pixels than given."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IEND", b"")


def rotated() -> bytes:
    """Stored lying on its side, with the note to turn it: seen upright it is red above, blue below."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    return file(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def sixteen_bit() -> bytes:
    """Gray: light above, dark below."""
    values = np.full((40, 60), 60_000, np.uint16)
    values[20:] = 5_000
    return file(Image.fromarray(values), "PNG")


def palette_with_transparency() -> bytes:
    """Red above; below the palette says blue, but fully transparent."""
    image = Image.new("P", SIZE, 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (0, 20, 60, 40))
    return file(image, "PNG", transparency=1)


def broken_exif() -> bytes:
    whole = file(picture(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40)
    assert b"Exif" in whole
    return whole


GIF = {"save_all": True, "append_images": [Image.new("RGB", SIZE, "white")] * 3, "duration": 20, "loop": 0}
GRAY = ((235, 235, 235), (19, 19, 19))
pillow_heif.register_heif_opener()
READ = {
    "HEIC": (file(picture(), "HEIF", quality=95), (RED, BLUE)),
    "AVIF": (file(picture(), "AVIF", quality=95), (RED, BLUE)),
    "EXIF rotation": (rotated(), (RED, BLUE)),
    "CMYK JPEG": (file(picture().convert("CMYK"), "JPEG", quality=95), (RED, BLUE)),
    "16-bit PNG": (sixteen_bit(), GRAY),
    "palette with transparency": (palette_with_transparency(), (RED, (255, 255, 255))),
    "animated GIF": (file(picture(), "GIF", **GIF), (RED, BLUE)),
    "animated WebP": (file(picture(), "WEBP", quality=95, **GIF), (RED, BLUE)),
    "broken EXIF": (broken_exif(), (RED, BLUE)),
    "progressive gray JPEG": (file(picture().convert("L"), "JPEG", progressive=True), ((90,) * 3, (56,) * 3)),
    "PNG with text behind its end": (file(picture(), "PNG") + b"<script>alert(1)</script>" * 9, (RED, BLUE)),
    "one bit a pixel": (file(picture().convert("L").point(lambda v: 255 * (v > 70)).convert("1"), "BMP"),
                        ((255,) * 3, (0,) * 3)),
}  # fmt: skip
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PIXELS = chunk(b"IDAT", zlib.compress(bytes(9000)))
REFUSED = {
    "zero bytes": (b"", "empty file"),
    "SVG with a script": (SVG, "SVG"),
    "HTML with an image's name": (b"<!DOCTYPE html><img src=x onerror=alert(1)>", "HTML"),
    "1-pixel PNG": (file(Image.new("RGB", (1, 1)), "PNG"), "1×1 pixels"),
    "1-pixel strip": (file(Image.new("RGB", (5000, 1)), "PNG"), "5000×1 pixels"),
    "30,000 × 30,000 PNG": (png(30_000, 30_000, PIXELS), "million"),
    "10,000 × 10,000 PNG": (png(10_000, 10_000, PIXELS), "10000×10000 pixels, more than 50 million"),
    "truncated JPEG": (file(picture(), "JPEG")[:-200], "damaged or cut off"),
    "truncated PNG": (file(picture(), "PNG")[:80], "damaged or cut off"),
    "PNG with flipped bits": (file(picture(), "PNG").replace(b"IDAT", b"IDAU", 1), "not an image|damaged"),
    "PNG with a text of 100 MB": (
        png(60, 40, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))), "damaged or cut off"),
    "JPEG's first bytes, then nothing": (b"\xff\xd8\xff\xe0" + bytes(100), "not an image|damaged"),
    "TIFF": (file(picture(), "TIFF"), "TIFF"),
    "damaged HEIC": (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
    "too many bytes": (file(picture(), "PNG") + bytes(MAX_BYTES), "MB, more than"),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_unusual_photos_are_read_right(name: str) -> None:
    content, (above, below) = READ[name]
    pixels, sent, *_ = read_upload(content)
    assert sent == (40, 60) and pixels.shape == (40, 60, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[10, 30], above, atol=30 if "CMYK" in name else 12)
    np.testing.assert_allclose(pixels[30, 30], below, atol=30 if "CMYK" in name else 12)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photo_is_refused_in_words(name: str) -> None:
    content, said = REFUSED[name]
    with pytest.raises(ImageError, match=said) as caught:
        read_upload(content)
    error = caught.value
    assert error.path is None and error.fix
    assert not any(sign in str(error) for sign in ("0x", "/", "BytesIO", "Traceback"))
    with pytest.raises(ImageError):
        read_mask_upload(content, np.zeros((40, 60, 3), np.uint8))


def test_large_photos_and_their_masks_are_made_smaller_alike() -> None:
    photo, sent, *_ = read_upload(file(Image.new("RGB", (2 * LONGEST, 100), RED), "PNG"))
    assert photo.shape == (50, LONGEST, 3) and sent == (100, 2 * LONGEST)
    mask = Image.new("L", (2 * LONGEST, 100))
    mask.paste(255, (0, 0, LONGEST, 100))
    found = read_mask_upload(file(mask, "PNG"), photo)
    assert found.shape == (50, LONGEST) and found[:, : LONGEST // 2].all() and not found[:, LONGEST // 2 + 1 :].any()


def test_a_mask_must_fit_its_photo_and_mark_something() -> None:
    photo, *_ = read_upload(file(picture(), "PNG"))
    with pytest.raises(ImageError, match="40×60 pixels, its photo 60×40"):
        read_mask_upload(file(Image.new("L", (40, 60), 255), "PNG"), photo)
    with pytest.raises(ImageError, match="empty"):
        read_mask_upload(file(Image.new("L", (60, 40)), "PNG"), photo)
    mask = Image.new("L", SIZE)
    mask.paste(255, (0, 20, 60, 40))
    assert read_mask_upload(file(mask, "PNG"), photo).sum() == 60 * 20


def test_what_is_opaque_in_a_cut_out_is_its_mask() -> None:
    opaque = np.zeros((40, 4 * LONGEST // 3), bool)
    opaque[10:30, 400:900] = True
    picture = Image.fromarray(np.dstack([np.full((*opaque.shape, 3), 250, np.uint8), opaque.astype(np.uint8) * 255]))
    photo, _, mask, how = read_upload(file(picture, "PNG"))
    assert how == OPAQUE
    assert mask.shape == photo.shape[:2]
    assert mask.mean() == pytest.approx(opaque.mean(), abs=0.01)
    assert read_upload(file(picture.convert("RGB"), "PNG")).mask is None


def test_what_stands_alone_brings_its_mask_along_at_any_size() -> None:
    scene = Image.new("RGB", (2 * LONGEST, 400), "white")
    scene.paste(RED, (LONGEST, 100, LONGEST + 500, 300))
    photo, _, mask, how = read_upload(file(scene, "PNG"))
    assert mask.shape == photo.shape[:2] and how == ALONE
    np.testing.assert_array_equal(mask, photo[..., 1] < 128)
