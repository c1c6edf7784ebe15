"""What a run sees of a benchmark: fewer views, silhouettes, wrong masks."""

import numpy as np
import pytest

from cmiclib.study.variants import BLOCK, Change, apply_variant, evenly_spaced, seen_photos, silhouettes, wrong_masks


def test_by_default_nothing_is_apply_variant(tiny_benchmark):
    assert apply_variant(tiny_benchmark, Change()) is tiny_benchmark


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (3, [0, 4, 8]), (6, [0, 2, 4, 6, 8, 10]), (5, [0, 2, 4, 7, 9])]
)
def test_views_are_spread_evenly_from_the_front(tiny_benchmark, count, expected):
    assert evenly_spaced(12, count).tolist() == expected
    seen = apply_variant(tiny_benchmark, Change(views=count))
    np.testing.assert_array_equal(seen.views, tiny_benchmark.views[:, expected])
    assert seen.protocol.azimuths == tuple(30 * i for i in expected)
    assert seen.images is tiny_benchmark.images


def test_a_silhouette_is_black_wherever_the_shape_is(tiny_benchmark):
    seen = apply_variant(tiny_benchmark, Change(shading="none")).views
    assert set(np.unique(seen)) == {0, 255}
    np.testing.assert_array_equal(seen == 0, tiny_benchmark.views < 255)
    assert silhouettes(np.full((1, 1, 2, 2), 200, np.uint8), background=200).min() == 200


def test_masks_are_wrong_in_the_same_way_each_time_and_more_so_the_larger_the_error(tiny_benchmark):
    exact = tiny_benchmark.images[:, 3] >= 128
    overlap = []
    for error in (0.6, 0.8, 1.0):
        seen = apply_variant(tiny_benchmark, Change(mask_error=error))
        again = apply_variant(tiny_benchmark, Change(mask_error=error))
        np.testing.assert_array_equal(seen.images, again.images)
        np.testing.assert_array_equal(seen.images[:, :3], tiny_benchmark.images[:, :3])
        mask = seen.images[:, 3] == 255
        assert set(np.unique(seen.images[:, 3])) == {0, 255} and mask.any(axis=(1, 2)).all()
        overlap.append((mask & exact).sum() / (mask | exact).sum())
    assert 1 > overlap[0] > overlap[1] > overlap[2] > 0.3


def test_a_mask_that_is_not_known_stays_unknown():
    masks = np.stack([np.full((32, 32), 255), np.pad(np.full((16, 16), 255), 8)]).astype(np.uint8)
    wrong = wrong_masks(masks, 1.0)
    assert (wrong[0] == 255).all() and (wrong[1] != masks[1]).any()


def test_each_change_has_its_own_hash(tiny_benchmark):
    changes = [{}, {"views": 3}, {"views": 6}, {"shading": "none"}, {"mask_error": 0.5}, {"mask_error": 1.0}]
    hashes = {apply_variant(tiny_benchmark, Change(**change)).hash for change in changes}
    assert len(hashes) == len(changes)


def test_chosen_photos_have_the_masks_that_the_variant_saw(tiny_benchmark):
    rows = [5, 0, 2]
    seen = apply_variant(tiny_benchmark, Change(mask_error=0.8)).images
    np.testing.assert_array_equal(seen_photos(tiny_benchmark, rows, Change(mask_error=0.8)), seen[rows])
    np.testing.assert_array_equal(seen_photos(tiny_benchmark, rows, Change(views=3)), tiny_benchmark.images[rows])
    bare = seen_photos(tiny_benchmark, rows, Change(), masked=False)
    assert (bare[:, 3] == 255).all()
    np.testing.assert_array_equal(bare[:, :3], tiny_benchmark.images[rows, :3])


def test_chosen_masks_are_those_of_all_across_blocks():
    masks = np.zeros((BLOCK + 40, 16, 16), np.uint8)
    masks[:, 4:12, 4:12] = 255
    rows = [BLOCK + 39, 3, BLOCK, BLOCK - 1]
    np.testing.assert_array_equal(wrong_masks(masks, 1.0, rows), wrong_masks(masks, 1.0)[rows])
