import importlib.util
import json
import re
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cmiclib.config import ModelConfig
from cmiclib.encoders import Encoder, drop
from cmiclib.engine.backbones import make_backbone, split
from cmiclib.errors import CheckpointError, ConfigError
from cmiclib.model import build_model
from cmiclib.weights import PACKAGED, fit_first_convolution, imagenet_weights, load_initial_weights, packaged_weights


def make(backbone, channels, **settings):
    return Encoder(backbone, channels, ModelConfig(**settings))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty download cache, and no way to fill it; returns the folder for weights."""

    def refuse(*args, **kwargs):
        raise URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def resnet18_file(folder):
    """Put a state of torchvision's ResNet-18 with recognisable numbers where a download would lie."""
    state = {name: value + 1 for name, value in torchvision.models.resnet18().state_dict().items()}
    torch.save(state, folder / "resnet18-f37072fd.pth")
    return state


def body(state):
    return {name: value for name, value in state.items() if not name.startswith(("conv1.", "fc."))}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet10t"])
def test_images_become_unit_rows_that_depend_on_every_channel(backbone, channels):
    torch.manual_seed(0)
    encoder, images = make(backbone, channels, dim=24).eval(), torch.randn(3, channels, 32, 32)
    rows = encoder(images)
    assert rows.shape == (3, 24) and rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    for channel in range(channels):
        changed = images.clone()
        changed[:, channel] += 1
        assert not torch.equal(encoder(changed), rows)


def test_rows_are_float32_and_of_length_one_under_autocast():
    torch.manual_seed(0)
    encoder = make("resnet10t", 4, dim=16).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = encoder(torch.randn(2, 4, 32, 32))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])  # the latter has a layer after the pooling
def test_the_number_of_features_is_what_the_backbone_returns(name):
    net, features = make_backbone(name, 4, 32)
    assert net.eval()(torch.zeros(2, 4, 32, 32)).shape == (2, features)


def test_a_torchvision_backbone_differs_from_torchvision_in_first_convolution_and_classifier_only():
    ours, theirs = make_backbone("resnet50", 4, 32)[0].state_dict(), torchvision.models.resnet50().state_dict()
    assert ours.pop("conv1.weight").shape == (64, 4, 7, 7)
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in body(theirs).items()}


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ConfigError, match="resnet19"):
        make("resnet19", 3, dim=8)


