"""The two encoders: a convolutional backbone, batch normalisation, a linear layer, the unit sphere.

As in the released code: ResNet-50 for photos with the mask as a fourth channel, ResNet-18 for
single-channel views, both with the head BatchNorm1d → Linear(·, 128). The first convolution and the head start
from random numbers even where the rest starts from ImageNet.
"""

from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import CheckpointError, ConfigError


class Encoder(nn.Module):
    """Images to unit vectors.

    Args:
        backbone: a torchvision ResNet or any timm classification model, by name.
        channels: 4 for photos with mask, 3 without, 1 for views.
        dim: length of the embedding.

    Raises:
        ConfigError: neither library knows the backbone.
    """

    def __init__(self, backbone: str, channels: int, dim: int):
        super().__init__()
        self.backbone, features = make_backbone(backbone, channels)
        self.head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, dim))

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``images`` (B, C, H, W) in about [-1, 1]; returns (B, d) with rows of length 1, in float32."""
        features = self.backbone(images)  # (B, F)
        return F.normalize(self.head(features).float(), dim=-1)  # (B, d)


def make_backbone(name: str, channels: int) -> tuple[nn.Module, int]:
    """Return a randomly initialised backbone without classifier, and its number of features.

    Raises:
        ConfigError: neither torchvision nor timm has such a model.
    """
    if name.startswith(("resnet", "resnext", "wide_resnet")) and name in torchvision.models.list_models():
        net: Any = torchvision.models.get_model(name, weights=None)
        net.conv1 = nn.Conv2d(channels, net.conv1.out_channels, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        features, net.fc = net.fc.in_features, nn.Identity()
        return net, features
    if name not in timm.list_models():
        raise ConfigError(
            f"unknown backbone '{name}'", fix="use the name of a torchvision ResNet or of a model in timm"
        )
    net = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0)
    return net, net.head_hidden_size  # of the pooled features; `num_features` stops before a hidden layer


def load_initial_weights(encoder: Encoder, backbone: str, init: str) -> None:
    """Fill the backbone from ImageNet or from a file; ``"random"`` leaves it alone. Nothing falls back.

    Args:
        encoder: changed in place; its first convolution and its head keep their random numbers.
        backbone: torchvision's name of the architecture.
        init: ``"random"``, ``"imagenet"``, or a safetensors file with torchvision's names; a folder of such files
            serves encoders of two architectures, each by its ``<backbone>.safetensors``.

    Raises:
        CheckpointError: no such weights, a failed download, or names and shapes that don't fit.
    """
    if init == "random":
        return
    file = Path(init) / f"{backbone}.safetensors" if Path(init).is_dir() else Path(init)
    state = imagenet_weights(backbone) if init == "imagenet" else _read_safetensors(file)
    body = {name: value for name, value in state.items() if not name.startswith(("conv1.", "fc."))}
    own = encoder.backbone.state_dict()
    required = [n for n in own if not n.startswith("conv1.") and not n.endswith("num_batches_tracked")]
    missing = [name for name in required if name not in body]
    unfit = [name for name, value in body.items() if name not in own or own[name].shape != value.shape]
    if missing or unfit:
        raise CheckpointError(
            f"the weights do not fit {backbone}: missing {missing[:3]}, unknown or of another shape {unfit[:3]}",
            path=None if init == "imagenet" else file,
            fix="give weights of the same architecture, or set model.init=random",
        )
    encoder.backbone.load_state_dict(body, strict=False)


def imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """Return torchvision's first ImageNet weights of a backbone, from the local cache or downloaded.

    Raises:
        CheckpointError: torchvision has none, or the download failed; says where to put the file by hand.
    """
    try:
        weights = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except (ValueError, KeyError):
        raise CheckpointError(
            f"torchvision has no ImageNet weights for '{backbone}'", fix="set model.init=random or give a file"
        ) from None
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # no network, a wrong hash or a damaged file: the cure is the same
        raise CheckpointError(
            f"ImageNet weights could not be downloaded or read ({error})",
            path=cache,
            fix=f"download {weights.url} on another machine and put it at this path, or set model.init=random",
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(
            f"not readable as safetensors ({error})", path=path, fix="check the path in model.init"
        ) from None
