"""timm's networks in the form in which encoders use them."""

import pytest
import torch
from torch.nn import functional as F

from cmiclib.config import ModelConfig
from cmiclib.encoders import Encoder
from cmiclib.engine.backbones import Scale, make_backbone, scale_of
from cmiclib.errors import ConfigError

FAMILIES = ("test_vit", "test_vit2", "test_convnext", "mobilenetv4_conv_small_035", "test_resnet")
STAGES = {"test_vit": 7, "test_vit2": 9}  # stem and blocks; the others have four or five stages


def make(name: str, channels: int = 3, **settings: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(name, channels, ModelConfig(dim=8, image_size=64, **settings)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_the_network_and_the_cells_of_its_last_maps(name: str) -> None:
    encoder, images = make(name, grid=2), torch.rand(2, 3, 64, 64) * 2 - 1
    shown = encoder.scale(images)
    with torch.no_grad():
        features = encoder.features(images)
        maps = encoder.backbone.forward_intermediates(shown, indices=1, norm="vit" in name, intermediates_only=True)
        torch.testing.assert_close(features[:, : encoder.whole], encoder.backbone(shown), rtol=1e-5, atol=1e-5)
    cells = F.adaptive_avg_pool2d(maps[-1], 2).flatten(1)
    torch.testing.assert_close(features[:, encoder.whole :], cells, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_stages_keep_all_that_runs_before_the_others(name: str) -> None:
    """Whatever number is frozen, the result is the same; what learns is what runs afterwards, tokens included."""
    free, images = make(name, 4, grid=2), torch.rand(2, 4, 64, 64) * 2 - 1
    with torch.no_grad():
        rows = free(images)
    count = len(free.stages)
    assert count == STAGES.get(name, count)
    for frozen in (1, 2, count):
        encoder = make(name, 4, grid=2, frozen=frozen)
        torch.testing.assert_close(encoder(images), rows, rtol=1e-4, atol=1e-5)
        encoder.train()(images).sum().backward()
        fixed = {n for n, p in encoder.backbone.named_parameters() if not p.requires_grad}
        assert all((p.grad is None) == (n in fixed) for n, p in encoder.backbone.named_parameters())
        first = next(n for n, _ in encoder.backbone.named_parameters())
        assert first in fixed and (len(fixed) == len([*encoder.backbone.parameters()])) == (frozen == count)


def test_more_stages_than_there_are() -> None:
    with pytest.raises(ConfigError, match="test_vit has 7 stages, 8"):
        make("test_vit", frozen=8)


def test_pictures_are_scaled_as_the_weights_expect_it_and_masks_stay() -> None:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.rand(2, 4, 5, 5)
    wanted = (images[:, :3] - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    scale = make("resnet10t", 4).scale
    assert isinstance(scale, Scale)
    scaled = scale(2 * images - 1)
    torch.testing.assert_close(scaled[:, :3], wanted)
    torch.testing.assert_close(scaled[:, 3:], 2 * images[:, 3:] - 1)
    gray = images[:, :1]
    torch.testing.assert_close(
        make("resnet10t", 1).scale(2 * gray - 1), ((gray - mean.view(3, 1, 1)) / std.view(3, 1, 1)).mean(1, True)
    )


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_the_networks_of_the_report_see_pictures_as_they_are(name: str) -> None:
    images = torch.rand(1, 3, 4, 4)
    assert scale_of(make_backbone(name, 3, 64)[0], 3)(images) is images


def test_the_scale_is_no_part_of_a_run_and_moves_with_the_encoder() -> None:
    encoder = make("resnet10t", frozen=2).double()
    assert not any("scale" in name for name in encoder.state_dict())
    assert encoder(torch.rand(1, 3, 64, 64, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    "name, problem",
    [("resnet50.nonsense", "Invalid pretrained tag"), ("nonsense", "no such"), ("hf-hub:some/net", "no such")],
)
def test_a_name_or_tag_that_timm_does_not_have_is_refused(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown backbone '{name}' \(.*{problem}"):
        make_backbone(name, 3, 64)


def test_pictures_that_patches_do_not_fill_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"squares of 16 pixels[\s\S]*model\.image_size=32 or 48"):
        make_backbone("test_vit", 3, 40)
