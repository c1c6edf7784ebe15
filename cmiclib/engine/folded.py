"""Stages that do not learn in a faster form: the same numbers except for rounding, in half of the time or less.

Without training, a stage normalises with fixed numbers, so its batch normalisation is a factor and a shift of the
convolution before it. And where a strided convolution pads as TensorFlow does, by one pixel more on the right and
below, the maps need not be copied into larger ones: a filter with an additional first row and column of zeros, padded
equally on all sides, gives the same result. The channels of a pixel lie side by side in memory.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

if TYPE_CHECKING:
    from timm.layers import Conv2dSame

Parts = list[nn.Module]


class Folded:
    """Folded copies of lists of modules that run in order; made again when weights were changed or moved.

    Args:
        lists: of modules in evaluation mode, in the order in which they run.
    """

    def __init__(self, *lists: Sequence[nn.Module]):
        self.lists = lists
        self.key: list[tuple[int, object]] | None = None
        self.copies: list[Parts] = []

    @torch.no_grad()
    def __call__(self) -> list[Parts]:
        """Return the copy of each list."""
        key = [_mark(tensor) for part in chain(*self.lists) for tensor in chain(part.parameters(), part.buffers())]
        if key != self.key:
            self.key, self.copies = key, [[*fold(nn.Sequential(*parts)).children()] for parts in self.lists]
        return self.copies


def _mark(tensor: Tensor) -> tuple[int, object]:
    """Return a mark that changes when a tensor is written to or moves, except through ``tensor.data``.

    Weights made in inference mode do not count their changes, so their mark is new each time.
    """
    return tensor.data_ptr(), object() if tensor.is_inference() else tensor._version


def can_fold(network: nn.Module) -> bool:
    """Tell whether a network runs its normalisations where :func:`fold` expects them."""
    return type(network).__name__ in ("ResNet", "EfficientNet", "MobileNetV3")


def fold(module: nn.Module) -> nn.Module:
    """Return a copy of a module in which convolutions normalise and pad by themselves; for evaluation only.

    A batch normalisation is folded where it is registered right behind a convolution of as many channels, which is how
    ResNets, EfficientNets and MobileNets are written; any other stays.
    """
    module = deepcopy(module).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for parent in list(module.modules()):
        before: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(before, nn.Conv2d) and _normalises(child, before):
                _fold_into(before, child)
                setattr(parent, name, getattr(child, "act", nn.Identity()))  # timm's normalisations hold one
            before = child
        for name, child in list(parent.named_children()):
            if _is_same(child) and _pads_unevenly(child):
                setattr(parent, name, EvenlyPadded(child))
    return module


def _normalises(module: nn.Module, conv: nn.Conv2d) -> TypeGuard[nn.BatchNorm2d]:
    return isinstance(module, nn.BatchNorm2d) and module.num_features == conv.out_channels


def _fold_into(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _is_same(module: nn.Module) -> "TypeGuard[Conv2dSame]":
    return type(module).__name__ == "Conv2dSame"  # timm's; its import takes a moment


def _pads_unevenly(conv: nn.Conv2d) -> bool:
    sides = all(side in (3, 5, 7) for side in conv.kernel_size)
    return sides and conv.stride == (2, 2) and conv.dilation == (1, 1) and conv.weight.device.type == "cpu"


class EvenlyPadded(nn.Module):
    """A convolution of stride 2 with TensorFlow's padding, on CPUs: maps of even sides are not copied to be padded.

    Args:
        conv: with a filter of an odd side above 1.
    """

    def __init__(self, conv: "Conv2dSame"):
        super().__init__()
        self.conv = conv
        self.padding = conv.kernel_size[0] // 2, conv.kernel_size[1] // 2
        self.wide = nn.Parameter(F.pad(conv.weight, (1, 0, 1, 0)), requires_grad=False)  # (O, I, k + 1, k + 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve ``maps`` (B, C, H, W); returns (B, O, ceil(H / 2), ceil(W / 2))."""
        if maps.shape[2] % 2 or maps.shape[3] % 2:
            return self.conv(maps)
        return F.conv2d(maps, self.wide, self.conv.bias, 2, self.padding, 1, self.conv.groups)
