"""Networks of each of timm's families from saved weights to a search, with and without frozen stages."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.index import ShapeIndex
from cmiclib.training.features import FrozenFeatures
from cmiclib.training.loop import train
from cmiclib.training.run import Run

FAMILIES = ("test_vit", "test_vit2", "test_convnext", "mobilenetv4_conv_small_035", "test_resnet")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of each family, for RGB and for its own size."""
    folder = tmp_path_factory.mktemp("networks")
    for seed, name in enumerate(FAMILIES):
        torch.manual_seed(seed)
        save_file(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.safetensors")
    return folder


def configured(name: str, saved: Path, frozen: int) -> Config:
    copies = min(1, frozen)
    return Config(
        profile="test",
        model=ModelConfig(
            query_backbone=name, view_backbone=name, dim=16, image_size=32, init=str(saved), frozen=frozen, grid=2
        ),
        train=TrainConfig(
            batch=4, steps=3, views=2, lr=1e-3, eval_every=3, log_every=1, copies=copies, view_copies=copies
        ),
    )


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_is_saved_loaded_indexed_and_searched(
    tiny_benchmark, saved: Path, tmp_path: Path, name: str, frozen: int
) -> None:
    config = configured(name, saved, frozen)
    run = train(config, tiny_benchmark, tmp_path / "run", progress=False, features=tmp_path / "features")
    assert run.log.loss.dropna().map(lambda loss: 0 < loss < 100).all()
    model = Run.open(run.path).model()
    given = load_file(saved / f"{name}.safetensors")
    learnt = {n for n, p in model.query_encoder.backbone.named_parameters() if p.requires_grad}
    stays = [
        n for n, v in model.query_encoder.backbone.named_parameters() if n not in learnt and v.shape == given[n].shape
    ]
    assert all(torch.equal(model.query_encoder.backbone.get_parameter(n), given[n]) for n in stays)
    assert bool(stays) == bool(frozen)
    assert any(not torch.equal(model.query_encoder.backbone.get_parameter(n), given[n]) for n in learnt)

    photos = tiny_benchmark.images[:3]
    index = ShapeIndex.build(model, tiny_benchmark, config)
    index.save(tmp_path / "index.safetensors")
    loaded = ShapeIndex.load(tmp_path / "index.safetensors")
    query = loaded.embed(photos)
    torch.testing.assert_close(query, index.embed(photos), rtol=0, atol=1e-6)
    found = loaded.search(query, 3)
    assert [len(ids) for ids in found.ids] == [3, 3, 3] and found.scores.isfinite().all()


def test_kept_features_belong_to_one_backbone_and_its_weights(tiny_benchmark, saved: Path, tmp_path: Path) -> None:
    from cmiclib.model import build_model

    def keep(name: str, changed: bool = False) -> int:
        config = configured(name, saved, 2)
        model = build_model(config.model).eval()
        if changed:
            with torch.no_grad():
                model.view_encoder.stages[0][1].patch_embed.proj.weight.neg_()
        list(FrozenFeatures(model, tiny_benchmark, config, tmp_path).gallery())
        return len(list(tmp_path.glob("still-views-*.safetensors")))

    assert [keep("test_vit"), keep("test_vit"), keep("test_vit2"), keep("test_vit", changed=True)] == [1, 1, 2, 3]