def test_random_weights_need_no_file_and_follow_the_seed(no_network):
    def weights(seed):
        torch.manual_seed(seed)
        encoder = make("resnet18", 1, dim=8)
        load_initial_weights(encoder, "resnet18", "random")
        return torch.cat([value.flatten().float() for value in encoder.state_dict().values()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_without_network_one_error_names_the_file_to_place_by_hand(no_network):
    encoder = make("resnet18", 4, dim=8)
    with pytest.raises(CheckpointError) as error:
        load_initial_weights(encoder, "resnet18", "imagenet")
    assert error.value.path == no_network / "resnet18-f37072fd.pth"
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert "no network here" in str(error.value)


def test_a_model_never_falls_back_to_random_weights(no_network):
    resnet18_file(no_network)
    config = ModelConfig(query_backbone="resnet34", view_backbone="resnet18", dim=8, image_size=32)
    with pytest.raises(CheckpointError, match="resnet34"):
        build_model(config)


def test_a_file_placed_by_hand_fills_all_but_first_convolution_and_head(no_network):
    state = resnet18_file(no_network)
    encoder = make("resnet18", 4, dim=8)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    load_initial_weights(encoder, "resnet18", "imagenet")
    for name, value in encoder.state_dict().items():
        kept = name == "backbone.conv1.weight" or name.startswith("head.")
        assert torch.equal(value, before[name] if kept else state[name.removeprefix("backbone.")]), name


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 a truncated archive"])
def test_a_damaged_file_in_the_cache_is_named(no_network, content):
    (no_network / "resnet18-f37072fd.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(no_network / "resnet18-f37072fd.pth"))):
        imagenet_weights("resnet18")


def test_a_pickle_with_code_in_it_is_not_run(no_network, tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "boom"), "w")

    torch.save({"conv1.weight": Bomb()}, no_network / "resnet18-f37072fd.pth")
    with pytest.raises(CheckpointError):
        imagenet_weights("resnet18")
    assert not (tmp_path / "boom").exists()


def test_a_backbone_without_imagenet_weights_says_so():
    with pytest.raises(CheckpointError, match=r"resnet10t[\s\S]*model.init=random"):
        imagenet_weights("resnet10t")


@pytest.mark.parametrize("counters", [True, False], ids=["whole", "without the counters that old files lack"])
def test_a_path_fills_the_backbone(tmp_path, counters):
    state = {name: value + 1 for name, value in torchvision.models.resnet18().state_dict().items()}
    if not counters:
        state = {name: value for name, value in state.items() if "num_batches" not in name}
    save_file(state, tmp_path / "body.safetensors")
    encoder = make("resnet18", 1, dim=8)
    first = encoder.backbone.conv1.weight.clone()
    load_initial_weights(encoder, "resnet18", str(tmp_path / "body.safetensors"))
    filled = encoder.backbone.state_dict()
    assert all(torch.equal(filled[name], value) for name, value in body(state).items())
    assert torch.equal(encoder.backbone.conv1.weight, first)


@pytest.mark.parametrize(
    "given, wanted", [("resnet18", "resnet34"), ("resnet34", "resnet18"), ("resnet18", "resnet50")]
)
def test_weights_of_another_architecture_are_refused_and_change_nothing(tmp_path, given, wanted):
    path = tmp_path / "other.safetensors"
    save_file(torchvision.models.get_model(given, weights=None).state_dict(), path)
    encoder = make(wanted, 3, dim=8)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"do not fit {wanted}") as error:
        load_initial_weights(encoder, wanted, str(path))
    assert error.value.path == path
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_an_unreadable_path_is_named(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.init") as error:
        load_initial_weights(make("resnet10t", 3, dim=8), "resnet10t", str(path))
    assert error.value.path == path


def reference_name(name):
    """The released code's name of a parameter or buffer of ours."""
    name = name.replace("view_encoder.", "rendering_encoder.").replace(".backbone.", ".resnet.")
    return name.replace(".head.", ".resnet.fc.").replace("attention_weight", "attention.linear_in.weight")


@pytest.mark.shared
def test_parameters_are_those_of_the_released_model(shared_root):
    entries = json.loads((shared_root / "parity" / "names_map.json").read_text())["entries"]
    theirs = {entry["name"]: entry["shape"] for entry in entries if entry["name"] != "attention.linear_out.weight"}
    model = build_model(ModelConfig(init="random"))
    ours = {reference_name(n): list(v.shape) for n, v in model.state_dict().items() if "num_batches" not in n}
    assert ours == theirs


@pytest.mark.shared
def test_parity_of_both_encoders_with_the_released_code(shared_root):
    folder = shared_root / "parity"
    spec = importlib.util.spec_from_file_location("det_param", folder / "det_param.py")
    det_param = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(det_param)
    model = build_model(ModelConfig(init="random")).eval().double()  # the released arrays are 3.8e-7 from exact ones
    for name, value in model.state_dict().items():
        if "num_batches" not in name:
            value.copy_(torch.from_numpy(det_param.det_param(reference_name(name), tuple(value.shape))))
    arrays = np.load(folder / "parity_encoders.npz")
    with torch.inference_mode():
        for size in (64, 96):
            query = model.embed_queries(torch.from_numpy(arrays[f"eval_{size}/query_in"]).double())
            views = model.view_encoder(torch.from_numpy(arrays[f"eval_{size}/rendering_in"]).double())
            np.testing.assert_allclose(query, arrays[f"eval_{size}/query_out"], atol=4e-7, rtol=0)
            np.testing.assert_allclose(views, arrays[f"eval_{size}/rendering_out"], atol=4e-7, rtol=0)


def test_a_folder_serves_each_backbone_its_own_file(tmp_path):
    given = torchvision.models.get_model("resnet18", weights=None)
    save_file(given.state_dict(), tmp_path / "resnet18.safetensors")
    encoder = make("resnet18", 1, dim=8)
    load_initial_weights(encoder, "resnet18", str(tmp_path))
    assert torch.equal(encoder.backbone.layer4[1].conv2.weight, given.layer4[1].conv2.weight)
    with pytest.raises(CheckpointError, match=r"resnet34\.safetensors"):
        load_initial_weights(make("resnet34", 1, dim=8), "resnet34", str(tmp_path))


# Frozen stages, cells, dropout


@pytest.mark.parametrize("backbone", ["resnet18", "resnet10t", PACKAGED])
def test_stages_one_after_another_are_the_backbone(backbone):
    torch.manual_seed(0)
    net = make_backbone(backbone, 3, 64)[0]
    stages, top, _ = split(net, backbone, 3, 64)
    maps = images = torch.randn(2, 3, 64, 64)
    for stage in [*stages, *top]:
        maps = stage.eval()(maps)
    torch.testing.assert_close(maps, net.eval()(images), rtol=1e-5, atol=1e-6)


def test_a_backbone_whose_stages_are_not_known_is_refused_only_where_that_matters():
    name, images = "xcit_nano_12_p16_224", torch.randn(2, 3, 32, 32)
    assert make(name, 3, dim=8, image_size=32).eval()(images).shape == (2, 8)
    for settings in ({"frozen": 1}, {"grid": 2}):
        with pytest.raises(ConfigError, match=rf"{name}[\s\S]*model\.frozen=0"):
            make(name, 3, dim=8, image_size=32, **settings)


def test_more_frozen_stages_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="5 stages, 6"):
        make("resnet18", 3, dim=8, frozen=6)


@pytest.mark.parametrize("backbone, frozen", [("resnet10t", 2), ("resnet10t", 5), (PACKAGED, 8)])
def test_frozen_stages_stay_as_they_are_while_the_rest_learns(backbone, frozen):
    torch.manual_seed(0)
    encoder = make(backbone, 3, dim=8, frozen=frozen).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(torch.randn(4, 3, 64, 64)).sum().backward()
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter += 1
    parts = encoder.stages[:frozen] + (encoder.top if frozen == len(encoder.stages) else [])
    fixed = {id(value) for part in parts for value in (*part.parameters(), *part.buffers())}
    for name, value in encoder.state_dict(keep_vars=True).items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]) == (id(value) in fixed), name


