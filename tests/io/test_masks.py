"""Masks that people have: colours, palettes, label numbers, soft and turned ones, and the opacity of a cut-out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmiclib.errors import ImageError
from cmiclib.index.query import read_query
from cmiclib.io.foreground import OPAQUE, automatic_mask
from cmiclib.io.images import open_photo, read_mask, read_photo
from cmiclib.sources.photos import PhotoFile, cut_photo

Y, X = np.mgrid[:90, :120]
TRUTH = (X - 40) ** 2 + (Y - 50) ** 2 < 30**2  # a disc
RING = ((X - 40) ** 2 + (Y - 50) ** 2 < 34**2) & ~TRUTH


def voc_palette() -> list[int]:
    """Pascal's: a number's bits, from the lowest on, go to red, green, blue and again, each from the highest on."""
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        colours[:, bit % 3] |= (np.arange(256) >> bit & 1) << (7 - bit // 3)
    return colours.ravel().tolist()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def painted(inside, outside=(0, 0, 0)) -> Image.Image:
    return Image.fromarray(np.where(TRUTH[..., None], inside, outside).astype(np.uint8))


def numbered(number: int, border: int = 0, mode: str = "P", kind=np.uint8) -> Image.Image:
    image = Image.fromarray(np.where(TRUTH, number, np.where(RING, border, 0)).astype(kind))
    if mode == "P":
        image.putpalette(voc_palette())
    return image


@pytest.mark.parametrize("number", [1, 2, 4, 9, 18, 20])
@pytest.mark.parametrize("border", [0, 255])
@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_label_numbers_and_their_palette(tmp_path: Path, number: int, border: int, mode: str) -> None:
    image = numbered(number, border, "L" if mode == "L" else "P")
    (image.convert("RGB") if mode == "RGB" else image).save(tmp_path / "mask.png")
    assert overlap(read_mask(tmp_path / "mask.png"), TRUTH) == 1


@pytest.mark.parametrize("border", [0, 255])
@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_label_numbers_of_16_bit(tmp_path: Path, border: int, kind: type) -> None:
    numbered(7, border, "L", kind).save(tmp_path / "mask.png" if kind is np.uint16 else tmp_path / "mask.tif")
    assert overlap(read_mask(next(tmp_path.iterdir())), TRUTH) == 1


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (64, 0, 128), (0, 64, 0), (230, 25, 75), (255, 255, 0)])
@pytest.mark.parametrize("form", ["png", "jpg", "gif", "adaptive"])
def test_one_colour_on_black(tmp_path: Path, colour: tuple, form: str) -> None:
    image = painted(colour)
    if form == "adaptive":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    image.save(tmp_path / f"mask.{'png' if form == 'adaptive' else form}")
    assert overlap(read_mask(next(tmp_path.iterdir())), TRUTH) > 0.97


def test_a_colour_on_another(tmp_path: Path) -> None:
    painted((255, 120, 0), (70, 70, 200)).save(tmp_path / "mask.png")
    assert overlap(read_mask(tmp_path / "mask.png"), TRUTH) == 1


def test_objects_of_several_labels_are_one(tmp_path: Path) -> None:
    array = np.where(TRUTH, np.where(X < 40, 3, 15), 0).astype(np.uint8)
    image = Image.fromarray(array)
    image.putpalette(voc_palette())
    image.save(tmp_path / "mask.png")
    assert overlap(read_mask(tmp_path / "mask.png"), TRUTH) == 1


def soft() -> np.ndarray:
    return 1 / (1 + np.exp(np.hypot(X - 40, Y - 50) - 30))


@pytest.mark.parametrize("form", ["png", "jpg", "float", "opacity"])
def test_soft_masks_end_at_their_middle(tmp_path: Path, form: str) -> None:
    gray = np.rint(soft() * 255).astype(np.uint8)
    if form == "float":
        Image.fromarray(soft().astype(np.float32)).save(tmp_path / "mask.tif")
    elif form == "opacity":
        Image.fromarray(np.dstack([gray // 9] * 3 + [gray])).save(tmp_path / "mask.png")
    else:
        Image.fromarray(gray).save(tmp_path / f"mask.{form}")
    assert overlap(read_mask(next(tmp_path.iterdir())), TRUTH) > 0.98


@pytest.mark.parametrize("opacity", [0, 255, 200])
def test_an_opacity_that_tells_nothing_is_passed_over(tmp_path: Path, opacity: int) -> None:
    gray = TRUTH.astype(np.uint8) * 255
    Image.fromarray(np.dstack([gray] * 3 + [np.full_like(gray, opacity)])).save(tmp_path / "mask.png")
    assert overlap(read_mask(tmp_path / "mask.png"), TRUTH) == 1


# Turned photos

TURNS = {1: 0, 3: 2, 6: 3, 8: 1}  # EXIF orientation → quarter turns against the clock that undo it


def turned_photo(tmp_path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    painted((200, 40, 40), (90, 120, 90)).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_unturned_photo_is_turned_with_it(tmp_path: Path, orientation: int) -> None:
    photo = turned_photo(tmp_path, orientation)
    Image.fromarray(TRUTH).save(tmp_path / "mask.png")
    pixels, _, turn = open_photo(photo)
    assert turn == orientation and pixels.shape == (120, 90, 3)
    mask = read_mask(tmp_path / "mask.png", pixels, turn)
    assert overlap(mask, pixels[..., 0] > 150) > 0.95
    query = read_query(photo, tmp_path / "mask.png")
    assert np.array_equal(query.mask, mask)
    Image.fromarray(mask).save(tmp_path / "upright.png")
    assert np.array_equal(read_query(photo, tmp_path / "upright.png").image, query.image)
    file = PhotoFile("q", photo, ("a",), "a", "test", mask=tmp_path / "mask.png")
    assert np.array_equal(cut_photo(file, 224).image, query.image)


def test_a_mask_that_is_turned_without_a_reason_is_refused(tmp_path: Path) -> None:
    Image.fromarray(TRUTH.T.copy()).save(tmp_path / "mask.png")
    for orientation in (1, 3):
        with pytest.raises(ImageError, match=r"mask\.png: the mask is 90×120 pixels, its photo 120×90"):
            read_query(turned_photo(tmp_path, orientation), tmp_path / "mask.png")


# Cut-outs


def cut_out(path: Path, kind: str = "RGBA") -> Path:
    image = Image.fromarray(np.dstack([np.full((90, 120, 3), 245, np.uint8), TRUTH.astype(np.uint8) * 255]))
    image.convert(kind).save(path)
    return path


@pytest.mark.parametrize("name, kind", [("a.png", "RGBA"), ("a.png", "LA"), ("a.webp", "RGBA"), ("a.gif", "RGBA")])
def test_what_is_opaque_in_a_cut_out_is_its_mask(tmp_path: Path, name: str, kind: str) -> None:
    query = read_query(cut_out(tmp_path / name, kind))
    assert overlap(query.mask, TRUTH) > 0.97 and "opaque" in query.how
    cut = cut_photo(PhotoFile("q", tmp_path / name, ("a",), "a", "test"), 224)
    assert np.array_equal(cut.image, query.image) and cut.how == query.how


def test_a_given_mask_and_no_mask_at_all_come_before_the_opacity(tmp_path: Path) -> None:
    photo = cut_out(tmp_path / "a.png")
    Image.fromarray(X > 60).save(tmp_path / "mask.png")
    assert np.array_equal(read_query(photo, tmp_path / "mask.png").mask, X > 60)
    assert read_query(photo, own=False).mask is None
    assert read_query(photo).how == OPAQUE
    assert overlap(read_query(photo, box=(10, 20, 41, 80)).mask, TRUTH & (X < 41)) > 0.99


def test_a_window_with_round_corners_is_no_cut_out(tmp_path: Path) -> None:
    array = np.dstack([np.where(TRUTH[..., None], (200, 40, 40), (90, 120, 90)), np.full((90, 120), 255)])
    array[0, 0, 3] = array[0, -1, 3] = 0
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / "a.png")
    assert "opaque" not in read_query(tmp_path / "a.png").how


# What stands alone


@pytest.mark.parametrize("ground", [255, 0, 240])
@pytest.mark.parametrize("box", [(700, 500, 730, 560), (10, 10, 60, 30), (300, 200, 340, 420)])
@pytest.mark.parametrize("noise", [0, 2])
def test_a_small_object_on_a_plain_ground_is_found(ground: int, box: tuple, noise: int) -> None:
    y, x = np.mgrid[:600, :800]
    half = np.array([box[2] - box[0], box[3] - box[1]]) / 2
    true = ((x - box[0]) / half[0] - 1) ** 2 + ((y - box[1]) / half[1] - 1) ** 2 < 1
    photo = np.where(true[..., None], (150, 90, 40), (ground,) * 3)
    photo = photo + np.random.default_rng(0).normal(0, noise, photo.shape) if noise else photo
    mask, how = automatic_mask(photo.clip(0, 255).astype(np.uint8))
    assert overlap(mask, true) > 0.95 and how == "automatic mask of the whole photo"


def test_a_square_object_on_white_is_its_own_mask() -> None:
    photo = np.full((300, 400, 3), 255, np.uint8)
    photo[100:140, 200:260] = (30, 60, 90)
    mask, how = automatic_mask(photo)
    assert mask[100:140, 200:260].all() and mask.sum() == 2400 and "because" not in how


# Photos of other formats


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "WEBP", "MPO", "GIF", "PPM"])
def test_photos_of_telephones_and_pages(tmp_path: Path, kind: str) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    frames = {"save_all": True, "append_images": [painted((0, 0, 9))]} if kind in ("MPO", "GIF") else {}
    painted((200, 40, 40), (90, 120, 90)).save(tmp_path / "photo", kind, **frames)
    photo = read_photo(tmp_path / "photo")
    assert photo.shape == (90, 120, 3) and overlap(photo[..., 0] > 145, TRUTH) > 0.95


@pytest.mark.parametrize(
    "content, said",
    [(b"", "empty"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"<!doctype html><p>", "web page"),
     (b"\xff\x0a" + bytes(99), "not that of JPEG")],
)  # fmt: skip
def test_what_stands_in_a_photos_place_is_called_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    for read in (read_photo, read_mask, read_query):
        with pytest.raises(ImageError, match=rf"photo\.jpg: .*{said}"):
            read(tmp_path / "photo.jpg")
