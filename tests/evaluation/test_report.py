"""Evaluation against loops, on scores that are made up so that every figure is known."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.errors import BenchmarkError
from cmiclib.evaluation import report as module
from cmiclib.evaluation.report import (
    Scored,
    by_category,
    by_part,
    evaluate_scored,
    learnt_scores,
    packed_iou,
    report,
    score_run,
    shape_distances,
)
from cmiclib.geometry import modified_hausdorff, unpack_voxels, voxel_iou
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model
from cmiclib.training.loop import train

SMALL = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", image_size=32, dim=16, init="random"),
    train=TrainConfig(batch=4, steps=2, views=2, lr=1e-3, eval_every=1, log_every=1),
)


@pytest.fixture
def scored(tiny_benchmark):
    rows = tiny_benchmark.rows("test")
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(len(rows), len(tiny_benchmark.shapes), generator=generator)
    return Scored(noise + torch.from_numpy(tiny_benchmark.relevant(rows)), rows, tiny_benchmark)


def perfect(benchmark, split="test"):
    rows = benchmark.rows(split)
    return Scored(torch.from_numpy(benchmark.relevant(rows)).float(), rows, benchmark)


def test_a_perfect_ranking_is_perfect_in_every_figure(tiny_benchmark):
    figures = report(perfect(tiny_benchmark))
    for name in ("top1", "top10", "category", "map10", "mrr", "macro_top1", "given_top1", "group_top1", "top1_low"):
        assert figures[name] == 1
    assert figures["d_hau"] == 0
    assert figures["d_iou"] == 1


def test_figures_equal_a_loop_over_queries(scored, tiny_benchmark):
    hits = []
    for scores, row in zip(scored.scores, scored.rows, strict=True):
        hits.append(tiny_benchmark.shapes.shape_id[int(scores.argmax())] == tiny_benchmark.queries.shape_id[row])
    assert report(scored, distances=False)["top1"] == pytest.approx(np.mean(hits))
    assert 0 < np.mean(hits) < 1, "the made-up scores must not be all right or all wrong"


def test_a_variant_counts_only_in_the_group_figure(tiny_benchmark):
    """The two variants of one group, each answered with the other."""
    rows = tiny_benchmark.rows("test", seen=False)
    own = torch.from_numpy(tiny_benchmark.relevant(rows))
    variant = torch.from_numpy(tiny_benchmark.group_relevant(rows)) & ~own
    figures = report(Scored(variant.float(), rows, tiny_benchmark), distances=False)
    assert figures["top1"] == 0
    assert figures["group_top1"] == 1


def test_category_given_searches_only_that_category(tiny_benchmark):
    """All shapes of other categories score higher; among its own the right shape is first."""
    rows = tiny_benchmark.rows("test")
    other = tiny_benchmark.query_category(rows)[:, None] != tiny_benchmark.shape_category()[None]
    scores = torch.from_numpy(2.0 * other + tiny_benchmark.relevant(rows)).float()
    figures = report(Scored(scores, rows, tiny_benchmark), distances=False)
    assert (figures["top1"], figures["given_top1"]) == (0, 1)


def test_the_margin_is_positive_exactly_where_the_first_is_right(scored):
    table = scored.table()
    assert ((table.margin > 0) == (table.top1 == 1)).all()
    assert (table["first"] == table.shape_id).tolist() == (table.top1 == 1).tolist()


def test_the_table_says_what_came_first_and_how_far_down_the_own_shape_is(scored, tiny_benchmark):
    shapes = tiny_benchmark.shapes.set_index("shape_id")
    for scores, line in zip(scored.scores, scored.table().to_dict("records"), strict=True):
        order = shapes.index[scores.argsort(descending=True).numpy()].tolist()
        assert line["category"] == tiny_benchmark.queries.category[line["row"]]
        assert (line["first"], line["found"]) == (order[0], shapes.category[order[0]])
        assert line["rank"] == order.index(line["shape_id"]) + 1
        same_group = shapes.group[order[0]] == shapes.group[line["shape_id"]]
        assert line["variant"] == (order[0] != line["shape_id"] and same_group)


def test_parts_are_judged_apart_and_empty_ones_left_out(scored):
    table = scored.table()
    right = (table.top1 == 1).to_numpy()
    parts = by_part(scored, {"right": right, "wrong": ~right, "none": np.zeros(len(right), bool)})
    assert parts["of"].tolist() == ["right", "wrong"]
    assert parts.top1.tolist() == [1, 0]
    assert parts.queries.tolist() == [right.sum(), (~right).sum()]
    assert parts.mrr[1] == pytest.approx((1 / table["rank"][~right]).mean())


def test_distances_equal_the_protocol_pair_by_pair(scored, tiny_benchmark):
    first = scored.scores.argmax(1).tolist()
    own = tiny_benchmark.relevant(scored.rows).argmax(1)
    points, voxels = tiny_benchmark.points.astype(np.float32), tiny_benchmark.voxels
    pairs = list(zip(first, own, strict=True))
    hausdorff = [modified_hausdorff(points[a] / 2, points[b] / 2) if a != b else 0 for a, b in pairs]
    overlap = [voxel_iou(unpack_voxels(voxels[a]), unpack_voxels(voxels[b])) for a, b in pairs]
    figures = shape_distances(scored)
    assert figures["d_hau"] == pytest.approx(np.mean(hausdorff), rel=1e-9)
    assert figures["d_iou"] == pytest.approx(np.mean(overlap), rel=1e-9)


def test_packed_iou_of_known_bits():
    assert packed_iou(np.array([0b1111], np.uint8), np.array([0b0011], np.uint8)) == 0.5
    assert packed_iou(np.zeros(2, np.uint8), np.zeros(2, np.uint8)) == 1


def test_by_category_adds_up(scored):
    table = by_category(scored)
    total = report(scored, distances=False)
    assert table.queries.sum() == total["queries"]
    assert (table.top1 * table.queries).sum() / total["queries"] == pytest.approx(total["top1"])


def evaluate_run(run, benchmark, **options):
    return evaluate_scored(score_run(run, benchmark), run.config, **options)


def test_a_run_is_evaluated_whole_and_the_same_twice(tiny_benchmark, tmp_path):
    run = train(SMALL, tiny_benchmark, tmp_path / "run", progress=False)
    untrained = {"untrained": torch.zeros(len(tiny_benchmark.rows("test")), len(tiny_benchmark.shapes))}
    figures = evaluate_run(run, tiny_benchmark, untrained=untrained)
    assert json.dumps(figures) == json.dumps(evaluate_run(run, tiny_benchmark, untrained=untrained))
    assert figures["gallery_size"] == len(tiny_benchmark.shapes)
    assert figures["seen"]["queries"] + figures["unseen"]["queries"] == len(tiny_benchmark.rows("test"))
    for part in ("seen", "unseen", "untrained", "untrained_unseen", "chance", "prior"):
        assert 0 <= figures[part]["top1"] <= figures[part]["top10"] <= 1
    assert score_run(run, tiny_benchmark).scores.abs().max() <= 1 + 1e-5


def test_learnt_numbers_alone_score_as_the_model_without_fixed_ones(tiny_benchmark):
    torch.manual_seed(0)
    plain = {"frozen": 5, "grid": 2, "mask": "cutout"}
    model = build_model(SMALL.model.model_copy(update=plain | {"fixed": 4}))
    torch.nn.init.normal_(model.query_encoder.fixed.weight)
    without = build_model(SMALL.model.model_copy(update=plain))
    without.load_state_dict({name: value for name, value in model.state_dict().items() if "fixed" not in name})
    index, bare = ShapeIndex.build(model, tiny_benchmark), ShapeIndex.build(without, tiny_benchmark)
    photos = tiny_benchmark.images[:6]
    expected = bare.scores(bare.embed(photos))
    assert not torch.allclose(index.scores(index.embed(photos)), expected, atol=1e-3)
    torch.testing.assert_close(learnt_scores(index, index.embed(photos))["learnt"], expected, rtol=1e-5, atol=1e-6)
    assert learnt_scores(bare, bare.embed(photos)) == {}


def test_an_empty_split_is_one_clear_error(tiny_benchmark, tmp_path, monkeypatch):
    run = train(SMALL, tiny_benchmark, tmp_path / "run", progress=False)
    monkeypatch.setattr(type(tiny_benchmark), "rows", lambda self, *a, **k: np.zeros(0, np.int64))
    with pytest.raises(BenchmarkError, match="no photos in split 'test'"):
        evaluate_run(run, tiny_benchmark)


def test_scores_are_judged_alike_in_blocks(tiny_benchmark, monkeypatch):
    rows = tiny_benchmark.rows("all")
    scored = Scored(torch.rand(len(rows), len(tiny_benchmark.shapes)), rows, tiny_benchmark)
    whole, table = [scored.metrics(group=group) for group in (False, True)], scored.table()
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 5 * len(tiny_benchmark.shapes))
    assert len(list(scored.blocks())) > 2
    for group, values in zip((False, True), whole, strict=True):
        assert all(torch.equal(values[name], value) for name, value in scored.metrics(group=group).items())
    pd.testing.assert_frame_equal(scored.table(), table)


LARGE = """
from pathlib import Path
import numpy as np, pandas as pd, torch
from cmiclib.benchmark import Benchmark, FLAG_COLUMNS
from cmiclib.evaluation.report import Scored, report
from cmiclib.index import ShapeIndex
from cmiclib.study.speed import peak_memory

