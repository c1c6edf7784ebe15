"""Folded stages compute what the stages compute, and follow their weights."""

from copy import deepcopy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from cmiclib.config import ModelConfig
from cmiclib.encoders import Encoder
from cmiclib.engine.backbones import make_backbone, split
from cmiclib.engine.folded import EvenlyPadded, Folded, fold
from cmiclib.weights import PACKAGED

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BACKBONES = ("resnet10t", "resnet18", "resnet50", "tf_efficientnet_b0", "mobilenetv4_conv_small_035", PACKAGED)


def shaken(net: nn.Module) -> nn.Module:
    """Weights and statistics as after a training: none is 0 or 1."""
    torch.manual_seed(0)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand_like(value)
            value.copy_(0.5 + noise if "var" in name else value + 0.1 * (noise - 0.5))
    return net.double().eval()


@pytest.mark.parametrize("side", [64, 75, 96])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_folded_backbone_gives_the_maps_of_the_backbone(backbone, side):
    net = make_backbone(backbone, 3, side)[0]
    stages, top, _ = split(net, backbone, 3, side)
    whole = nn.Sequential(*stages, *top).double().eval()
    shaken(net)
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fold(whole)(images), whole(images), **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_of_the_original_changes(backbone):
    net = shaken(make_backbone(backbone, 3, 64)[0])
    before = deepcopy(net.state_dict())
    fold(net)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_every_normalisation_of_the_packaged_network_is_folded_and_no_map_is_padded_by_copying():
    folded = fold(make_backbone(PACKAGED, 3, 64)[0])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    padded = [module for module in folded.modules() if isinstance(module, EvenlyPadded)]
    assert len(padded) == sum(isinstance(module, Conv2dSame) for module in folded.modules()) == 5


@pytest.mark.parametrize("height, width", [(8, 8), (8, 9), (9, 8), (9, 9), (2, 4), (1, 6)])
@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("groups", [1, 4])
def test_padding_alike_equals_tensorflows(height, width, side, groups):
    torch.manual_seed(1)
    conv = Conv2dSame(4, 8, side, 2, groups=groups).double()
    maps = torch.randn(2, 4, height, width, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(EvenlyPadded(conv)(maps), conv(maps), **EXACT)


def test_a_normalisation_that_is_not_of_the_convolution_before_it_stays():
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))
    folded = fold(shaken(other))
    assert [type(layer).__name__ for layer in folded] == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d", "Identity"]
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(folded(images), other(images), **EXACT)


def test_copies_are_made_once_and_again_when_weights_change_or_move():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    folded = Folded(list(layers), [])
    ((conv, _), none) = folded()
    assert none == [] and folded()[0][0] is conv
    layers.load_state_dict(shaken(deepcopy(layers)).state_dict())
    changed = folded()[0][0]
    assert changed is not conv and not torch.equal(changed.weight, conv.weight)
    layers.double()
    assert folded()[0][0].weight.dtype == torch.float64


def encoder(**options) -> Encoder:
    torch.manual_seed(0)
    return Encoder("resnet10t", 3, ModelConfig(dim=8, mask="none", **options))


@pytest.mark.parametrize("frozen, grid", [(2, 1), (5, 3)])
def test_an_encoder_with_frozen_stages_is_the_encoder_without(frozen, grid):
    slow, quick = encoder(grid=grid).double().eval(), encoder(grid=grid, frozen=frozen).double().eval()
    shaken(slow)
    quick.load_state_dict(slow.state_dict())
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(quick(images), slow(images), **EXACT)


def test_the_copies_are_no_part_of_the_model():
    model = encoder(frozen=5)
    names = {*model.state_dict()}
    model.eval()(torch.randn(2, 3, 32, 32))
    assert {*model.state_dict()} == names and not any("folded" in name for name, _ in model.named_modules())


def test_copies_follow_a_copied_model():
    model = encoder(frozen=5).eval()
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    twin = deepcopy(model)
    with torch.no_grad():
        twin.backbone.bn1.weight.neg_()
    torch.testing.assert_close(model(images), before)
    assert not torch.allclose(twin(images), before)


def test_weights_made_for_inference_alone_are_folded():
    with torch.inference_mode():
        model = encoder(frozen=5).eval()
        images = torch.randn(2, 3, 32, 32)
        before = model(images)
        assert before.isfinite().all()
        model.backbone.bn1.weight.neg_()  # such weights do not tell that they were written to
        assert not torch.allclose(model(images), before)
