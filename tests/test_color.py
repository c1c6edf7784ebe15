"""Colour transfer against the authors' arrays, scikit-image and what Reinhard's transfer promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.color import rgb_to_lab
from skimage.color import lab2rgb, rgb2lab
from torchvision.transforms import functional as tv

from cmiclib import color
from cmiclib.color import exchange_colors, jitter_color, recolor, transfer_color

PARITY = Path(__file__).parent / "data" / "parity" / "parity_color.npz"
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]
# Largest difference of each image of a case from the released code's result, by what the image holds.
USUAL, SATURATED = 2e-5, 7e-4
TOLERANCES = {
    "smooth": [USUAL] * 4,
    "edge_source": [USUAL, USUAL, SATURATED, SATURATED],
    "edge_target": [1.0, USUAL, USUAL, USUAL],  # number 0: one colour, so rounding decides
    "edge_both": [USUAL] * 4,
}


@pytest.fixture(scope="module")
def parity():
    with np.load(PARITY) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture
def photos():
    generator = torch.Generator().manual_seed(0)
    return 0.25 + 0.5 * torch.rand(2, 5, 3, 24, 24, generator=generator)


@pytest.mark.parametrize("case", TOLERANCES)
def test_reference_variant_matches_the_released_code(parity, case):
    result = transfer_color(parity[f"{case}/source"], parity[f"{case}/target"], "reference")
    worst = (result - parity[f"{case}/out"]).abs().amax(dim=(1, 2, 3))
    assert result.dtype == torch.float32
    assert ((result >= 0) & (result <= 1)).all()
    assert (worst <= torch.tensor(TOLERANCES[case])).all(), worst


@pytest.mark.parametrize("variant", ["lab", "reference"])
def test_an_exchange_within_a_batch_is_the_transfer_pair_by_pair(photos, variant):
    images, order = photos[0], torch.tensor([3, 0, 0, 4, 1])
    exchanged = exchange_colors(images, order, variant)
    assert torch.equal(exchanged, recolor(images[order], images, variant)) and exchanged.dtype == images.dtype


@pytest.mark.parametrize("case", TOLERANCES)
def test_reference_stages_match_the_released_code(parity, case):
    source, target = parity[f"{case}/source"].double(), parity[f"{case}/target"].double()
    for image, stage in ((255 * source, "source_lab255"), (255 * target, "target_lab255"), (target, "target_lab01")):
        torch.testing.assert_close(color._lab_released(image).float(), parity[f"{case}/{stage}"], rtol=1e-6, atol=1e-4)
    back = color._rgb_released(color._lab_released(target))
    assert (back - target).abs().max() < 1e-4  # the two matrices of the formula are rounded


def test_reference_variant_does_not_round_in_between(parity):
    source, target = parity["smooth/source"], parity["smooth/target"]
    exact = transfer_color(source.double(), target.double(), "reference")
    torch.testing.assert_close(transfer_color(source, target, "reference").double(), exact, atol=1e-7, rtol=0)


@pytest.mark.parametrize("case", TOLERANCES)
def test_lab_variant_matches_reinhard_in_numpy(parity, case):
    result = transfer_color(parity[f"{case}/source"], parity[f"{case}/target"], "lab")
    assert (result - parity[f"{case}/textbook_cielab01"]).abs().max() < USUAL


def test_lab_variant_matches_scikit_image(photos):
    source, target = photos
    result = transfer_color(source, target)
    for mine, style, content in zip(result, source, target, strict=True):
        style, content = (rgb2lab(image.double().permute(1, 2, 0).numpy()) for image in (style, content))
        moments = [(lab.mean((0, 1)), lab.std((0, 1), ddof=1)) for lab in (style, content)]
        (style_mean, style_std), (content_mean, content_std) = moments
        expected = lab2rgb((content - content_mean) * style_std / content_std + style_mean).clip(0, 1)
        np.testing.assert_allclose(mine.permute(1, 2, 0), expected, atol=2e-3)  # its white point has more digits


def test_result_has_the_moments_of_the_source(photos):
    source, target = (0.4 + 0.2 * image for image in photos.double())  # far from the gamut's border: nothing clips
    for lab in (rgb_to_lab, color._lab_released):
        variant = "lab" if lab is rgb_to_lab else "reference"
        scale = 1 if variant == "lab" else 255
        result, wanted = lab(scale * transfer_color(source, target, variant)), lab(scale * source)
        torch.testing.assert_close(result.mean((2, 3)), wanted.mean((2, 3)), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(result.std((2, 3)), wanted.std((2, 3)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("variant", ["lab", "reference"])
def test_own_colours_change_nothing(photos, variant):
    torch.testing.assert_close(transfer_color(photos[0], photos[0], variant), photos[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("variant", ["lab", "reference"])
def test_pairs_are_independent_and_sizes_may_differ(photos, variant):
    source, target = photos
    alone = transfer_color(source[2:3], target[2:3, :, :, :17], variant)
    together = transfer_color(source, target[:, :, :, :17], variant)
    assert alone.shape == (1, 3, 24, 17)
    torch.testing.assert_close(alone[0], together[2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("variant", ["lab", "reference"])
def test_dtypes_and_devices_agree(photos, variant, dtype, tolerance, device):
    expected = transfer_color(*photos.double(), variant)
    with torch.autocast(device, dtype=torch.bfloat16):  # must not lower the precision inside
        result = transfer_color(*photos.to(device, dtype), variant)
    assert result.dtype == dtype
    torch.testing.assert_close(result.cpu().double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image[0], "pass .B, 3, H, W."),
        (lambda image: image[:, :2], "pass .B, 3, H, W."),
        (lambda image: image[:, :, :1, :1], "two pixels"),
        (lambda image: (255 * image).byte(), "divide by 255"),
        (lambda image: 255 * image, "scale RGB"),
        (lambda image: image - 0.5, "scale RGB"),
        (lambda image: image.clone().fill_(torch.nan), "scale RGB"),
        (lambda image: image[:2], "one source for each target"),
    ],
)
def test_wrong_input_names_the_cure(photos, change, message):
    with pytest.raises(ValueError, match=message):
        transfer_color(change(photos[0]), photos[1])


def test_unknown_variant(photos):
    with pytest.raises(ValueError, match="'lab' or 'reference'"):
        transfer_color(*photos, variant="cielab")


def test_jitter_matches_torchvision_one_by_one(photos):
    images = photos[0]
    result = jitter_color(images, torch.Generator().manual_seed(4))
    draws = 2 * torch.rand(4, 5, generator=torch.Generator().manual_seed(4)) - 1
    for mine, image, (b, c, s, h) in zip(result, images, draws.T.tolist(), strict=True):
        image = tv.adjust_contrast(tv.adjust_brightness(image, 1 + 0.4 * b), 1 + 0.4 * c)
        expected = tv.adjust_hue(tv.adjust_saturation(image, 1 + 0.4 * s), 0.1 * h)
        torch.testing.assert_close(mine, expected, atol=3e-3, rtol=0)  # their grey weights differ in a digit
