"""One way from pictures to vectors, for validation, ablations and evaluation alike."""

import numpy as np
import pytest
import torch

from cmiclib.config import Config, ModelConfig
from cmiclib.embed import query_maps, view_maps
from cmiclib.evaluation.report import score_index
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model
from cmiclib.training.features import FrozenFeatures
from cmiclib.training.loop import validate

MODEL = ModelConfig(
    query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random", frozen=5
)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_validation_measures_what_evaluation_measures(tiny_benchmark, mirror, kept):
    config = Config(model=MODEL.model_copy(update={"mirror": mirror}))
    torch.manual_seed(1)
    model, rows = build_model(config.model).eval(), tiny_benchmark.rows("val")
    still = FrozenFeatures(model, tiny_benchmark, config).validation() if kept else None
    found = validate(model, tiny_benchmark, rows, config, still)
    values = score_index(ShapeIndex.build(model, tiny_benchmark, config), tiny_benchmark, "val").metrics()
    expected = {name: value.mean().item() for name, value in values.items()}
    assert found == pytest.approx(expected | {"queries": len(rows)})


def test_the_mirror_makes_a_difference(tiny_benchmark):
    torch.manual_seed(1)
    model, rows = build_model(MODEL).eval(), tiny_benchmark.rows("val")
    both = Config(model=MODEL.model_copy(update={"mirror": True}))
    shapes = [next(query_maps(model, tiny_benchmark.images[rows], config)).shape[0] for config in (both, Config())]
    assert shapes == [2 * len(rows), len(rows)]


def test_an_error_while_maps_are_read_leaves_no_autocast_behind(tiny_benchmark):
    config, model = Config(model=MODEL), build_model(MODEL).eval()
    for maps in (
        query_maps(model, tiny_benchmark.images[:2], config, precision="bf16"),
        view_maps(model, np.array(tiny_benchmark.views[:1]), config, precision="bf16"),
    ):
        assert next(maps).dtype == torch.bfloat16
        assert not torch.is_autocast_enabled("cpu")
        with pytest.raises(ZeroDivisionError):
            maps.throw(ZeroDivisionError)
        assert not torch.is_autocast_enabled("cpu")
