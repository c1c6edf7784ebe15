"""Kept results: computed once, loaded afterwards, never used for other data or weights."""

import dataclasses
from pathlib import Path

import pytest
import torch
import trimesh
from safetensors.torch import load_file, save_file

from cmiclib.config import Config
from cmiclib.index import ShapeIndex
from cmiclib.index import cache as kept
from cmiclib.io.atomic import write_json
from cmiclib.model import CMIC
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own.kept import keep_gallery
from cmiclib.training.run import Run, save_weights

SETTINGS = {
    "profile": "test",
    "model": {"query_backbone": "test_resnet", "view_backbone": "test_resnet", "image_size": 32, "init": "random"},
}


@pytest.fixture
def run(tmp_path) -> Run:
    config = Config.model_validate(SETTINGS)
    save_weights(tmp_path / "run" / "model.safetensors", CMIC(config.model))
    write_json(tmp_path / "run" / "config.json", config.model_dump(mode="json"))
    return Run.open(tmp_path / "run")


def other(benchmark):
    meta = benchmark.meta | {"sha256": benchmark.meta["sha256"] | {"views.npy": "0" * 64}}
    return dataclasses.replace(benchmark, meta=meta)


def test_an_index_is_loaded_the_second_time(run, tiny_benchmark, monkeypatch):
    first = kept.gallery_index(run, tiny_benchmark)
    monkeypatch.setattr(kept.ShapeIndex, "build", None)  # building again would fail
    again = kept.gallery_index(run, tiny_benchmark)
    torch.testing.assert_close(again.views, first.views, rtol=0, atol=0)
    photos = tiny_benchmark.images[:3]
    torch.testing.assert_close(again.embed(photos), first.embed(photos), rtol=0, atol=0)


def test_other_weights_or_another_gallery_make_another_index(run, tiny_benchmark):
    kept.gallery_index(run, tiny_benchmark)
    kept.gallery_index(run, other(tiny_benchmark))
    assert len(list(run.path.glob("index-*.safetensors"))) == 2
    state = load_file(run.path / "model.safetensors")
    save_file(state | {"attention_weight": state["attention_weight"] * 2}, run.path / "model.safetensors")
    doubled = kept.gallery_index(run, tiny_benchmark)
    torch.testing.assert_close(doubled.attention, 2 * state["attention_weight"])
    assert len(list(run.path.glob("index-*.safetensors"))) == 3


def test_other_options_with_the_same_weights_make_another_index(run, tiny_benchmark):
    plain = kept.gallery_index(run, tiny_benchmark)
    mirrored = dataclasses.replace(run, config=run.config.override(["model.mirror=true"]))
    both = kept.gallery_index(mirrored, tiny_benchmark)
    assert both.config.model.mirror and len(list(run.path.glob("index-*.safetensors"))) == 2
    photos = tiny_benchmark.images[:3]
    assert not torch.allclose(both.embed(photos), plain.embed(photos), atol=1e-3)


def test_the_second_answer_is_the_first(run, tiny_benchmark):
    first, again = (kept.gallery_index(run, tiny_benchmark) for _ in range(2))
    assert (again.device, again.precision) == (first.device, first.precision)
    photos = tiny_benchmark.images[:3]
    torch.testing.assert_close(again.scores(again.embed(photos)), first.scores(first.embed(photos)), rtol=0, atol=1e-6)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name, size in (("a", 1), ("b", 2), ("c", 3)):
        trimesh.creation.box((1, size, 1)).export(tmp_path / f"models/{name}.obj")
    return tmp_path / "models"


def test_of_a_folder_of_meshes_only_new_shapes_are_embedded(models, tmp_path, run, monkeypatch):
    embedded, embed = [], kept.embed_gallery

    def count(model, views, *rest):
        embedded.append(len(views))
        return embed(model, views, *rest)

    monkeypatch.setattr(kept, "embed_gallery", count)
    options = PrepareOptions(size=32, jobs=1, progress=False)
    first = keep_gallery(models, tmp_path / "cache", options).benchmark
    index = kept.gallery_index(run, first)
    built = ShapeIndex.build(run.model(), first, run.config)
    assert torch.allclose(index.views, built.views, atol=1e-6)
    assert index.shape_ids == ["a", "b", "c"]
    index.check_gallery(first)

    trimesh.creation.icosphere(1).export(models / "ball.ply")
    second = keep_gallery(models, tmp_path / "cache", options).benchmark
    assert kept.gallery_index(run, second).shape_ids == ["a", "b", "ball", "c"]
    assert embedded == [3, 1]
    kept.gallery_index(run, second)
    assert embedded == [3, 1]
    assert not list(run.path.glob("index-*"))

    weights = load_file(run.path / "model.safetensors")
    weights["view_encoder.head.1.weight"] = -weights["view_encoder.head.1.weight"]
    save_file(weights, run.path / "model.safetensors")
    assert not torch.allclose(kept.gallery_index(run, first).views, index.views)


def test_nothing_is_written_into_the_folder_of_shipped_weights(tiny_benchmark, run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "WEIGHTS", run.path.parent)
    before = sorted(run.path.iterdir())
    first = kept.gallery_index(run, tiny_benchmark)
    assert sorted(run.path.iterdir()) == before
    assert len(list((tmp_path / "cache/cmic/indexes").iterdir())) == 1
    monkeypatch.setattr(ShapeIndex, "build", None)
    assert torch.equal(kept.gallery_index(run, tiny_benchmark).views, first.views)
