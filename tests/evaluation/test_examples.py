"""Examples for figures, and the rules that choose them."""

import numpy as np
import pandas as pd
import pytest
import torch

from cmiclib.config import Config
from cmiclib.evaluation.examples import examples, parameter_counts, typical, worst
from cmiclib.index import ShapeIndex
from cmiclib.model import CMIC, attention_weights

SETTINGS = {
    "profile": "test",
    "model": {"query_backbone": "test_resnet", "view_backbone": "test_resnet", "image_size": 32, "init": "random"},
}


@pytest.fixture(scope="module")
def index(tiny_benchmark) -> ShapeIndex:
    torch.manual_seed(0)
    config = Config.model_validate(SETTINGS)
    return ShapeIndex.build(CMIC(config.model), tiny_benchmark, config)


def test_examples_show_what_search_finds(index, tiny_benchmark):
    rows = tiny_benchmark.rows("test")[:3]
    shown = examples(index, tiny_benchmark, rows, k=4)
    query = index.embed(tiny_benchmark.images[rows])
    result = index.search(query, k=4)
    np.testing.assert_allclose(shown.scores, result.scores.numpy(), rtol=1e-6)
    place = {shape_id: i for i, shape_id in enumerate(tiny_benchmark.shapes.shape_id)}
    for r, row in enumerate(rows):
        own = tiny_benchmark.queries.shape_id[row]
        assert shown.right[r].tolist() == [shape_id == own for shape_id in result.ids[r]]
        np.testing.assert_array_equal(shown.photos[r], tiny_benchmark.images[row])
        np.testing.assert_array_equal(shown.own_views[r], tiny_benchmark.views[place[own]])
        for shape_id, weights, picture in zip(result.ids[r], result.weights[r], shown.found[r], strict=True):
            np.testing.assert_array_equal(picture, tiny_benchmark.views[place[shape_id], int(weights.argmax())])
        weights = attention_weights(query[r : r + 1], index.views[place[own]][None], index.attention)[0, 0]
        np.testing.assert_allclose(shown.own_weights[r], weights, rtol=1e-5)
        np.testing.assert_array_equal(shown.own[r], tiny_benchmark.views[place[own], int(weights.argmax())])


TABLE = pd.DataFrame(
    {
        "query_id": list("abcdefg"),
        "shape_id": ["s1", "s1", "s2", "s3", "s3", "s4", "s5"],
        "category": ["chair", "chair", "chair", "table", "table", "bed", "chair"],
        "margin": [-0.5, -0.4, 0.3, -0.1, 0.2, -0.9, 0.1],
    }
)


@pytest.mark.parametrize("frozen", [0, 5])
def test_parameters_are_counted_by_part(frozen):
    counts = parameter_counts(CMIC(Config.model_validate(SETTINGS | {
        "model": SETTINGS["model"] | {"dim": 16, "frozen": frozen, "mask": "cutout"}
    }).model))  # fmt: skip
    assert counts["attention W"] == 16 * 16
    assert counts["photo encoder, head"] == counts["view encoder, head"] == 2 * 96 + 96 * 16 + 16
    parts = [value for name, value in counts.items() if name not in ("all", "trained")]
    assert counts["all"] == sum(parts)
    bodies = counts["photo encoder, backbone"] + counts["view encoder, backbone"]
    assert counts["trained"] == counts["all"] - (bodies if frozen else 0)


def test_typical_takes_the_median_of_the_largest_categories():
    assert typical(TABLE, 2).query_id.tolist() == ["g", "e"]  # chairs: -0.5 -0.4 | 0.1 | 0.3


def test_worst_takes_one_failure_of_each_shape_and_no_success():
    assert worst(TABLE, 9).query_id.tolist() == ["f", "a", "d"]
    assert worst(TABLE, 1).query_id.tolist() == ["f"]
    assert worst(TABLE[TABLE.margin > 0], 3).empty
