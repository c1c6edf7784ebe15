"""The released ways of evaluating, against a plain loop, on an archive in the released layout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from released_archive import write_archive

from cmiclib.config import Config, ModelConfig
from cmiclib.errors import BenchmarkError, ConfigError
from cmiclib.evaluation.released_protocol import released_table
from cmiclib.geometry import modified_hausdorff, unpack_voxels, voxel_iou
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model
from cmiclib.sources import PrepareOptions
from cmiclib.sources.release import prepare_release

CONFIG = Config(
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random")
)


@pytest.fixture
def benchmark(tiny_benchmark, tmp_path):
    archive = write_archive(tiny_benchmark, tmp_path / "pix3d")
    return prepare_release(archive, tmp_path / "prepared", PrepareOptions(size=32, jobs=1, progress=False)).benchmark


@pytest.fixture
def index(benchmark):
    torch.manual_seed(2)
    return ShapeIndex.build(build_model(CONFIG.model), benchmark, CONFIG)


def distances(gallery, a, benchmark, b):
    hausdorff = modified_hausdorff(gallery.points[a] / 2, benchmark.points[b] / 2)
    return hausdorff, voxel_iou(unpack_voxels(gallery.voxels[a]), unpack_voxels(benchmark.voxels[b]))


def loop(index, benchmark, gallery, of_category):
    """Photo by photo, shape by shape, as the released script goes."""
    weight, found = index.attention, []
    own_row = {name: i for i, name in enumerate(benchmark.shapes.shape_id)}
    for row in benchmark.rows("test"):
        query = benchmark.queries.iloc[row]
        vector = index.embed(benchmark.images[row : row + 1])[0]
        scored = []
        for n, category in enumerate(gallery.shapes.category):
            if category == query.category or not of_category:
                share = torch.softmax(torch.stack([(weight @ vector) @ view for view in index.views[n]]), 0)
                scored.append((float(vector @ (share[:, None] * index.views[n]).sum(0)), -n))
        ranking = [-n for _, n in sorted(scored, reverse=True)]
        hausdorff, overlap = distances(gallery, ranking[0], benchmark, own_row[query.shape_id])
        found.append({
            "of": query.category, "top1": gallery.shapes.shape_id[ranking[0]] == query.shape_id,
            "top10": query.shape_id in gallery.shapes.shape_id[ranking[:10]].tolist(),
            "category": gallery.shapes.category[ranking[0]] == query.category, "d_hau": hausdorff, "d_iou": overlap,
        })  # fmt: skip
    return found


@pytest.mark.parametrize(
    "mode, columns", [("simple", ["top1", "category"]), ("full", ["top1", "top10", "category", "d_hau", "d_iou"])]
)
def test_own_gallery_equals_the_loop(index, benchmark, mode, columns):
    table = released_table(index, benchmark, mode)
    photos = loop(index, benchmark, benchmark, of_category=False)
    assert table.columns.tolist() == [*columns, "queries"]
    check(table, photos, columns)


def test_another_gallery_equals_the_loop(index, benchmark, tiny_benchmark):
    other = ShapeIndex.build(index.model, tiny_benchmark, CONFIG)
    table = released_table(other, benchmark, "shapenet", gallery=tiny_benchmark)
    photos = loop(other, benchmark, tiny_benchmark, of_category=True)
    assert table.columns.tolist() == ["d_hau", "d_iou", "queries"]
    check(table, photos, ["d_hau", "d_iou"])


def check(table, photos, columns):
    parts = {name: [p for p in photos if p["of"] == name] for name in {p["of"] for p in photos}} | {"total": photos}
    assert table.index.tolist() == [*sorted(set(parts) - {"total"}), "total"]
    for name, part in parts.items():
        assert table.queries[name] == len(part)
        for column in columns:
            assert table.loc[name, column] == pytest.approx(np.mean([p[column] for p in part]), abs=1e-5)


@pytest.mark.parametrize("mode, gallery", [("simple", True), ("full", True), ("shapenet", False)])
def test_a_gallery_belongs_to_one_mode(index, benchmark, mode, gallery):
    with pytest.raises(ConfigError, match="--gallery"):
        released_table(index, benchmark, mode, gallery=benchmark if gallery else None)


def test_unknown_modes_empty_splits_and_missing_categories_say_so(index, benchmark, tiny_benchmark):
    with pytest.raises(ConfigError, match="simple, full, shapenet"):
        released_table(index, benchmark, "fast")
    fewer = type(tiny_benchmark)(**{
        **{f: getattr(tiny_benchmark, f) for f in tiny_benchmark.__dataclass_fields__},
        "shapes": tiny_benchmark.shapes.assign(category="box"),
    })  # fmt: skip
    with pytest.raises(BenchmarkError, match="no shapes of: odd, round"):
        released_table(ShapeIndex.build(index.model, fewer, CONFIG), benchmark, "shapenet", gallery=fewer)


def test_a_gallery_with_views_of_another_protocol_is_refused(index, benchmark, tiny_benchmark):
    protocol = {**tiny_benchmark.meta["protocol"], "fov": 40.0}
    other = replace(tiny_benchmark, meta={**tiny_benchmark.meta, "protocol": protocol})
    with pytest.raises(BenchmarkError, match=r"made in another way .*: fov"):
        released_table(index, benchmark, "shapenet", gallery=other)
