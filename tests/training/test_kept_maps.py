"""Maps of frozen stages in files: the same as made on the spot, shared where they may be, and only there."""

import shutil
from pathlib import Path

import pytest
import torch

from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.errors import ConfigError
from cmiclib.study.variants import Change, apply_variant
from cmiclib.training import kept_maps as module
from cmiclib.training.kept_maps import kept_maps
from cmiclib.training.loop import train

CPU = torch.device("cpu")
CONFIG = Config(
    profile="test",
    model=ModelConfig(
        query_backbone="resnet10t",
        view_backbone="resnet10t",
        dim=16,
        image_size=32,
        init="random",
        frozen=2,
        mask="cutout",
    ),
    train=TrainConfig(batch=4, steps=4, views=2, copies=2, view_copies=2, lr=1e-3, log_every=2, eval_every=2, seed=5),
)


def made(folder):
    return {path.name for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def kept(tiny_benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return folder, kept_maps(CONFIG, tiny_benchmark, folder)


@pytest.fixture
def folder(kept, tmp_path):
    return Path(shutil.copytree(kept[0], tmp_path / "maps"))


def test_a_run_with_kept_maps_is_the_run_without(tiny_benchmark, tmp_path):
    plain = train(CONFIG, tiny_benchmark, tmp_path / "plain", progress=False, device=CPU)
    for name in ("first", "second"):  # made, then loaded
        maps = kept_maps(CONFIG, tiny_benchmark, tmp_path / "maps")
        run = train(CONFIG, tiny_benchmark, tmp_path / name, progress=False, device=CPU, maps=maps)
        assert run.log.drop(columns="seconds").equals(plain.log.drop(columns="seconds"))
    assert len(made(tmp_path / "maps")) == 4


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        (["loss.tau=0.2", "model.fusion=mean", "train.batch=3", "train.views=1", "model.dropout=0.5"], set()),
        (["augment.color=none"], {"photos"}),
        (["augment.view_scale=[0.9,1]"], {"views"}),
        (["augment.flip=false"], {"photos", "views"}),
        (["model.mask=none"], {"photos", "still-photos"}),
        (["train.copies=1"], {"photos"}),
        (["train.view_copies=1"], {"views"}),
        (Change(views=3), {"views", "still-views"}),
        (Change(shading="none"), {"views", "still-views"}),
        (Change(mask_error=1.0), {"photos", "still-photos"}),
        (["train.seed=6"], {"photos", "views", "still-photos", "still-views"}),  # its frozen weights are random
    ],
)
def test_only_what_changes_is_made_again(tiny_benchmark, folder, changes, new):
    before = made(folder)
    if isinstance(changes, Change):
        kept_maps(CONFIG, apply_variant(tiny_benchmark, changes), folder)
    else:
        kept_maps(CONFIG.override(changes), tiny_benchmark, folder)
    kinds = {name.rpartition("-")[0] for name in made(folder) - before}
    assert kinds == new


def test_changed_code_makes_everything_anew(tiny_benchmark, folder, monkeypatch):
    monkeypatch.setattr(module, "code_digest", lambda modules: "another")
    kept_maps(CONFIG, tiny_benchmark, folder)
    assert len(made(folder)) == 8


def test_a_damaged_file_is_made_again(tiny_benchmark, folder, kept):
    for path in folder.glob("photos-*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    again = kept_maps(CONFIG, tiny_benchmark, folder)
    torch.testing.assert_close(again.copies.photos, kept[1].copies.photos)


def test_without_copies_there_is_nothing_to_keep(tiny_benchmark, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.copies"):
        kept_maps(CONFIG.override(["train.copies=0"]), tiny_benchmark, tmp_path)


def test_a_variant_trains_with_what_it_changes(tiny_benchmark, tmp_path):
    config, losses = CONFIG.override(["train.steps=2"]), []
    for i, change in enumerate((Change(), Change(views=1, shading="none"))):
        seen = apply_variant(tiny_benchmark, change)
        run = train(config, seen, tmp_path / str(i), progress=False, device=CPU)
        losses.append(run.log["loss"][0])
        assert run.manifest["hash"] == seen.hash
    assert losses[0] != losses[1]
