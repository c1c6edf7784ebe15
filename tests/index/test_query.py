"""A photo file becomes the array that the encoder expects, or one clear error."""

import numpy as np
import pytest
from PIL import Image

from cmiclib import silhouette
from cmiclib.config import Config
from cmiclib.errors import ImageError
from cmiclib.index import ShapeIndex
from cmiclib.index.query import QUERY_SIZE, embed, parse_box, read_query, with_silhouette
from cmiclib.io.foreground import ALONE
from cmiclib.io.images import read_mask


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
    masked, how = read_query(photo / "photo.png", photo / "mask.png")[:2]
    boxed = read_query(photo / "photo.png", box=(20, 10, 40, 20)).image
    assert masked.shape == (4, QUERY_SIZE, QUERY_SIZE)
    assert np.array_equal(masked[:3], boxed[:3])
    assert how == f"mask {photo / 'mask.png'}"
    assert blue_share(masked) == pytest.approx(20 * 10 / 24**2, abs=0.02)


@pytest.mark.parametrize(
    ("box", "said"),
    [((18, 8, 42, 22), "automatic mask from the box"), (None, ALONE)],
)
def test_where_no_mask_is_given_one_is_found_if_asked_for_and_it_says_so(photo, box, said):
    query = read_query(photo / "photo.png", box=box, automatic=True)
    assert query.how == said
    assert np.array_equal(query.mask, read_mask(photo / "mask.png"))
    blue = query.image[2] > 128
    assert np.array_equal(query.image[3] > 128, blue)
    side = max(42 - 18, 22 - 8) if box else 20  # the box cuts the square, else what was found
    assert blue.mean() == pytest.approx(20 * 10 / (1.2 * side) ** 2, abs=0.02)


@pytest.mark.parametrize(("box", "said"), [((20, 10, 40, 20), "box, no mask"), (None, "whole photo, no mask")])
def test_without_any_mask_the_channel_is_full_and_it_says_so(photo, box, said):
    pixels = np.asarray(Image.open(photo / "photo.png")).copy()
    pixels[:, ::3] //= 2  # no plain ground
    Image.fromarray(pixels).save(photo / "photo.png")
    query = read_query(photo / "photo.png", box=box)
    assert (query.image[3] == 255).all()
    assert query.mask is None and query.how == said


def test_a_box_is_known_in_the_crop(photo):
    query = read_query(photo / "photo.png", box=(20, 10, 40, 20))
    side = round(20 * 1.2)
    corners = np.array(query.box) * side
    np.testing.assert_allclose(corners, [2, 7, 22, 17])
    blue = query.image[2] > 128
    rows, columns = np.flatnonzero(blue.any(1)), np.flatnonzero(blue.any(0))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * side / QUERY_SIZE
    np.testing.assert_allclose(corners, found, atol=0.5)
    edge = read_query(photo / "photo.png", box=(-10, -10, 20, 100))  # what lies in the photo counts
    assert edge.box == pytest.approx((14 / 48, 4 / 48, 34 / 48, 44 / 48))
    for other in ({"mask": photo / "mask.png"}, {}, {"box": (18, 8, 42, 22), "automatic": True}):
        assert read_query(photo / "photo.png", **other).box is None


def test_in_a_box_the_mean_of_photo_and_soft_cut_out_is_the_query(photo, index, monkeypatch):
    boxed = read_query(photo / "photo.png", box=(20, 10, 40, 20))
    masked = read_query(photo / "photo.png", photo / "mask.png")
    soft = np.linspace(0, 1, QUERY_SIZE, dtype=np.float32) * np.ones((1, QUERY_SIZE, 1), np.float32)
    asked = []
    monkeypatch.setattr(silhouette, "silhouettes", lambda crops, boxes: asked.append(boxes) or soft)
    marked = with_silhouette(boxed, cutting(index))
    np.testing.assert_allclose(asked, [[boxed.box]])
    assert marked.how == "box, with a learnt silhouette" and np.array_equal(marked.soft, soft[0])
    found = embed(index, [masked, marked, boxed])
    plain = index.embed(np.stack([masked.image, boxed.image]))
    other = index.embed(silhouette.cut_softly(boxed.image[None], soft))[0]
    both = plain[1] + other
    np.testing.assert_allclose(found[[0, 2]], plain, atol=1e-6)
    np.testing.assert_allclose(found[1], both / both.norm(), atol=1e-6)


def test_a_mask_and_a_model_without_cut_outs_need_no_silhouette(photo, index):
    boxed, masked = (
        read_query(photo / "photo.png", **marked)
        for marked in ({"box": (20, 10, 40, 20)}, {"mask": photo / "mask.png"})
    )
    assert index.config.model.mask == "channel"
    assert with_silhouette(boxed, index) is boxed
    assert with_silhouette(masked, cutting(index)) is masked
    assert with_silhouette(boxed, ShapeIndex.from_arrays(np.ones((1, 2, 3)), np.eye(3), ["a"])) is boxed


def cutting(index: ShapeIndex) -> ShapeIndex:
    """The index as one of a model that cuts objects out."""
    config = index.config.model_dump()
    config["model"] |= {"mask": "cutout"}
    return ShapeIndex(index.views, index.attention, index.shape_ids, index.model, Config.model_validate(config))


def test_what_stands_alone_before_a_plain_ground_brings_its_mask_along(photo):
    query = read_query(photo / "photo.png")
    assert np.array_equal(query.mask, read_mask(photo / "mask.png")) and query.how == ALONE
    assert read_query(photo / "photo.png", own=False).mask is None
    assert read_query(photo / "photo.png", box=(20, 10, 40, 20)).mask is None, "a box says what counts"


def test_a_given_mask_is_never_replaced(photo):
    for automatic in (True, False):
        query = read_query(photo / "photo.png", photo / "mask.png", automatic=automatic)
        assert np.array_equal(query.mask, read_mask(photo / "mask.png")) and query.how.startswith("mask ")


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": (70, 0, 80, 10)}, "no area inside"),
        ({"box": (30, 10, 20, 20)}, "no area inside"),
        ({"box": (0, 0, 9, 9), "mask": "mask.png"}, "both given"),
    ],
)
def test_a_bad_box_is_one_error_that_names_the_photo(photo, options, message, automatic):
    options = {**options, **({"mask": photo / "mask.png"} if "mask" in options else {})}
    with pytest.raises(ImageError, match=message) as error:
        read_query(photo / "photo.png", **options, automatic=automatic)
    assert "photo.png" in str(error.value)


def test_masks_that_do_not_fit_are_one_error(photo):
    Image.new("L", (40, 60), 255).save(photo / "turned.png")
    Image.new("L", (60, 40)).save(photo / "empty.png")
    for name, said in (("turned.png", "40×60 pixels, its photo 60×40"), ("empty.png", "the mask is empty")):
        with pytest.raises(ImageError, match=said):
            read_query(photo / "photo.png", photo / name)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "", "1,2,3,4,5"])
def test_four_numbers_make_a_box(text):
    assert parse_box("1,2,3.5,4") == (1, 2, 3.5, 4)
    with pytest.raises(ImageError, match="not a box"):
        parse_box(text)