@pytest.mark.parametrize("frozen", [0, 3, 5])
def test_begin_and_finish_are_the_encoder_in_two_steps(frozen):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    encoder = make("resnet18", 3, dim=8, frozen=frozen, grid=2).eval()
    maps = encoder.frozen_forward(images)
    assert maps.shape == {0: images.shape, 3: (2, 128, 8, 8), 5: (2, 512 * 5)}[frozen]
    torch.testing.assert_close(encoder.head_forward(maps), encoder(images), rtol=0, atol=0)


def test_freezing_does_not_change_what_an_untrained_encoder_returns():
    def rows(**settings):
        torch.manual_seed(0)
        return make("resnet18", 3, dim=8, **settings).eval()(images)

    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(rows(frozen=3), rows(), rtol=1e-5, atol=1e-6)


def test_cells_come_after_the_features_of_the_whole_picture():
    torch.manual_seed(0)
    encoder = make(PACKAGED, 3, dim=8, grid=2).eval()
    maps = images = torch.randn(2, 3, 64, 64)
    for stage in encoder.stages:
        maps = stage(maps)  # (2, 320, 2, 2): one place a cell
    features = encoder.features(images)
    assert features.shape == (2, 1280 + 320 * 4)
    torch.testing.assert_close(features[:, :1280], encoder.backbone(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features[:, 1280:], maps.flatten(1))


def test_dropout_draws_the_same_on_every_cpu():
    torch.manual_seed(3)
    assert drop(torch.ones(2, 6), 0.25).mul(3).tolist() == [[4, 4, 0, 4, 0, 4], [4, 4, 4, 0, 4, 4]]


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 129)])
def test_dropout_draws_and_leaves_the_generator_as_torch_does(shape, share):
    if "Intel" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "Intel"):
        pytest.skip("PyTorch draws otherwise on Intel's processors")
    features, results = torch.randn(shape, dtype=torch.float32), []
    for run in (drop, lambda x, share: torch.nn.functional.dropout(x, share)):
        torch.manual_seed(3)
        given = features.clone().requires_grad_()
        thinned = run(given, share)
        thinned.sum().backward()
        results.append((thinned.detach(), given.grad, torch.rand(3)))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_dropout_thins_training_and_leaves_evaluation_alone():
    torch.manual_seed(0)
    encoder, images = make("resnet10t", 3, dim=8, dropout=0.5, frozen=5), torch.randn(4, 3, 32, 32)
    assert not torch.equal(encoder.train()(images), encoder(images))
    assert torch.equal(encoder.eval()(images), encoder(images))


