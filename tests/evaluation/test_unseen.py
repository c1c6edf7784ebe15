"""Retrieval in a repository without the own shape, against a plain loop over photos and shapes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmiclib.config import Config, ModelConfig
from cmiclib.embed import embed_gallery, embed_queries
from cmiclib.errors import BenchmarkError, MissingArrayError
from cmiclib.evaluation.report import Scored, check_protocols
from cmiclib.evaluation.unseen import (
    drawn,
    evaluate_unseen,
    judge_scores,
    nearest,
    overlaps,
    same_category,
    without_own,
)
from cmiclib.geometry import modified_hausdorff, unpack_voxels, voxel_iou
from cmiclib.index import ShapeIndex
from cmiclib.metrics import bootstrap_interval
from cmiclib.model import attention_scores, build_model

SMALL = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", image_size=32, dim=16, init="random")
)


def part_of(benchmark, shapes):
    """A gallery of some of the benchmark's shapes, in another order, without photos."""
    rows = [benchmark.shapes.shape_id.tolist().index(shape_id) for shape_id in shapes]
    arrays = {name: benchmark.arrays[name][rows] for name in ("views.npy", "points.npy", "voxels.npy")}
    return replace(benchmark, shapes=benchmark.shapes.iloc[rows].reset_index(drop=True), arrays=arrays)


@pytest.fixture(scope="module")
def gallery(tiny_benchmark):
    return part_of(tiny_benchmark, ["round/ring", "odd/corner", "box/tall", "round/tube", "box/cube"])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return build_model(SMALL.model).eval()


def made_up(benchmark, gallery, rows):
    return torch.randn(len(rows), len(gallery.shapes), generator=torch.Generator().manual_seed(4))


def evaluate(model, benchmark, gallery):
    return evaluate_unseen(ShapeIndex.build(model, gallery, SMALL), benchmark, gallery)


def loop(scores, benchmark, gallery, rows):
    """Photo by photo; rankings as lists, distances pair by pair."""
    photos = []
    for line, row in zip(scores.tolist(), rows, strict=True):
        query = benchmark.queries.iloc[row]
        own = benchmark.shapes.shape_id.tolist().index(query.shape_id)
        order = sorted(range(len(line)), key=lambda n: (-line[n], n))
        given = [n for n in order if gallery.shapes.category[n] == query.category]
        photo = {"shape": query.shape_id, "category": float(order[0] in given)}
        for prefix, n in (("", order[0]), ("given_", given[0])):
            a, b = gallery.points[n].astype(np.float32) / 2, benchmark.points[own].astype(np.float32) / 2
            photo[f"{prefix}d_hau"] = modified_hausdorff(a, b)
            grids = unpack_voxels(gallery.voxels[n]), unpack_voxels(benchmark.voxels[own])
            photo[f"{prefix}d_iou"] = voxel_iou(*grids)
        photos.append(photo)
    return photos


def test_judging_equals_the_loop(tiny_benchmark, gallery):
    rows = tiny_benchmark.rows("test")
    scores = made_up(tiny_benchmark, gallery, rows)
    values = judge_scores(scores, tiny_benchmark, rows, gallery)
    photos = loop(scores, tiny_benchmark, gallery, rows)
    assert set(values) == {"category", "d_hau", "d_iou", "given_d_hau", "given_d_iou"}
    for name, value in values.items():
        np.testing.assert_allclose(value.numpy(), [photo[name] for photo in photos], rtol=1e-9, atol=1e-12)
    assert 0 < values["category"].mean() < 1 and not torch.equal(values["d_iou"], values["given_d_iou"])


def test_a_model_in_another_repository_equals_the_loop_with_intervals_over_shapes(tiny_benchmark, gallery, model):
    rows = tiny_benchmark.rows("test")
    vectors = embed_queries(model, tiny_benchmark.images[rows], SMALL)
    views = embed_gallery(model, gallery.views, SMALL)
    photos = loop(attention_scores(vectors, views, model.attention_weight.detach()), tiny_benchmark, gallery, rows)
    figures = evaluate(model, tiny_benchmark, gallery)
    for name in ("category", "d_hau", "d_iou", "given_d_hau", "given_d_iou"):
        expected = [photo[name] for photo in photos]
        assert figures[name] == pytest.approx(np.mean(expected), abs=1e-6)
        interval = bootstrap_interval(np.array(expected), [photo["shape"] for photo in photos])
        assert (figures[f"{name}_low"], figures[f"{name}_high"]) == pytest.approx(interval, abs=1e-6)
    assert (figures["queries"], figures["left_out"], figures["gallery_size"]) == (len(rows), 0, 5)


