"""Photos and masks of every kind, and the square crop."""

from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import png_claiming
from PIL import Image

from cmiclib.errors import ImageError
from cmiclib.io import images
from cmiclib.io.images import read_mask, read_photo, square_crop

RED, BLUE = (250, 20, 30), (10, 40, 240)


@pytest.fixture
def two_colors() -> Image.Image:
    """40 wide, 20 high; the left half red, the right half blue."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (20, 0, 40, 20))
    return image


def _close(pixel: np.ndarray, color: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool((np.abs(pixel.astype(int) - color) <= tolerance).all())


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK"])
def test_modes_give_the_same_rgb(tmp_path: Path, two_colors: Image.Image, mode: str) -> None:
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    (two_colors.quantize(4) if mode == "P" else two_colors.convert(mode)).save(path)
    photo = read_photo(path)
    assert photo.dtype == np.uint8 and photo.shape == (20, 40, 3)
    assert _close(photo[10, 5], RED) and _close(photo[10, 35], BLUE)


def test_sixteen_bit_gray_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768], [65535, 257]], np.uint16)).save(tmp_path / "deep.png")
    assert read_photo(tmp_path / "deep.png")[..., 1].tolist() == [[0, 127], [255, 1]]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize(
    ("orientation", "shape", "red_at"), [(1, (20, 40), (10, 5)), (6, (40, 20), (5, 10)), (3, (20, 40), (10, 35))]
)
def test_exif_rotation(tmp_path: Path, two_colors: Image.Image, orientation: int, shape: tuple, red_at: tuple) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_colors.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    photo = read_photo(tmp_path / "photo.jpg")
    assert photo.shape[:2] == shape
    assert _close(photo[red_at], RED, 30)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored(tmp_path: Path, two_colors: Image.Image) -> None:
    two_colors.save(tmp_path / "photo.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage")
    assert read_photo(tmp_path / "photo.jpg").shape == (20, 40, 3)


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image at all")
    with pytest.raises(ImageError, match=r"notes\.jpg.*cannot be read as an image"):
        read_photo(tmp_path / "notes.jpg")
    with pytest.raises(ImageError, match="no such file"):
        read_photo(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="this is a folder, not a photo"):
        read_photo(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cut_off_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="cannot be read"):
        read_photo(tmp_path / f"half.{suffix}")


def test_pixel_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(30_000, 30_000))
    with pytest.raises(ImageError, match="smaller"):
        read_photo(tmp_path / "bomb.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    Image.new("L", (10, 10)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="10×10 pixels are more than"):
        read_photo(tmp_path / "large.png")


@pytest.mark.parametrize("form", ["gray", "bits", "zero-one", "labels", "alpha", "deep", "deep zero-one"])
def test_masks_of_every_kind(tmp_path: Path, form: str) -> None:
    truth = np.zeros((6, 8), bool)
    truth[1:4, 2:7] = True
    array = truth.astype(np.uint8)
    image = {
        "gray": Image.fromarray(array * 255),
        "bits": Image.fromarray(array * 255).convert("1"),
        "zero-one": Image.fromarray(array),
        "alpha": Image.fromarray(np.dstack([np.full((6, 8, 3), 90, np.uint8), array * 255])),
        "deep": Image.fromarray(array.astype(np.uint16) * 65535),
        "deep zero-one": Image.fromarray(array.astype(np.uint16)),
    }.get(form)
    if image is None:
        image = Image.fromarray(array, mode="P")
        image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == truth).all()


def test_mask_of_another_size(tmp_path: Path) -> None:
    Image.new("L", (8, 6), 255).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match=r"mask\.png: the mask is 8×6 pixels, its photo 6×8"):
        read_mask(tmp_path / "mask.png", size_of=np.zeros((8, 6, 3), np.uint8))
    with pytest.raises(ImageError, match="the mask is 8×6 pixels, the photo 6×8"):
        square_crop(np.zeros((8, 6, 3), np.uint8), np.ones((6, 8), bool))


def test_crop_is_the_square_around_the_mask() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    mask = np.zeros((50, 60), bool)
    mask[20:30, 10:30] = True  # 20 wide, 10 high, centre (20, 25); side 20 · 1.2 = 24
    crop = square_crop(image, mask, margin=0.1, size=24)
    assert (crop[:3] == image[13:37, 8:32].transpose(2, 0, 1)).all()
    assert (crop[3] == mask[13:37, 8:32] * 255).all()


def test_crop_beyond_the_border_repeats_it_without_mask() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 30, 3), dtype=np.uint8)
    crop = square_crop(image, np.ones((10, 30), bool), margin=0, size=30)
    assert (crop[:3, :10] == image[0].T[:, None]).all() and (crop[:3, 20:] == image[-1].T[:, None]).all()
    assert (crop[:3, 10:20] == image.transpose(2, 0, 1)).all()
    assert not crop[3, :10].any() and not crop[3, 20:].any() and (crop[3, 10:20] == 255).all()


def test_crop_without_mask() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    whole = square_crop(image, size=20)
    assert (whole[:3] == image.transpose(2, 0, 1)).all() and (whole[3] == 255).all()
    boxed = square_crop(image, box=(4, 6, 14, 16), margin=0, size=10)
    assert (boxed[:3] == image[6:16, 4:14].transpose(2, 0, 1)).all() and (boxed[3] == 255).all()


def test_crop_of_one_pixel_and_huge_margins_stay_small() -> None:
    image = np.zeros((5, 5, 3), np.uint8)
    mask = np.zeros((5, 5), bool)
    mask[4, 0] = True
    assert square_crop(image, mask, size=8).shape == (4, 8, 8)
    assert square_crop(image, box=(-1e9, -1e9, 1e9, 1e9), size=8).shape == (4, 8, 8)


def test_unusable_boxes_and_masks() -> None:
    image = np.zeros((5, 6, 3), np.uint8)
    with pytest.raises(ImageError, match="the mask is empty"):
        square_crop(image, np.zeros((5, 6), bool))
    for box in ((3, 3, 3, 4), (4, 1, 2, 3), (6, 0, 9, 5), (float("nan"), 0, 3, 3)):
        with pytest.raises(ImageError, match="no area inside the photo of 6×5"):
            square_crop(image, box=box)
