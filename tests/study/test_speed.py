"""What is counted is right; what is timed is timed fairly."""

import pytest
import torch

from cmiclib.config import Config, profile
from cmiclib.model import CMIC
from cmiclib.study.speed import (
    beside_limits,
    in_turns,
    least_seconds,
    median,
    random_gallery,
    search_work,
    seconds,
    step_cost,
)


def test_the_first_call_warms_up_and_does_not_count():
    calls = []
    assert len(seconds(lambda: calls.append(1), repeats=3)) == 3 and len(calls) == 4


def test_functions_take_turns():
    calls = []
    taken = in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2)
    assert calls == list("ababab") and {name: len(values) for name, values in taken.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize("values, expected", [([3.0], 3.0), ([1.0, 9.0, 2.0], 2.0), ([4.0, 1.0], 4.0)])
def test_the_median_is_one_of_the_values(values, expected):
    assert median(values) == expected


def test_a_gallery_of_noise_is_of_unit_vectors_and_always_the_same():
    query, views, weight = random_gallery(30, 4, torch.bfloat16)
    assert query.shape == (4, 128) and views.shape == (30, 12, 128) and weight.shape == (128, 128)
    assert views.dtype == torch.bfloat16
    torch.testing.assert_close(views.float().norm(dim=-1), torch.ones(30, 12), atol=1e-2, rtol=0)
    assert torch.equal(random_gallery(30, 4, torch.bfloat16)[1], views)


def test_a_search_reads_the_gallery_once_and_multiplies_it_twice():
    assert search_work(10, 3) == {"bytes": 10 * 12 * 128 * 4, "operations": 2 * (2 * 3 * 10 * 12 * 128)}
    assert search_work(10, 3, torch.bfloat16)["bytes"] == 10 * 12 * 128 * 2


def test_the_slower_limit_decides():
    row = {"bytes": 100, "operations": 6000, "copy_rate": 50.0, "product_rate": 2000.0}
    assert least_seconds(row) == 3.0 and least_seconds(row | {"copy_rate": 10.0}) == 10.0


def test_limits_are_measured_beside_a_function():
    calls = []
    row = beside_limits(lambda: calls.append(1), repeats=2, megabytes=1, side=32)
    assert len(calls) == 3 and len(row["seconds"]) == len(row["copy_seconds"]) == 2
    assert row["copy_rate"] == 2 * (1 << 20) / median(row["copy_seconds"])
    assert row["product_rate"] == 2 * 32**3 / median(row["product_seconds"])


def small(**train) -> Config:
    model = {"query_backbone": "test_resnet", "view_backbone": "test_resnet", "image_size": 32, "init": "random"}
    return Config.model_validate({"model": model, "train": {"batch": 4, "views": 2} | train})


def test_the_cost_of_a_step_with_frozen_stages_and_cells_is_counted():
    frozen = ["model.frozen=5", "model.grid=2", "model.mask=cutout", "train.copies=1", "train.view_copies=1"]
    cost = step_cost(small().override(frozen))
    assert 0 < cost["operations"] < step_cost(small())["operations"] / 10


def test_a_steps_cost_is_counted_without_taking_it():
    cost, twice = step_cost(small()), step_cost(small(batch=8))
    assert 1.9 < twice["operations"] / cost["operations"] < 2.1
    assert 1.9 < twice["activations"] / cost["activations"] < 2.1
    model = CMIC(small().model)
    learned = sum(p.nbytes for p in model.parameters())
    assert cost["weights"] == twice["weights"] == 4 * learned + sum(b.nbytes for b in model.buffers())


def test_the_cost_of_one_linear_layer_is_known():
    # Behind wholly frozen stages a step is the head: one product forward, two backward; and the scores, which are less.
    config = profile("demo")
    head = CMIC(config.model).query_encoder.head[1]
    rows = config.train.batch * (1 + config.train.views)
    products = 2 * head.weight.numel() * rows
    assert 3 * products <= step_cost(config)["operations"] < 3.5 * products
