"""Index files: where and in what photos are embedded is kept; a small file has no backbone."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cmiclib.config import Config, ModelConfig
from cmiclib.errors import CheckpointError
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model

CONFIG = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")
).override(["train.precision=bf16"])
LITE = "tf_efficientnet_lite0"


def built(benchmark, config=CONFIG) -> ShapeIndex:
    torch.manual_seed(0)
    return ShapeIndex.build(build_model(config.model), benchmark, config)


def parts(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def rewrite(path, drop=lambda name: False, **metadata) -> None:
    tensors, about = parts(path)
    save_file({name: value for name, value in tensors.items() if not drop(name)}, path, about | metadata)


def test_photos_are_embedded_in_the_precision_of_the_gallery(tiny_benchmark, tmp_path):
    whole, index, photos = built(tiny_benchmark), built(tiny_benchmark), tiny_benchmark.images[:4]
    index.precision = "bf16"  # as on a GPU
    index.save(tmp_path / "x.index")
    loaded = ShapeIndex.load(tmp_path / "x.index")
    assert (index.precision, loaded.precision, whole.precision) == ("bf16", "bf16", "fp32")
    torch.testing.assert_close(loaded.embed(photos), index.embed(photos), rtol=0, atol=0)
    assert not torch.equal(whole.embed(photos), loaded.embed(photos))
    torch.testing.assert_close(whole.embed(photos), loaded.embed(photos), rtol=0, atol=0.05)


def test_without_the_gallerys_device_photos_are_embedded_in_whole_precision_on_the_cpu(tiny_benchmark, tmp_path):
    built(tiny_benchmark).save(tmp_path / "x.index")
    rewrite(tmp_path / "x.index", device="cuda", precision="bf16")
    loaded = ShapeIndex.load(tmp_path / "x.index", device="cpu")
    assert (loaded.device.type, loaded.precision) == ("cpu", "fp32")


def test_the_model_of_a_file_embeds_photos_and_is_not_saved_as_a_whole_one(tiny_benchmark, tmp_path):
    built(tiny_benchmark).save(tmp_path / "x.index")
    model = ShapeIndex.load(tmp_path / "x.index").model
    with pytest.raises(CheckpointError, match="no encoder of views"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_index_from_a_gpu_answers_alike_after_loading(tiny_benchmark, tmp_path):
    torch.manual_seed(0)
    index = ShapeIndex.build(build_model(CONFIG.model).cuda(), tiny_benchmark, CONFIG)
    index.save(tmp_path / "x.index")
    loaded = ShapeIndex.load(tmp_path / "x.index")
    assert (loaded.device.type, loaded.precision) == (index.device.type, index.precision) == ("cuda", "bf16")
    photos = tiny_benchmark.images[:9]
    expected = index.scores(index.embed(photos))
    torch.testing.assert_close(loaded.scores(loaded.embed(photos)), expected, rtol=0, atol=1e-6)
    elsewhere = ShapeIndex.load(tmp_path / "x.index", device="cpu")
    assert (elsewhere.device.type, elsewhere.precision) == ("cpu", "fp32")


def test_only_what_differs_from_the_defaults_is_kept_of_the_configuration(tiny_benchmark, tmp_path):
    built(tiny_benchmark).save(tmp_path / "x.index")
    stored = json.loads(parts(tmp_path / "x.index")[1]["config"])
    assert stored["train"] == {"precision": "bf16"} and "augment" not in stored
    assert ShapeIndex.load(tmp_path / "x.index").config == CONFIG


def test_reading_and_writing_leave_the_random_generator_alone(tiny_benchmark, tmp_path):
    index = built(tiny_benchmark)
    before = torch.get_rng_state()
    index.save(tmp_path / "x.index")
    ShapeIndex.load(tmp_path / "x.index")
    assert torch.equal(torch.get_rng_state(), before)


def test_arrays_and_facts_travel_with_an_index(tiny_benchmark, tmp_path):
    index = built(tiny_benchmark)
    index.extra, index.about = {"places": torch.rand(3, 2)}, {"trained": {"date": "2026-01-02"}}
    index.save(tmp_path / "x.index")
    loaded = ShapeIndex.load(tmp_path / "x.index")
    assert torch.equal(loaded.extra["places"], index.extra["places"]) and loaded.about == index.about


@pytest.fixture(scope="module")
def frozen(tiny_benchmark) -> ShapeIndex:
    """Of a model whose backbone is as it came out of the package."""
    shape = {"dim": 16, "image_size": 32, "frozen": 8, "mask": "cutout"}
    return built(tiny_benchmark, Config(model=ModelConfig(query_backbone=LITE, view_backbone=LITE, **shape)))


def test_a_small_file_takes_the_backbone_from_where_the_training_took_it(frozen, tiny_benchmark, tmp_path):
    frozen.save(tmp_path / "whole.index")
    frozen.save(tmp_path / "small.index", without_backbone=True)
    assert (tmp_path / "small.index").stat().st_size < (tmp_path / "whole.index").stat().st_size / 20
    loaded, photos = ShapeIndex.load(tmp_path / "small.index"), tiny_benchmark.images[:5]
    torch.testing.assert_close(loaded.embed(photos), frozen.embed(photos), rtol=0, atol=1e-3)  # matrices and views
    torch.testing.assert_close(loaded.views, frozen.views, rtol=0, atol=1e-3)  # are kept in float16
    torch.testing.assert_close(loaded.views.norm(dim=2), torch.ones(8, 12))


@pytest.mark.parametrize("lost", ["query_encoder.head", "query_encoder.backbone.conv_stem", "query_encoder"])
def test_nothing_but_the_whole_backbone_may_be_missing(frozen, tmp_path, lost):
    frozen.save(tmp_path / "x.index", without_backbone=lost == "query_encoder.head")
    rewrite(tmp_path / "x.index", drop=lambda name: name.startswith(lost))
    with pytest.raises(CheckpointError, match="not a complete index"):
        ShapeIndex.load(tmp_path / "x.index")


def test_a_backbone_that_only_the_file_has_is_neither_left_out_nor_made_up(tiny_benchmark, tmp_path):
    index = built(tiny_benchmark)  # from random numbers
    with pytest.raises(CheckpointError, match=r"the training changed backbone\."):
        index.save(tmp_path / "x.index", without_backbone=True)
    index.save(tmp_path / "x.index")
    rewrite(tmp_path / "x.index", drop=lambda name: name.startswith("query_encoder.backbone."))
    with pytest.raises(CheckpointError, match="lacks the backbone"):
        ShapeIndex.load(tmp_path / "x.index")


def test_an_unknown_precision_is_refused(tiny_benchmark, tmp_path):
    built(tiny_benchmark).save(tmp_path / "x.index")
    rewrite(tmp_path / "x.index", precision="int8")
    with pytest.raises(CheckpointError, match="precision is 'int8'"):
        ShapeIndex.load(tmp_path / "x.index")


def test_an_index_of_arrays_has_no_device_but_the_cpu(tmp_path):
    ShapeIndex.from_arrays(np.ones((2, 3, 4)), np.eye(4), ["a", "b"]).save(tmp_path / "x.index")
    assert ShapeIndex.load(tmp_path / "x.index").device == torch.device("cpu")
