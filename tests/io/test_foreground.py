"""An object on another background is cut out; what cannot be cut is said."""

import numpy as np
import pytest

from cmiclib.errors import ImageError
from cmiclib.io.foreground import automatic_mask


def scene(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A speckled orange disc, in the middle of the left half, on speckled green and gray stripes; and its mask."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    mask = (x - width * 0.4) ** 2 + (y - height * 0.5) ** 2 < (0.3 * height) ** 2  # (H, W)
    ground = np.where((x // 20 % 2 == 0)[..., None], (60, 140, 60), (120, 120, 120))
    photo = np.where(mask[..., None], (230, 140, 20), ground) + rng.normal(0, 8, (height, width, 3))
    return photo.clip(0, 255).astype(np.uint8), mask


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("size", [(120, 160), (500, 900), (61, 47)], ids=str)
@pytest.mark.parametrize("boxed", [True, False])
def test_the_object_is_found_in_photos_of_every_size(size: tuple[int, int], boxed: bool) -> None:
    photo, true = scene(*size)
    rows, columns = np.flatnonzero(true.any(1)), np.flatnonzero(true.any(0))
    box = (columns[0] - 1.5, rows[0] - 1.5, columns[-1] + 2.5, rows[-1] + 2.5) if boxed else None
    mask, how = automatic_mask(photo, box)
    assert mask.dtype == bool and mask.shape == size
    assert overlap(mask, true) > 0.93
    assert how == ("automatic mask from the box" if boxed else "automatic mask of the whole photo")


def test_it_is_deterministic_and_leaves_the_photo_as_it_is() -> None:
    photo, _ = scene()
    before = photo.copy()
    first = automatic_mask(photo).mask
    assert np.array_equal(first, automatic_mask(photo).mask) and np.array_equal(photo, before)


def test_the_mask_stays_in_the_box_whatever_lies_beside_it() -> None:
    photo, _ = scene()
    mask, _ = automatic_mask(photo, (20, 30, 64, 90))  # the left half of the disc
    assert mask.any() and not mask[:, 64:].any() and not mask[:30].any() and not mask[90:].any()


def test_specks_are_dropped_and_holes_stay() -> None:
    photo, true = scene(300, 400)
    hole = np.zeros_like(true)
    hole[135:165, 145:175] = True
    photo[hole] = photo[5:35, 145:175].reshape(-1, 3)  # one sees through to the ground
    photo[20:24, 340:344] = (230, 140, 20)
    mask = automatic_mask(photo).mask
    assert overlap(mask, true & ~hole) > 0.93
    assert mask[hole].mean() < 0.2 and not mask[:, 330:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 5), (7, 200), (2, 3000)], ids=str)
@pytest.mark.parametrize("box", [None, (0, 0, 1, 1)])
def test_a_photo_too_small_to_cut_is_its_own_mask_and_it_says_so(size: tuple[int, int], box) -> None:
    mask, how = automatic_mask(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8), box)
    assert mask.sum() == (1 if box else size[0] * size[1])
    assert how == f"the {'box' if box else 'whole photo'} as mask, because the automatic one kept next to nothing"


@pytest.mark.parametrize("colour", [0, 127, 255])
def test_a_photo_of_one_colour_has_no_object_and_is_its_own_mask(colour: int) -> None:
    mask, how = automatic_mask(np.full((60, 80, 3), colour, np.uint8))
    assert mask.all() and how.startswith("the whole photo as mask, because")


def test_an_object_that_fills_its_box_leaves_nothing_to_cut() -> None:
    photo = np.full((90, 90, 3), (30, 60, 200), np.uint8)
    photo[20:70, 20:70] = (230, 140, 20)
    mask, how = automatic_mask(photo, (20, 20, 70, 70))
    assert mask[20:70, 20:70].all() and mask.sum() == 2500
    assert how == "the box as mask, because the automatic one kept all of it"


@pytest.mark.parametrize("box", [(200, 0, 240, 40), (30, 10, 20, 20), (-9, 0, 0, 40), (float("nan"), 0, 9, 9)])
def test_a_box_without_area_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ImageError, match="no area inside"):
        automatic_mask(scene()[0], box)
