"""Crops against Pillow, torchvision and closed forms; draws against torchvision's, by their statistics."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from cmiclib.augment import (
    augment_queries,
    augment_views,
    draw_crops,
    prepare_queries,
    prepare_views,
    resample,
)
from cmiclib.color import transfer_color
from cmiclib.config import AugmentConfig

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PLAIN = AugmentConfig(color="none")
SIDE = 40


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def photos():
    photos = torch.randint(0, 256, (6, 4, SIDE, SIDE), dtype=torch.uint8, generator=seeded(1))
    photos[:, 3] = 255 * (photos[:, 3] > 127)
    return photos


@pytest.mark.parametrize("size", [16, 23, 40, 56])
def test_resample_matches_pillow_box_by_box(photos, size):
    boxes = draw_crops(6, (0.3, 0.9), 0.0, seeded(2))
    flips = torch.tensor([True, False] * 3)
    result = resample(photos, size, boxes, flips)
    for image, box, flip, mine in zip(photos, boxes, flips, result, strict=True):
        left, top, width, height = (SIDE * box.double()).tolist()
        for channel, cut in zip(image.float().numpy(), mine, strict=True):
            expected = Image.fromarray(channel).resize(
                (size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
            )
            expected = np.asarray(expected)[:, ::-1] if flip else np.asarray(expected)
            np.testing.assert_allclose(cut, expected, atol=1e-2)  # of 255


@pytest.mark.parametrize("size", [16, 56])
def test_resample_matches_torchvision_on_whole_pixels(photos, size):
    pixels = (SIDE * draw_crops(6, (0.5, 0.9), 0.0, seeded(3))).round()
    flips = torch.tensor([True, True, False] * 2)
    result = resample(photos, size, pixels / SIDE, flips)
    for image, (left, top, width, height), flip, mine in zip(
        photos.float(), pixels.int().tolist(), flips, result, strict=True
    ):
        expected = tv.resized_crop(image, top, left, height, width, [size, size], antialias=True)
        expected = tv.hflip(expected) if flip else expected
        inside = (slice(None), slice(2, -2), slice(2, -2))  # torchvision's filter ends at the box, ours does not
        torch.testing.assert_close(mine[inside], expected[inside], atol=2e-3, rtol=0)


@pytest.mark.shared
@pytest.mark.parametrize("seed", range(6))
def test_released_crops_differ_by_8_bit_rounding_only(shared_root, seed):
    with np.load(shared_root / "parity" / "parity_augment.npz") as arrays:
        photo, mask = (torch.from_numpy(arrays[name]) for name in ("image_u8", "mask_u8"))
        views = torch.from_numpy(arrays["renderings_u8"])[:, None]
        drawn = {name: torch.from_numpy(arrays[f"seed{seed}/{name}"]) for name in (
            "query", "mask", "renderings", "affine_translate", "query_crop_ijhw", "rendering_crop_ijhw"
        )}  # fmt: skip
    top, left, height, width = drawn["query_crop_ijhw"].tolist()
    right, down = drawn["affine_translate"].tolist()
    box = torch.tensor([[left - right, top - down, width, height]]) / 64
    both = torch.cat((photo.permute(2, 0, 1), mask[None]))[None]
    difference = resample(both, 64, box)[0] / 255 - torch.cat((drawn["query"], drawn["mask"]))
    assert difference[:, 6:-6, 6:-6].abs().max() < 1 / 255  # further out it fills with black, we repeat the edge

    top, left, height, width = drawn["rendering_crop_ijhw"].T
    boxes = torch.stack((left, top, width, height), dim=1)[:3] / 64
    straight = resample(views[:3], 64, boxes)[:, 0] / 127.5 - 1
    for mine, theirs in zip(straight, drawn["renderings"], strict=True):
        difference = min((mine - theirs.flip(-1) if flip else mine - theirs).abs()[2:-2, 2:-2].max() for flip in (0, 1))
        assert difference < 2 / 255


@pytest.mark.parametrize("size", [16, 23, 64])
def test_whole_image_is_an_antialiased_resize(photos, size):
    expected = interpolate(photos.float(), (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(resample(photos, size), expected, atol=1e-3, rtol=0)
    assert torch.equal(resample(photos, SIDE), photos.float())


def test_outside_repeats_the_edge_and_inside_keeps_its_place():
    x = torch.arange(SIDE).float().expand(SIDE, SIDE)
    ramp = torch.stack((x, x.T))[None]  # channel 0 holds x, channel 1 holds y
    boxes = torch.tensor([[-0.2, 0.3, 0.5, 0.8]])
    result = resample(ramp, 20, boxes)
    centres = torch.arange(20).add(0.5) / 20
    x = ((-0.2 + 0.5 * centres) * SIDE - 0.5).clamp(0, SIDE - 1)
    y = ((0.3 + 0.8 * centres) * SIDE - 0.5).clamp(0, SIDE - 1)
    torch.testing.assert_close(result[0, 0], x.expand(20, 20), atol=0.5, rtol=0)
    torch.testing.assert_close(result[0, 1], y.expand(20, 20).T, atol=0.5, rtol=0)
    inside = (x > 2) & (x < SIDE - 3)
    torch.testing.assert_close(result[0, 0, 5, inside], x[inside], atol=1e-4, rtol=0)
    assert (result[0, 0, :, :7] < 0.5).all()


def test_crops_are_distributed_as_torchvisions():
    side, scale = 10_000, (0.65, 0.9)
    boxes = draw_crops(3000, scale, 0.0, seeded(4))
    torch.manual_seed(5)
    blank = torch.empty(1, side, side, device="meta")
    theirs = np.array([RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(3000)])
    top, left, height, width = (theirs / side).T
    mine = boxes.numpy().T
    for ours, other in (
        (mine[2] * mine[3], width * height),
        (mine[2] / mine[3], width / height),
        (mine[0], left),
        (mine[1], top),
    ):
        assert ks_2samp(ours, other).pvalue > 1e-3


@pytest.mark.parametrize("scale", [(0.85, 0.95), (0.65, 0.9), (1.0, 1.0)])
def test_crops_keep_their_bounds(scale):
    left, top, width, height = draw_crops(2000, scale, 0.0, seeded(6)).T
    area = width * height
    assert scale[0] - 1e-5 <= area.min() and area.max() <= scale[1] + 1e-5
    assert (left >= 0).all() and (top >= 0).all()
    assert (left + width <= 1 + 1e-6).all() and (top + height <= 1 + 1e-6).all()
    assert (width / height).min() >= 0.749 and (width / height).max() <= 1.334


@pytest.mark.parametrize("aspect", [1.0, 1.1])
def test_crops_can_keep_more_of_their_proportions(aspect):
    _, _, width, height = draw_crops(2000, (0.5, 0.9), 0.0, seeded(6), aspect).T
    ratio = torch.maximum(width / height, height / width)
    assert ratio.max() <= aspect + 1e-5 and ratio.max() > 0.99 * aspect


def test_shifts_are_uniform_and_bounded():
    corner = draw_crops(4000, (1.0, 1.0), 0.05, seeded(7))[:, :2]  # the whole image: only the shift is left
    assert corner.abs().max() <= 0.05
    assert corner.abs().max() > 0.0499
    assert corner.mean(dim=0).abs().max() < 4 * 0.05 / (3 * 4000) ** 0.5
    assert np.corrcoef(corner.T.numpy())[0, 1] == pytest.approx(0, abs=0.06)


def test_half_of_the_photos_and_of_the_views_are_mirrored():
    left_half = torch.zeros(1000, 4, 8, 8, dtype=torch.uint8)
    left_half[..., :4] = 255
    for result in (
        augment_queries(left_half, PLAIN, 8, seeded(8))[:, 0],
        augment_views(left_half[:250], PLAIN, 8, seeded(8)).flatten(0, 2),
    ):
        share = (result[:, :, -2:].mean(dim=(1, 2)) > 0).float().mean().item()
        assert share == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)
        assert len({round(value, 4) for value in result.mean(dim=(1, 2)).tolist()}) > 300  # crops differ
    never = augment_queries(left_half, AugmentConfig(color="none", flip=False), 8, seeded(8))
    assert (never[:, :, :, :2] == 1).all()


def test_photo_and_mask_share_one_draw(photos):
    photos[:, :3] = photos[:, 3:]  # the photo shows its own mask
    result = augment_queries(photos, PLAIN, 24, seeded(9))
    assert torch.equal(result[:, :1] >= 0, result[:, 3:] == 1)
    assert set(result[:, 3].unique().tolist()) == {-1.0, 1.0}


def test_each_view_is_cut_on_its_own(photos):
    same = photos[:1, :1].expand(2, 5, SIDE, SIDE)
    result = augment_views(same, PLAIN, 24, seeded(10)).flatten(0, 2)  # (10, 24, 24)
    distance = (result[:, None] - result[None]).abs().amax(dim=(2, 3))
    assert (distance + torch.eye(10) > 0.1).all()


@pytest.mark.parametrize("color", ["lab", "reference", "jitter", "none"])
def test_a_seed_decides_everything(photos, color):
    config = AugmentConfig(color=color)
    torch.manual_seed(0)
    first = augment_queries(photos, config, 24, seeded(11))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in training, and without effect
        again = augment_queries(photos, config, 24, seeded(11))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment_queries(photos, config, 24, seeded(12)))
    assert first.shape == (6, 4, 24, 24) and first.dtype == torch.float32
    assert first.abs().max() <= 1


@pytest.mark.parametrize("color", ["lab", "reference"])
def test_colours_come_from_another_photo(photos, color):
    pair = photos[:2]
    plain = augment_queries(pair, PLAIN, 24, seeded(13))
    result = augment_queries(pair, AugmentConfig(color=color), 24, seeded(13))
    rgb = (plain[:, :3] + 1) / 2
    expected = 2 * transfer_color(rgb.flip(0), rgb, color) - 1  # of two photos, the other one
    torch.testing.assert_close(result[:, :3], expected, atol=1e-5, rtol=0)
    assert torch.equal(result[:, 3], plain[:, 3])


def test_a_single_photo_keeps_its_colours(photos):
    alone = photos[:1]
    result = augment_queries(alone, AugmentConfig(), 24, seeded(14))
    torch.testing.assert_close(result, augment_queries(alone, PLAIN, 24, seeded(14)), atol=1e-4, rtol=0)


def test_mask_ranges(photos):
    released = AugmentConfig(color="none", mask_range="reference")
    training = augment_queries(photos, released, 24, seeded(15))
    centred = augment_queries(photos, PLAIN, 24, seeded(15))
    assert set(training[:, 3].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(2 * training[:, 3] - 1, centred[:, 3])
    assert set(prepare_queries(photos, 24)[:, 3].unique().tolist()) == {-1.0, 1.0}


def test_prepared_images_hold_the_stored_values(photos):
    queries, views = prepare_queries(photos, SIDE), prepare_views(photos, SIDE)
    expected = photos.float() / 127.5 - 1
    torch.testing.assert_close(queries, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(views, expected.unsqueeze(2), atol=1e-6, rtol=0)
    assert prepare_views(photos, 24).shape == (6, 4, 1, 24, 24)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 4, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8)])
def test_wrong_batches_name_the_cure(wrong):
    for call in (
        lambda: augment_queries(wrong, PLAIN, 8, seeded()),
        lambda: augment_views(wrong, PLAIN, 8, seeded()),
        lambda: prepare_queries(wrong, 8),
        lambda: prepare_views(wrong, 8),
    ):
        with pytest.raises(ValueError, match=r"pass uint8 \(B, ., S, S\)"):
            call()
    with pytest.raises(ValueError, match="pass uint8"):
        prepare_queries(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 8)


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("color", ["lab", "reference", "jitter"])
def test_devices_agree(photos, color):
    config = AugmentConfig(color=color)
    expected = augment_queries(photos, config, 24, seeded(16))
    result = augment_queries(photos.cuda(), config, 24, seeded(16))
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), expected, atol=1e-4, rtol=0)
