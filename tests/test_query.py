"""A photo file becomes the array that the encoder expects, or one clear error."""

import numpy as np
import pytest
from PIL import Image

from cmiclib.errors import ImageError
from cmiclib.query import QUERY_SIZE, load_query, parse_box


@pytest.fixture
def photo(tmp_path):
    """A 60 × 40 photo, red but for a blue object at x 20–39, y 10–19, and its mask."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = 255
    image[10:20, 20:40] = (0, 0, 255)
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray((image[..., 2] > 0).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    return tmp_path


def blue_share(query):
    return float((query[2] > 128).mean())


def test_mask_and_box_cut_the_same_square(photo):
    masked, how = load_query(photo / "photo.png", photo / "mask.png")
    boxed, _ = load_query(photo / "photo.png", box=(20, 10, 40, 20))
    assert masked.shape == (4, QUERY_SIZE, QUERY_SIZE)
    assert np.array_equal(masked[:3], boxed[:3])
    assert "mask.png" in how
    assert blue_share(masked) == pytest.approx(20 * 10 / 24**2, abs=0.02)


def test_without_a_mask_the_mask_channel_is_full_and_it_says_so(photo):
    query, how = load_query(photo / "photo.png")
    assert (query[3] == 255).all()
    assert how == "whole photo, no mask"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": (70, 0, 80, 10)}, "no area inside"),
        ({"box": (30, 10, 20, 20)}, "no area inside"),
        ({"box": (0, 0, 9, 9), "mask": "mask.png"}, "both given"),
    ],
)
def test_a_bad_box_is_one_error_that_names_the_photo(photo, options, message):
    options = {**options, **({"mask": photo / "mask.png"} if "mask" in options else {})}
    with pytest.raises(ImageError, match=message) as error:
        load_query(photo / "photo.png", **options)
    assert "photo.png" in str(error.value)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "", "1,2,3,4,5"])
def test_four_numbers_make_a_box(text):
    assert parse_box("1,2,3.5,4") == (1, 2, 3.5, 4)
    with pytest.raises(ImageError, match="not a box"):
        parse_box(text)