# The packaged weights


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_packaged_weights_fill_the_whole_backbone(channels):
    encoder = make(PACKAGED, channels, dim=8, frozen=8 if channels < 4 else 0)
    load_initial_weights(encoder, PACKAGED, "imagenet")
    whole = make(PACKAGED, channels, dim=8, frozen=8)
    whole.load_state_dict(encoder.state_dict())
    network, gray = timm.create_model(PACKAGED, pretrained=False).eval(), torch.randn(2, 1, 64, 64)
    network.load_state_dict(packaged_weights())
    with torch.inference_mode():
        theirs = network.forward_features(gray.expand(-1, 3, -1, -1)).mean(dim=(2, 3))
        images = gray.expand(-1, min(channels, 3), -1, -1)
        if channels == 4:
            images = torch.cat([images, torch.randn(2, 1, 64, 64)], dim=1)  # a mask is ignored at first
        torch.testing.assert_close(whole.eval().frozen_forward(images), theirs, rtol=1e-4, atol=1e-4)


def test_what_would_stay_random_or_zero_is_not_frozen(tmp_path):
    """Both options are named; with random weights everywhere, freezing is the caller's wish."""
    file = tmp_path / "weights.safetensors"
    save_file(make("resnet18", 3, dim=8).backbone.state_dict(), file)
    with pytest.raises(ConfigError, match=r"model\.frozen=1 .* random with model\.init="):
        load_initial_weights(make("resnet18", 3, dim=8, frozen=1), "resnet18", str(file))
    with pytest.raises(ConfigError, match=r"model\.frozen=1 .* random with model\.init=imagenet"):
        load_initial_weights(make("resnet18", 3, dim=8, frozen=1), "resnet18", "imagenet")
    load_initial_weights(make("resnet10t", 3, dim=8, frozen=1), "resnet10t", "random")
    with pytest.raises(ConfigError, match=r"model\.mask=channel .* model\.frozen=1"):
        load_initial_weights(make(PACKAGED, 4, dim=8, frozen=1), PACKAGED, "imagenet")


def test_a_first_convolution_fits_gray_images_and_a_mask():
    weight = torch.randn(5, 3, 3, 3)
    assert torch.equal(fit_first_convolution(weight, 3), weight)
    assert torch.equal(fit_first_convolution(weight, 1), weight.sum(1, keepdim=True))
    four = fit_first_convolution(weight, 4)
    assert torch.equal(four[:, :3], weight) and not four[:, 3].any()


# Depthwise filters that stay


def gradients(encoder, images):
    encoder.zero_grad()
    images = images.clone().requires_grad_()
    encoder(images)[:, 0].sum().backward()
    return images.grad, {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}


def test_fixed_filters_change_what_learns_and_nothing_that_is_computed():
    torch.manual_seed(0)
    free, fixed = (make(PACKAGED, 3, dim=8, fixed_filters=choice).eval() for choice in (False, True))
    fixed.load_state_dict(free.state_dict())
    images = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(fixed(images), free(images), rtol=1e-5, atol=1e-6)
    depthwise = {name for name, p in free.named_parameters() if p.ndim == 4 and p.shape[1] == 1}
    assert {name for name, p in fixed.named_parameters() if not p.requires_grad} == depthwise
    (of_free, each_free), (of_fixed, each_fixed) = gradients(free, images), gradients(fixed, images)
    assert each_free.keys() - each_fixed.keys() == depthwise
    torch.testing.assert_close(of_fixed, of_free, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(each_fixed, {name: each_free[name] for name in each_fixed}, rtol=1e-3, atol=1e-5)


def test_each_encoder_can_have_its_own_number_of_frozen_stages():
    settings = {"query_backbone": PACKAGED, "view_backbone": PACKAGED, "mask": "cutout", "init": "random", "dim": 8}
    model = build_model(ModelConfig(**settings, frozen=3, view_frozen=8))
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("view_encoder.backbone") for name in learns)
    assert "query_encoder.backbone.blocks.2.0.conv_pw.weight" in learns
    assert not any(name.startswith("query_encoder.backbone.blocks.1.") for name in learns)