def test_photos_of_a_category_that_the_repository_lacks_are_left_out_and_counted(tiny_benchmark, model):
    boxes = part_of(tiny_benchmark, ["box/tall", "box/cube"])
    figures = evaluate(model, tiny_benchmark, boxes)
    category = tiny_benchmark.queries.category[tiny_benchmark.rows("test")]
    assert (figures["queries"], figures["left_out"]) == ((category == "box").sum(), (category != "box").sum())
    assert figures["category"] == 1 and figures["d_iou"] == figures["given_d_iou"]
    strange = replace(boxes, shapes=boxes.shapes.assign(category="lamp"))
    with pytest.raises(BenchmarkError, match="no shapes of: box, odd, round"):
        evaluate(model, tiny_benchmark, strange)


def test_views_of_another_protocol_are_refused(tiny_benchmark, gallery, model):
    other = replace(gallery, meta={**gallery.meta, "protocol": {**gallery.meta["protocol"], "elevation": 30.0}})
    with pytest.raises(BenchmarkError, match="another way than those of 'tiny': elevation"):
        evaluate(model, tiny_benchmark, other)
    check_protocols(tiny_benchmark, gallery)


def test_without_points_or_voxels_their_distance_is_missing(tiny_benchmark, gallery, model):
    bare = replace(gallery, arrays={"views.npy": gallery.views, "voxels.npy": gallery.voxels})
    figures = evaluate(model, tiny_benchmark, bare)
    assert {"category", "d_iou", "given_d_iou"} <= set(figures) and "d_hau" not in figures
    with pytest.raises(MissingArrayError, match=r"voxels\.npy"):
        overlaps(tiny_benchmark, np.array([0]), replace(gallery, arrays={"views.npy": gallery.views}))


def test_the_own_group_is_hidden_and_nothing_else(tiny_benchmark):
    rows = tiny_benchmark.rows("test")
    scored = Scored(torch.from_numpy(tiny_benchmark.relevant(rows)).float(), rows, tiny_benchmark)
    hidden, there = without_own(scored)
    category = tiny_benchmark.queries.category.to_numpy()
    assert set(category[hidden.rows]) == {"box", "round"}, "all odd shapes are variants of one another"
    assert len(hidden.rows) == (category[rows] != "odd").sum()
    ids = tiny_benchmark.shapes.shape_id.to_numpy()
    for line, mask, row in zip(hidden.scores, there, hidden.rows, strict=True):
        assert ids[~mask].tolist() == [tiny_benchmark.queries.shape_id[row]]
        assert torch.equal(line == -torch.inf, torch.from_numpy(~mask))
    values = judge_scores(hidden.scores, tiny_benchmark, hidden.rows, tiny_benchmark)
    assert values["d_hau"].min() > 0 and values["given_d_iou"].max() < 1, "the own shape never comes first"


@pytest.mark.parametrize("at_once", [1000, 4096, 1 << 30])
def test_overlaps_equal_the_protocol_pair_by_pair(tiny_benchmark, gallery, monkeypatch, at_once):
    monkeypatch.setattr("cmiclib.evaluation.unseen.BYTES_AT_ONCE", at_once)
    own, every = [6, 0, 3], tiny_benchmark.relevant(tiny_benchmark.rows())
    rows = every[:, own].argmax(axis=0)  # the first photo of each
    found = overlaps(tiny_benchmark, rows, gallery)
    a = [unpack_voxels(tiny_benchmark.voxels[i]) for i in own]
    b = [unpack_voxels(grid) for grid in gallery.voxels]
    np.testing.assert_allclose(found, [[voxel_iou(x, y) for y in b] for x in a], rtol=1e-6)
    assert found[0, 1] == 1, "odd/corner is on both sides"


def test_empty_grids_are_equal(tiny_benchmark):
    empty = replace(tiny_benchmark, arrays={**tiny_benchmark.arrays, "voxels.npy": np.zeros((8, 1 << 18), np.uint8)})
    assert (overlaps(empty, np.array([0, 1]), empty) == 1).all()
    assert (overlaps(empty, np.array([0]), tiny_benchmark) == 0).all()


def test_nothing_that_is_there_is_nearer_than_the_nearest():
    overlap = np.array([[0.9, 0.5, 0.7], [0.0, 0.0, 0.0]])
    there = np.array([[False, True, True], [False, False, True]])
    assert nearest(overlap, there).tolist() == [2, 2]


def test_shapes_are_drawn_with_equal_chances_from_what_is_there():
    there = np.tile([True, False, True, True], (6000, 1))
    counts = np.bincount(drawn(there), minlength=4)
    assert counts[1] == 0 and abs(counts[[0, 2, 3]] - 2000).max() < 150  # 4 standard deviations
    assert np.array_equal(drawn(there), drawn(there)) and not np.array_equal(drawn(there), drawn(there, seed=1))


def test_categories_are_compared_by_name(tiny_benchmark, gallery):
    rows = tiny_benchmark.rows("test")
    same = same_category(tiny_benchmark, rows, gallery)
    for i, row in enumerate(rows):
        assert same[i].tolist() == (gallery.shapes.category == tiny_benchmark.queries.category[row]).tolist()