shapes, queries, rng = 50_000, 2_000, np.random.default_rng(0)
ids = [f"s{i}" for i in range(shapes)]
category = np.array(["bed", "chair", "sofa", "table"])[rng.integers(0, 4, shapes)]
own = rng.integers(0, shapes, queries)
table = pd.DataFrame({"shape_id": ids, "category": category, "group": [f"g{i // 2}" for i in range(shapes)]})
photos = pd.DataFrame({"query_id": range(queries), "shape_id": [ids[i] for i in own], "category": category[own],
                       "split": "test", **{flag: True for flag in FLAG_COLUMNS}})
benchmark = Benchmark(Path("."), {"name": "large"}, table, photos, {})
views = torch.nn.functional.normalize(torch.randn(shapes, 12, 128), dim=-1)
index = ShapeIndex.from_arrays(views.numpy(), np.eye(128), ids)
query = torch.nn.functional.normalize(views[own].mean(1), dim=-1)
figures = report(Scored(index.scores(query), np.arange(queries), benchmark))
assert figures["queries"] == queries and figures["top1"] > 0.99, figures
print(peak_memory())
"""


@pytest.mark.slow
def test_two_thousand_photos_over_fifty_thousand_shapes_need_less_than_three_gigabytes():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    assert 3e8 < peak < 3e9  # the vectors alone are 307 MB
