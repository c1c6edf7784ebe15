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

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .engine.backbones import as_maps, make_backbone, scale_of, split
from .engine.folded import Folded, can_fold
from .errors import ConfigError

CPU_BLOCK = 16
"""Images that pass the frozen stages together on a CPU; the maps of more leave its cache, at half the speed."""


class Encoder(nn.Module):
    """Images to unit vectors.

    Args:
        backbone: a torchvision ResNet or any timm model, by name, see :mod:`cmiclib.engine.backbones`.
        channels: 4 for photos with mask, 3 without, 1 for views.
        config: ``dim``, ``image_size``, ``frozen``, ``fixed_filters``, ``grid`` and ``dropout``.

    Raises:
        ConfigError: neither library knows the backbone, or it cannot be frozen or pooled in cells.
    """

    def __init__(self, backbone: str, channels: int, config: ModelConfig):
        super().__init__()
        self.channels, side = channels, config.image_size
        self.backbone, features = make_backbone(backbone, channels, side)
        self.scale = scale_of(self.backbone, channels)
        if config.fixed_filters:
            fix_filters(self.backbone)
        self.frozen, self.grid, self.dropout = config.frozen, config.grid, config.dropout
        # Plain lists of the backbone's own parts: nothing is registered twice.
        self.stages, self.top = [self.backbone], [nn.Identity()]
        self.whole = features  # so many are of the whole picture, those of the cells follow
        if config.frozen or config.grid > 1:
            self.stages, self.top, width = split(self.backbone, backbone, channels, side)
            features += config.grid**2 * width * (config.grid > 1)
        self.stages[0] = nn.Sequential(self.scale, self.stages[0])
        if config.frozen > len(self.stages):
            raise ConfigError(
                f"{backbone} has {len(self.stages)} stages, {config.frozen} cannot be frozen",
                fix=f"set model.frozen to {len(self.stages)} or less",
            )
        frozen, learnt = self.stages[: self.frozen], self.stages[self.frozen :]
        self._folded, self._folded_rest = Folded(frozen, [] if learnt else self.top), Folded(learnt, self.top)
        for part in self.frozen_parts():
            part.requires_grad_(False)
        self.head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, config.dim))
        self.fixed, self.share = None, config.fixed_share
        if config.fixed:
            if learnt or not frozen:
                raise ConfigError(
                    "model.fixed keeps the untrained features, and some stages learn",
                    fix=f"set model.frozen and model.view_frozen to {len(self.stages)}, or model.fixed=0",
                )
            cells = features - self.whole or features
            self.fixed = nn.Linear(cells, config.fixed, bias=False).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``images`` (B, C, H, W) in about [-1, 1]; returns (B, d) with rows of length 1, in float32 at least."""
        return self.head_forward(self.frozen_forward(images))

    def frozen_forward(self, images: Tensor) -> Tensor:
        """Run the frozen stages: images → maps (B, …), or features (B, F) where all stages are frozen."""
        if not self.frozen:
            return images
        with torch.no_grad():
            return self._in_blocks(images, self._folded)

    def features(self, maps: Tensor) -> Tensor:
        """Turn what :meth:`frozen_forward` returned into the head's features, (B, F)."""
        if maps.ndim == 2:
            return maps
        if not self.training and not torch.is_grad_enabled() and can_fold(self.backbone):
            return self._in_blocks(maps, self._folded_rest)
        return self._run(maps, *self._folded_rest.lists)

    def _in_blocks(self, maps: Tensor, folded: Folded) -> Tensor:
        parts = folded() if can_fold(self.backbone) else folded.lists
        return in_blocks(lambda block: self._run(block, *parts), maps)

    def _run(self, maps: Tensor, stages: Sequence[Any], top: Sequence[Any]) -> Tensor:
        for stage in stages:
            maps = stage(maps)
        return self._pool(maps, top) if top else maps

    def head_forward(self, maps: Tensor) -> Tensor:
        """Embed what :meth:`frozen_forward` returned; returns (B, d) with rows of length 1, in float32 at least.

        In evaluation the fixed numbers, if there are any, follow the learnt ones: a score is then the mean of the
        learnt and of the fixed cosine, weighted by ``fixed_share``.
        """
        features = self.features(maps)
        normalised = self.head[0](features)
        kept = drop(normalised, self.dropout) if self.training and self.dropout else normalised
        learnt = unit(self.head[1](kept))  # (B, dim)
        if self.fixed is None or self.training:
            return learnt
        fixed = unit(self.fixed(unit(features[:, -self.fixed.in_features :])))  # (B, fixed)
        return torch.cat([learnt * (1 - self.share) ** 0.5, fixed * self.share**0.5], dim=1)

    def _pool(self, maps: Tensor, top: Sequence[Any]) -> Tensor:
        wide = maps
        for layer in top[:-1]:
            wide = layer(wide)
        whole = top[-1](wide)
        if self.grid == 1:
            return whole
        cells = F.adaptive_avg_pool2d(as_maps(self.backbone, maps, wide), self.grid)
        return torch.cat([whole, cells.flatten(1)], dim=1)

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


def drop(features: Tensor, share: float) -> Tensor:
    """Set a ``share`` of the numbers to 0 and divide the others by ``1 - share``, as ``F.dropout`` does.

    On CPUs it takes two thirds of the time of ``F.dropout`` and draws the same numbers on all of them; ``F.dropout``
    draws others on Intel's.
    """
    if features.device.type != "cpu":
        return F.dropout(features, share)
    kept = torch.rand(features.shape, dtype=torch.float64) < 1 - share
    return features * kept.to(features.dtype).div_(1 - share)


def in_blocks(run: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Return ``run(maps)``, with the channels side by side in memory, and on a CPU a few images at a time."""
    size = CPU_BLOCK if maps.device.type == "cpu" else len(maps)
    maps = maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps  # not tokens
    return torch.cat([run(part) for part in maps.split(max(1, size))])


def fix_filters(net: nn.Module) -> None:
    """Let no depthwise convolution of ``net`` learn."""
    for module in net.modules():
        if is_depthwise(module):
            module.weight.requires_grad_(False)


def is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether a module is a convolution with one filter per channel; ResNeXt's groups of channels are not."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
