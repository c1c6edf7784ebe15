"""Vectors of a kept gallery: only new shapes are embedded, and the index is what `ShapeIndex.build` makes."""

from pathlib import Path

import pytest
import torch
import trimesh

from cmiclib.index import ShapeIndex, folder
from cmiclib.index.folder import kept_index
from cmiclib.sources import PrepareOptions
from cmiclib.sources.own.kept import keep_gallery

OPTIONS = PrepareOptions(size=32, jobs=1, progress=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name, size in (("a", 1), ("b", 2), ("c", 3)):
        trimesh.creation.box((1, size, 1)).export(tmp_path / f"models/{name}.obj")
    return tmp_path / "models"


def test_only_new_shapes_are_embedded(models, tmp_path, untrained_run, monkeypatch):
    cache, embedded, embed = tmp_path / "cache", [], folder.embed_gallery

    def count(model, views, *rest, **more):
        embedded.append(len(views))
        return embed(model, views, *rest, **more)

    monkeypatch.setattr(folder, "embed_gallery", count)
    first = keep_gallery(models, cache, OPTIONS)
    index = kept_index(untrained_run, first.benchmark, first.digests, cache, progress=False)
    built = ShapeIndex.build(untrained_run.model(), first.benchmark, untrained_run.config)
    assert torch.allclose(index.views, built.views, atol=1e-6)
    assert index.shape_ids == ["a", "b", "c"]
    index.check_gallery(first.benchmark)

    trimesh.creation.icosphere(1).export(models / "ball.ply")
    second = keep_gallery(models, cache, OPTIONS)
    larger = kept_index(untrained_run, second.benchmark, second.digests, cache, progress=False)
    assert larger.shape_ids == ["a", "b", "ball", "c"]
    assert embedded == [3, 1]
    kept_index(untrained_run, second.benchmark, second.digests, cache, progress=False)
    assert embedded == [3, 1]


def test_other_weights_have_vectors_of_their_own(models, tmp_path, untrained_run):
    from safetensors.torch import load_file, save_file

    cache = tmp_path / "cache"
    gallery = keep_gallery(models, cache, OPTIONS)
    before = kept_index(untrained_run, gallery.benchmark, gallery.digests, cache, progress=False)
    weights = load_file(untrained_run.path / "model.safetensors")
    weights["view_encoder.head.1.weight"] = -weights["view_encoder.head.1.weight"]
    save_file(weights, untrained_run.path / "model.safetensors")
    after = kept_index(untrained_run, gallery.benchmark, gallery.digests, cache, progress=False)
    assert not torch.allclose(before.views, after.views)
