"""The two encoders: a convolutional backbone, batch normalisation, a linear layer, the unit sphere.

As in the released code: ResNet-50 for photos with the mask as a fourth channel, ResNet-18 for single-channel views,
both with the head BatchNorm1d → Linear(·, 128). The first convolution and the head start from random numbers even
where the rest starts from ImageNet.

Some options are not in the paper; they let two CPU cores train from ImageNet weights. The ``frozen`` first stages of a
backbone keep their initial weights, so their maps can be computed before training. With ``fixed_filters`` all depthwise
filters keep theirs, because their gradient takes a CPU longer than all other work. ``grid`` pools the last stage's maps
in each cell of a grid as well as over the whole image. ``dropout`` drops features in training. With ``shared_head``
(see :class:`cmiclib.model.CMIC`) photos and views have one linear layer. ``fixed`` keeps what the training of heads
forgets: in evaluation a vector also holds the untrained features of the cells, on a few principal directions.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .engine.folded import Folded, Parts, can_fold
from .engine.imports import load_timm, load_torchvision
from .errors import ConfigError

CPU_BLOCK = 16
"""Images that pass the frozen stages together on a CPU; the maps of more leave its cache, at half the speed."""


class Encoder(nn.Module):
    """Images to unit vectors.

    Args:
        backbone: a torchvision ResNet or any timm classification model, by name.
        channels: 4 for photos with mask, 3 without, 1 for views.
        config: ``dim``, ``frozen``, ``fixed_filters``, ``grid`` and ``dropout``.

    Raises:
        ConfigError: neither library knows the backbone, or it cannot be frozen or pooled in cells.
    """

    def __init__(self, backbone: str, channels: int, config: ModelConfig):
        super().__init__()
        self.backbone, features = make_backbone(backbone, channels)
        if config.fixed_filters:
            fix_filters(self.backbone)
        self.frozen, self.grid, self.dropout = config.frozen, config.grid, config.dropout
        # Plain lists of the backbone's own parts: nothing is registered twice.
        self.stages, self.top = split(self.backbone, backbone) if config.frozen or config.grid > 1 else ([], [])
        if config.frozen > len(self.stages):
            raise ConfigError(
                f"{backbone} has {len(self.stages)} stages, {config.frozen} cannot be frozen",
                fix=f"set model.frozen to {len(self.stages)} or less",
            )
        frozen, learnt = self.stages[: self.frozen], self.stages[self.frozen :]
        self._folded = Folded(frozen, self.top if frozen and not learnt else [])
        self._folded_rest = Folded(learnt or [self.backbone], self.top)
        for part in self.frozen_parts():
            part.requires_grad_(False)
        cells = config.grid**2 * (self.top[0].in_channels if self.top else features) if config.grid > 1 else 0
        features += cells
        self.head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, config.dim))
        self.fixed, self.share = None, config.fixed_share
        if config.fixed:
            if learnt or not frozen:
                raise ConfigError(
                    "model.fixed keeps the untrained features, and some stages learn",
                    fix=f"set model.frozen and model.view_frozen to {len(self.stages)}, or model.fixed=0",
                )
            self.fixed = nn.Linear(cells or features, config.fixed, bias=False).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``images`` (B, C, H, W) in about [-1, 1]; returns (B, d) with rows of length 1, in float32 at least."""
        return self.head_forward(self.frozen_forward(images))

    def frozen_forward(self, images: Tensor) -> Tensor:
        """Run the frozen stages: images → maps (B, c, h, w), or features (B, F) where all stages are frozen."""
        if not self.frozen:
            return images
        with torch.no_grad():
            return in_blocks(self._frozen_block, images)

    def _frozen_block(self, maps: Tensor) -> Tensor:
        stages, top = self._folded()
        for stage in stages:
            maps = stage(maps)
        return self._pool(maps, top) if self.frozen == len(self.stages) else maps

    def features(self, maps: Tensor) -> Tensor:
        """Turn what :meth:`frozen_forward` returned into the head's features, (B, F)."""
        if maps.ndim == 2:
            return maps
        if not self.training and not torch.is_grad_enabled() and can_fold(self.backbone):
            return in_blocks(lambda block: self._rest(block, *self._folded_rest()), maps)
        return self._rest(maps, self.stages[self.frozen :] or [self.backbone], self.top)

    def _rest(self, maps: Tensor, stages: Parts, top: Parts) -> Tensor:
        for stage in stages:
            maps = stage(maps)
        return self._pool(maps, top) if self.stages else maps

    def head_forward(self, maps: Tensor) -> Tensor:
        """Embed what :meth:`frozen_forward` returned; returns (B, d) with rows of length 1, in float32 at least.

        In evaluation the fixed numbers, if there are any, follow the learnt ones: a score is then the mean of the
        learnt and of the fixed cosine, weighted by ``fixed_share``.
        """
        features = self.features(maps)
        learnt = unit(self.head[1](F.dropout(self.head[0](features), self.dropout, self.training)))  # (B, dim)
        if self.fixed is None or self.training:
            return learnt
        fixed = unit(self.fixed(unit(features[:, -self.fixed.in_features :])))  # (B, fixed)
        return torch.cat([learnt * (1 - self.share) ** 0.5, fixed * self.share**0.5], dim=1)

    def _pool(self, maps: Tensor, top: Parts) -> Tensor:
        whole = maps
        for layer in top:
            whole = layer(whole)
        pooled = [F.adaptive_avg_pool2d(whole, 1).flatten(1)]
        if self.grid > 1:
            pooled.append(F.adaptive_avg_pool2d(maps, self.grid).flatten(1))
        return torch.cat(pooled, dim=1)

    def frozen_parts(self) -> list[Any]:
        """Return the modules that keep their initial weights, in the order in which they run."""
        return [part for parts in self._folded.lists for part in parts]

    def train(self, mode: bool = True) -> "Encoder":
        """Switch between training and evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self


def unit(vectors: Tensor) -> Tensor:
    """Bring rows to length 1, in float32 at least."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def in_blocks(run: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Return ``run(maps)``, with the channels side by side in memory, and on a CPU a few images at a time."""
    size = CPU_BLOCK if maps.device.type == "cpu" else len(maps)
    return torch.cat([run(part) for part in maps.contiguous(memory_format=torch.channels_last).split(max(1, size))])


