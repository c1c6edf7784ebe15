"""An index and a gallery that do not belong together are refused wherever they meet; several shapes can be right."""

import dataclasses

import numpy as np
import pytest
import torch

from cmiclib.config import Config, ModelConfig
from cmiclib.errors import BenchmarkError
from cmiclib.evaluation.examples import examples
from cmiclib.evaluation.released_protocol import released_table
from cmiclib.evaluation.report import Scored, pair_distances, report, score_index, shape_distances
from cmiclib.evaluation.unseen import evaluate_unseen, judge, overlaps
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model

CONFIG = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")
)


@pytest.fixture(scope="module")
def index(tiny_benchmark) -> ShapeIndex:
    torch.manual_seed(2)
    return ShapeIndex.build(build_model(CONFIG.model), tiny_benchmark, CONFIG)


def taken(benchmark, rows):
    """The benchmark with these shapes of its gallery, in this order."""
    arrays = {name: benchmark.arrays[name][rows] for name in ("views.npy", "points.npy", "voxels.npy")}
    shapes = benchmark.shapes.iloc[rows].reset_index(drop=True)
    return dataclasses.replace(benchmark, shapes=shapes, arrays={**benchmark.arrays, **arrays})


def fewer_views(benchmark):
    return dataclasses.replace(benchmark, arrays={**benchmark.arrays, "views.npy": benchmark.views[:, ::4]})


def other_pictures(benchmark):
    hashes = {**benchmark.meta["sha256"], "views.npy": "0" * 64}
    return dataclasses.replace(benchmark, meta={**benchmark.meta, "sha256": hashes})


def renamed(benchmark):
    names = benchmark.shapes.shape_id.replace("box/tall", "box/other")
    return dataclasses.replace(benchmark, shapes=benchmark.shapes.assign(shape_id=names))


@pytest.mark.parametrize(
    "changed, said",
    [
        (lambda b: taken(b, [1, 0, 2, 3, 4, 5, 6, 7]), "another order; in row 0 'box/tall', the index 'box/flat'"),
        (lambda b: taken(b, list(range(7))), "it has 7 shapes, the index 8"),
        (renamed, "other shapes; in row 1 'box/other'"),
        (fewer_views, "its shapes have 3 views, those of the index 12"),
        (other_pictures, "its views have changed"),
    ],
)
def test_an_index_knows_its_gallery(index, tiny_benchmark, changed, said, tmp_path):
    index.save(tmp_path / "x.index")
    for each in (index, ShapeIndex.load(tmp_path / "x.index")):
        each.check_gallery(tiny_benchmark)
        with pytest.raises(BenchmarkError, match=f"does not belong to the gallery 'tiny': .*{said}") as error:
            each.check_gallery(changed(tiny_benchmark))
        assert "cmic index" in error.value.fix


@pytest.mark.parametrize(
    "use",
    [
        score_index,
        lambda index, gallery: evaluate_unseen(index, gallery, gallery),
        lambda index, gallery: examples(index, gallery, gallery.rows("test")[:1]),
        lambda index, gallery: released_table(index, gallery, "simple"),
        lambda index, gallery: released_table(index, gallery, "shapenet", gallery=gallery),
    ],
)
def test_a_gallery_in_another_order_is_never_scored(index, tiny_benchmark, use):
    use(index, tiny_benchmark)
    with pytest.raises(BenchmarkError, match="another order"):
        use(index, taken(tiny_benchmark, [1, 0, 2, 3, 4, 5, 6, 7]))


@pytest.fixture(scope="module")
def several(tiny_benchmark):
    """Each photo of a box shows any of the three, of which its own is not the first."""
    queries = tiny_benchmark.queries.copy()
    queries.loc[queries.category == "box", "shape_id"] = "box/flat|box/tall|box/cube"
    return dataclasses.replace(tiny_benchmark, queries=queries)


def test_any_right_answer_is_at_distance_zero(several):
    rows = several.rows("test")
    boxes = rows[several.queries.category.to_numpy()[rows] == "box"]
    for found in range(3):
        answers = np.full(len(boxes), found)
        values = judge(answers, several, boxes, several)
        assert values["d_hau"].eq(0).all() and values["d_iou"].eq(1).all()
        assert pair_distances(answers, several, several, boxes)["d_iou"].tolist() == [1.0] * len(boxes)
    last = several.relevant(rows) & (np.cumsum(several.relevant(rows)[:, ::-1], axis=1)[:, ::-1] == 1)
    scored = Scored(torch.from_numpy(last).float(), rows, several)  # the last of the right shapes comes first
    assert shape_distances(scored) == {"d_hau": 0, "d_iou": 1}
    assert report(scored)["top1"] == 1


def test_a_wrong_answer_is_as_near_as_the_nearest_right_shape(several):
    rows = several.rows("test")
    boxes = rows[several.queries.category.to_numpy()[rows] == "box"][:1]
    ring = np.array([5])
    alone = [pair_distances(ring, several, dataclasses.replace(
        several, queries=several.queries.assign(shape_id=name)), boxes) for name in ("box/flat", "box/tall", "box/cube")
    ]  # fmt: skip
    found = pair_distances(ring, several, several, boxes)
    assert found["d_hau"][0] == min(each["d_hau"][0] for each in alone)
    assert found["d_iou"][0] == max(each["d_iou"][0] for each in alone)
    assert overlaps(several, boxes, several)[0, 5] == pytest.approx(found["d_iou"][0])


def test_the_released_table_counts_any_right_answer(several, index):
    scores = index.scores(index.embed(several.images[several.rows("test")]))
    hit = several.relevant(several.rows("test"))[np.arange(len(scores)), scores.argmax(dim=1).numpy()]
    table = released_table(index, several, "full")
    assert table.top1["total"] == pytest.approx(hit.mean())
    perfect = hit[several.queries.category.to_numpy()[several.rows("test")] == "box"]
    if perfect.all():
        assert table.d_hau["box"] == 0


def test_an_example_shows_the_best_scored_right_shape(several, index):
    rows = several.rows("test")
    rows = rows[several.queries.category.to_numpy()[rows] == "box"]
    query = index.embed(several.images[rows])
    best = index.scores(query)[:, :3].argmax(dim=1)
    shown = examples(index, several, rows, k=3)
    assert np.array_equal(shown.own_views, several.views[best.numpy()])
    assert best.ne(0).any(), "the first right shape must not always be the best"
