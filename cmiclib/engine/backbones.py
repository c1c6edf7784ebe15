"""Networks of torchvision and timm: built by name, fed with pictures in [-1, 1], split into stages.

A name that both libraries have is torchvision's. timm's networks are built for the channels and, where they have a
fixed size as vision transformers do, for the side of the pictures, and see pictures by the mean and deviation of their
own weights. torchvision's see them in [-1, 1], as in the released code.
"""

import re
from copy import copy
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from .imports import load_timm, load_torchvision

Parts = list[Any]


def make_backbone(name: str, channels: int, side: int) -> tuple[Any, int]:
    """Return a randomly initialised network without classifier for pictures of ``side``, and its number of features.

    ``name`` is a torchvision ResNet, or any model of timm with or without the tag of its weights. ConfigError where
    neither library has it, or where it cannot cut pictures of this size into patches.
    """
    if name.startswith(("resnet", "resnext", "wide_resnet")) and name in load_torchvision().models.list_models():
        net: Any = load_torchvision().models.get_model(name, weights=None)
        net.conv1 = nn.Conv2d(channels, net.conv1.out_channels, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.num_features, net.fc = net.fc.in_features, nn.Identity()
        return net, net.num_features
    timm = load_timm()
    try:
        if not timm.is_model(name):
            raise RuntimeError("no such model")
        given = timm.get_pretrained_cfg(name)
        size = {"img_size": side} if given is not None and given.fixed_input_size else {}
        net = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **size)
    except RuntimeError as error:
        fix = "use the name of a torchvision ResNet or of a model in timm, as timm.list_models() or list_pretrained()"
        raise ConfigError(f"unknown backbone '{name}' ({error})", fix=fix) from None
    step = net.feature_info[-1]["reduction"] if size and isinstance(getattr(net, "feature_info", None), list) else 1
    if side % step:
        raise ConfigError(
            f"{name} cuts pictures into squares of {step} pixels, which do not fill model.image_size={side}",
            fix=f"set model.image_size={side // step * step} or {side // step * step + step}",
        )
    return net, net.head_hidden_size  # of the pooled features; `num_features` stops before a hidden layer


class Scale(nn.Module):
    """Pictures in [-1, 1] → pictures as a network's weights expect them; a mask, the fourth channel, stays as it is.

    Gray pictures get the average of the three means and deviations, as their filter is the sum of the three filters.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], channels: int):
        super().__init__()
        factor, shift = 0.5 / torch.tensor(std), (0.5 - torch.tensor(mean)) / torch.tensor(std)
        if channels == 1:
            factor, shift = factor.mean()[None], shift.mean()[None]
        masks = 0, max(0, channels - 3)
        self.register_buffer("factor", F.pad(factor, masks, value=1).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", F.pad(shift, masks).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scale ``images`` (B, C, H, W)."""
        return images * self.factor + self.shift


def scale_of(net: nn.Module, channels: int) -> nn.Module:
    """Return what turns pictures in [-1, 1] into those that a network expects, which can be the same ones."""
    given = getattr(net, "pretrained_cfg", {})
    mean, std = given.get("mean") or (0.5,), given.get("std") or (0.5,)
    return nn.Identity() if {*mean, *std} == {0.5} else Scale(mean, std, channels)


def split(net: Any, name: str, channels: int, side: int) -> tuple[Parts, Parts, int]:
    """Split a network into stages, of which the first is the stem, and the parts that make features of the last maps.

    timm's stages are those by which it groups parameters; run one after another, they have to give exactly what the
    network gives for one picture. Returns both lists, and the number of channels of the last maps. ConfigError where
    the stages are not known.
    """
    if not hasattr(net, "forward_head"):  # torchvision's
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4], [net.avgpool, nn.Flatten()], net.num_features
    net.eval()
    side = side if net.pretrained_cfg.get("fixed_input_size") else min(side, 96)  # enough to compare
    try:
        stages, top, width = _timm_parts(net, torch.arange(channels * side**2).sin().view(1, channels, side, side))
    except Exception as error:  # whatever a network that is built in another way makes of this
        raise ConfigError(
            f"the stages of {name} are not known ({type(error).__name__})",
            fix="set model.frozen=0 and model.grid=1, or use another backbone, as a ResNet, ConvNeXt or ViT",
        ) from None
    for part in (net, *stages, *top):
        part.train()
    return stages, top, width


@torch.no_grad()
def _timm_parts(net: Any, images: Tensor) -> tuple[Parts, Parts, int]:
    pattern = net.group_matcher(coarse=True)["blocks"]
    while not isinstance(pattern, str):  # a pattern of the last layers can follow
        pattern = pattern[0]
    body = {name: part for name, part in net.named_modules() if re.fullmatch(pattern, name)}
    children = list(net._modules)
    places = [children.index(name.partition(".")[0]) for name in body]
    after = children[places[-1] + 1 :]
    stages = [_only(net, children[: places[0]], "forward_features"), *body.values()]
    maps = images
    for stage in stages:
        maps = stage(maps)
    wide, whole = maps, net(images)
    if not whole.any():
        raise RuntimeError("features of zero compare nothing")
    for count in range(len(after) + 1):  # how many of them belong to the features and not to the head
        head = _only(net, after[count:], "forward_head", pre_logits=True)
        if torch.equal(head(wide), whole):
            break
        wide = net._modules[after[count]](wide)
    tail = [net._modules[name] for name in after[:count]]
    return stages, [*tail, head], as_maps(net, maps, wide).shape[1]


def _only(net: Any, kept: list[str], run: str, **options: Any) -> Any:
    """Return a network of the same weights whose other children pass on what they get, and that runs one method."""
    part = copy(net)
    lists = nn.Sequential, nn.ModuleList
    part._modules = {
        name: child if name in kept else type(child)() if isinstance(child, lists) else nn.Identity()
        for name, child in net._modules.items()
    }
    part.forward = partial(getattr(part, run), **options)
    return part


def as_maps(net: Any, maps: Tensor, wide: Tensor) -> Tensor:
    """Return the last stage's maps as (B, C, h, w); of tokens those of places, as the last normalisation leaves them.

    ``maps`` are (B, C, h, w), (B, h, w, C) or tokens (B, L, C), ``wide`` what the layers behind the stages return.
    """
    if maps.ndim == 4:
        return maps.permute(0, 3, 1, 2) if getattr(net, "output_fmt", "NCHW") == "NHWC" else maps
    places = wide[:, getattr(net, "num_prefix_tokens", 0) :].transpose(1, 2)  # without class and registers
    return places.unflatten(2, (isqrt(places.shape[2]), -1))