def fix_filters(net: nn.Module) -> None:
    """Let no depthwise convolution of ``net`` learn."""
    for module in net.modules():
        if is_depthwise(module):
            module.weight.requires_grad_(False)


def is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether a module is a convolution with one filter per channel; ResNeXt's groups of channels are not."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def make_backbone(name: str, channels: int) -> tuple[nn.Module, int]:
    """Return a randomly initialised backbone without classifier, and its number of features.

    Raises:
        ConfigError: neither torchvision nor timm has such a model.
    """
    if name.startswith(("resnet", "resnext", "wide_resnet")) and name in load_torchvision().models.list_models():
        net: Any = load_torchvision().models.get_model(name, weights=None)
        net.conv1 = nn.Conv2d(channels, net.conv1.out_channels, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        features, net.fc = net.fc.in_features, nn.Identity()
        return net, features
    timm = load_timm()
    if name not in timm.list_models():
        raise ConfigError(
            f"unknown backbone '{name}'", fix="use the name of a torchvision ResNet or of a model in timm"
        )
    net = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0)
    return net, net.head_hidden_size  # of the pooled features; `num_features` stops before a hidden layer


def split(net: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Split a backbone into stages, of which the first is the stem, and the layers above that widen the last maps.

    Raises:
        ConfigError: neither a ResNet nor an EfficientNet.
    """
    if hasattr(net, "layer4"):
        stem = nn.Sequential(net.conv1, net.bn1, net.relu if hasattr(net, "relu") else net.act1, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4], []
    if type(net).__name__ == "EfficientNet":
        return [nn.Sequential(net.conv_stem, net.bn1), *net.blocks], [net.conv_head, net.bn2]
    raise ConfigError(
        f"the stages of {name} are not known",
        fix="set model.frozen=0 and model.grid=1, or use a ResNet or EfficientNet",
    )
