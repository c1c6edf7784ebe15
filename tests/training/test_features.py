"""What frozen stages return: as a step would compute it, the same from files, shared where it may be and only there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cmiclib.augment import prepare_queries, prepare_views
from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.errors import ConfigError
from cmiclib.index import ShapeIndex
from cmiclib.index.cache import gallery_index
from cmiclib.model import build_model
from cmiclib.study.variants import Change, apply_variant
from cmiclib.training import features as module
from cmiclib.training.features import (
    FOLDER,
    AugmentedFeatures,
    FrozenFeatures,
    draw_photos,
    draw_views,
    fix_directions,
)
from cmiclib.training.loop import TrainingData, step_input, train, train_or_load, training_loss, validate

CPU = torch.device("cpu")
CONFIG = Config(
    profile="test",
    model=ModelConfig(
        query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random", frozen=2
    ),
    train=TrainConfig(batch=4, steps=4, views=2, copies=2, view_copies=2, lr=1e-3, log_every=2, eval_every=2),
)
PLAIN = ["augment.color=none", "augment.flip=false", "augment.query_scale=[1,1]", "augment.view_scale=[1,1]"]
PLAIN += ["augment.translate=0"]


@pytest.fixture(scope="module")
def data(tiny_benchmark):
    return TrainingData.load(tiny_benchmark, CPU)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG.model).train()


@pytest.fixture(scope="module")
def augmented(model, data, tiny_benchmark):
    """Return a function from changes of the configuration to the augmented features."""

    def make(*overrides, views=data.views):
        frozen = FrozenFeatures(model, tiny_benchmark, CONFIG.override(overrides))
        return frozen.augmented(data.photos, views, progress=False)

    return make


def test_without_augmentation_a_copy_is_what_evaluation_sees(model, data, augmented, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 7)
    photos, views = augmented(*PLAIN)
    expected = model.query_encoder.frozen_forward(prepare_queries(data.photos, 32))
    for copy in photos:
        torch.testing.assert_close(copy, expected, rtol=1e-4, atol=1e-5)
    expected = model.view_encoder.frozen_forward(prepare_views(data.views, 32).flatten(0, 1)).unflatten(
        0, data.views.shape[:2]
    )
    for copy in views:
        torch.testing.assert_close(copy, expected, rtol=1e-4, atol=1e-5)


def test_copies_differ_from_each_other_and_are_the_same_again(augmented):
    photos, views = augmented()
    assert not torch.equal(photos[0], photos[1]) and not torch.equal(views[0], views[1])
    again = augmented("train.copies=1", "train.view_copies=1")
    torch.testing.assert_close((photos[:1], views[:1]), tuple(again), rtol=1e-5, atol=1e-6)


def test_photos_and_views_have_as_many_copies_as_each_asks_for(augmented):
    made = augmented("train.copies=3", "train.view_copies=1")
    assert (len(made.photos), len(made.views)) == (3, 1)
    made = augmented("train.copies=0")
    assert made.photos is None and len(made.views) == 2


def test_validation_from_frozen_features_is_validation(model, tiny_benchmark):
    rows = tiny_benchmark.rows("val")
    still = FrozenFeatures(model, tiny_benchmark, CONFIG).validation()
    kept, fresh = (validate(model, tiny_benchmark, rows, CONFIG, maps) for maps in (still, None))
    assert kept == pytest.approx(fresh)


def test_views_of_one_shape_are_cropped_each_on_its_own_even_by_the_clock(data, augmented):
    views = data.views[:1, :1].expand(6, 4, -1, -1)  # one picture everywhere: maps differ only where crops do
    maps = augmented("augment.crops=clock", "train.view_copies=1", views=views).views[0].flatten(2)  # (6, 4, …)
    assert (maps[0, 0] - maps[0, 1:]).abs().amax(dim=1).min() > 1e-3
    assert torch.equal(maps[0], maps[4]) and not torch.equal(maps[0], maps[5])


def test_draws_come_from_the_right_picture_and_reach_every_copy():
    of_photos, of_views = torch.arange(12).view(3, 4), torch.arange(2 * 5 * 2).view(2, 5, 2)
    generator = torch.Generator().manual_seed(0)
    rows, shapes, chosen = torch.tensor([3, 1] * 20), torch.tensor([4, 0] * 20), torch.tensor([[1, 0], [0, 1]] * 20)
    photos, views = draw_photos(of_photos, rows, generator), draw_views(of_views, shapes, chosen, generator)
    assert torch.equal(photos % 4, rows) and set((photos // 4).tolist()) == {0, 1, 2}
    assert torch.equal(views % 10, shapes[:, None] * 2 + chosen) and set((views // 10).flatten().tolist()) == {0, 1}


def test_a_step_with_copies_is_the_step_without_where_nothing_is_augmented(model, data, augmented):
    config = CONFIG.override([*PLAIN, "model.dropout=0.3"])
    kept = augmented(*PLAIN)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    for of_photos, of_views in ((False, False), (True, False), (False, True), (True, True)):
        model.load_state_dict(state)
        own = config.override([f"train.copies={int(of_photos)}", f"train.view_copies={int(of_views)}"])
        copies = AugmentedFeatures(kept.photos if of_photos else None, kept.views if of_views else None)
        given = step_input(replace(data, copies=copies), own, 1)
        losses.append(torch.stack(training_loss(model, given, own, 1)))
    for each in losses[1:]:
        torch.testing.assert_close(each, losses[0], rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_with_copies_ends_as_an_undisturbed_one(tiny_benchmark, tmp_path, monkeypatch):
    config = CONFIG.override(["model.dropout=0.3"])
    whole = train(config, tiny_benchmark, tmp_path / "whole", progress=False, device=CPU)
    original, calls = training_loss, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr("cmiclib.training.loop.training_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_benchmark, tmp_path / "cut", progress=False, device=CPU)
    torch.manual_seed(99)
    cut = train(config, tiny_benchmark, tmp_path / "cut", resume=True, progress=False, device=CPU)
    assert cut.log.drop(columns="seconds").equals(whole.log.drop(columns="seconds"))
    ours, theirs = cut.model().state_dict(), whole.model().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# Files


SHARED = CONFIG.override(["model.mask=cutout", "train.seed=5"])


def made(folder):
    return {path.name for path in folder.glob("*.safetensors")}


def all_features(config, benchmark, folder):
    torch.manual_seed(config.train.seed)  # as training does: these frozen weights are random
    frozen = FrozenFeatures(build_model(config.model).train(), benchmark, config, folder)
    data = TrainingData.load(benchmark, CPU, config.train.distractors)
    return frozen.augmented(data.photos, data.views, progress=False), frozen.validation()


@pytest.fixture(scope="module")
def kept(tiny_benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    return folder, all_features(SHARED, tiny_benchmark, folder)


@pytest.fixture
def folder(kept, tmp_path):
    return Path(shutil.copytree(kept[0], tmp_path / "features"))


def test_a_run_with_kept_features_is_the_run_without(tiny_benchmark, tmp_path):
    plain = train(SHARED, tiny_benchmark, tmp_path / "plain", progress=False, device=CPU)
    for name in ("first", "second"):  # made, then loaded
        shared = {"features": tmp_path / "features"}
        run = train(SHARED, tiny_benchmark, tmp_path / name, progress=False, device=CPU, **shared)
        assert run.log.drop(columns="seconds").equals(plain.log.drop(columns="seconds"))
    assert len(made(tmp_path / "features")) == 4


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        (["loss.tau=0.2", "model.fusion=mean", "train.batch=3", "train.views=1", "model.dropout=0.5"], set()),
        (["augment.color=none"], {"photos"}),
        (["augment.view_scale=[0.9,1]"], {"views"}),
        (["augment.flip=false"], {"photos", "views"}),
        (["model.mask=none"], {"photos", "still-photos"}),
        (["model.mirror=true"], {"still-photos"}),
        (["train.copies=1"], {"photos"}),
        (["train.view_copies=1"], {"views"}),
        (Change(views=3), {"views", "still-views"}),
        (Change(shading="none"), {"views", "still-views"}),
        (Change(mask_error=1.0), {"photos", "still-photos"}),
        (["train.seed=6"], {"photos", "views", "still-photos", "still-views"}),
    ],
)
def test_only_what_changes_is_made_again(tiny_benchmark, folder, changes, new):
    before = made(folder)
    if isinstance(changes, Change):
        all_features(SHARED, apply_variant(tiny_benchmark, changes), folder)
    else:
        all_features(SHARED.override(changes), tiny_benchmark, folder)
    assert {name.rpartition("-")[0] for name in made(folder) - before} == new


def test_changed_code_makes_everything_anew(tiny_benchmark, folder, monkeypatch):
    monkeypatch.setattr(module, "code_digest", lambda modules: "another")
    all_features(SHARED, tiny_benchmark, folder)
    assert len(made(folder)) == 8


def test_a_damaged_file_is_made_again(tiny_benchmark, folder, kept):
    for path in folder.glob("photos-*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    again, _ = all_features(SHARED, tiny_benchmark, folder)
    torch.testing.assert_close(again.photos, kept[1][0].photos)


def test_the_index_reads_what_training_computed(tiny_benchmark, tmp_path, monkeypatch):
    """The gallery passes the frozen stages once; another gallery passes them for its index and leaves no file."""
    run = train_or_load(SHARED.override(["train.steps=2"]), tiny_benchmark, tmp_path, progress=False)
    before, passed = made(tmp_path / FOLDER), []
    forward = module.view_maps
    monkeypatch.setattr(module, "view_maps", lambda *args: (passed.append(args), forward(*args))[1])
    index = gallery_index(run, tiny_benchmark)
    assert not passed
    other = apply_variant(tiny_benchmark, Change(shading="none"))
    assert not torch.allclose(gallery_index(run, other).views, index.views, atol=1e-3)
    assert len(passed) == 1 and made(tmp_path / FOLDER) == before
    fresh = type(index).build(run.model(), tiny_benchmark, run.config)
    torch.testing.assert_close(index.views, fresh.views, rtol=1e-5, atol=1e-6)


def test_a_variant_trains_with_what_it_changes(tiny_benchmark, tmp_path):
    config, losses = SHARED.override(["train.steps=2"]), []
    for i, change in enumerate((Change(), Change(views=1, shading="none"))):
        seen = apply_variant(tiny_benchmark, change)
        run = train(config, seen, tmp_path / str(i), progress=False, device=CPU)
        losses.append(run.log["loss"][0])
        assert run.manifest["hash"] == seen.hash
    assert losses[0] != losses[1]


FIXED = CONFIG.override(["model.frozen=5", "model.mask=cutout", "model.fixed=5", "model.grid=2", "train.copies=1"])


def test_the_fixed_directions_are_the_principal_ones_of_the_training_views():
    torch.manual_seed(0)
    model, decay = build_model(FIXED.model), 0.5 ** torch.arange(12)
    width = model.query_encoder.fixed.in_features
    views = torch.randn(1, 40, 2, 12) * decay @ torch.linalg.qr(torch.randn(width + 3, 12))[0].T  # (L, N, V, F)
    fix_directions(model, views)
    features = torch.nn.functional.normalize(views[0].flatten(0, 1)[:, 3:], dim=1)
    _, sizes, directions = torch.linalg.svd(features, full_matrices=False)
    expected = features @ directions[:5].T / (sizes[:5] / sizes[0]).sqrt()
    found = features @ model.view_encoder.fixed.weight.T
    torch.testing.assert_close(found @ found.T, expected @ expected.T, rtol=1e-3, atol=1e-4)


def test_of_a_few_views_there_are_fewer_fixed_directions_and_none_of_noise():
    torch.manual_seed(0)
    model = build_model(FIXED.model)
    width = model.query_encoder.fixed.in_features
    views = torch.randn(1, 3, 1, width)
    fix_directions(model, torch.cat([views, views + 1e-6 * torch.randn_like(views)], dim=2))
    weight = model.query_encoder.fixed.weight
    assert (weight[:3].norm(dim=1) > 0.9).all() and (weight[:3].norm(dim=1) < 2).all() and not weight[3:].any()


def test_without_features_of_views_there_are_no_fixed_directions(tiny_benchmark, tmp_path):
    config = FIXED.override(["train.view_copies=0"])
    with pytest.raises(ConfigError, match="needs the features of views"):
        train(config, tiny_benchmark, tmp_path / "run", progress=False, device=CPU)


def test_a_stopped_run_with_fixed_numbers_goes_on_as_if_nothing_had_happened(tiny_benchmark, tmp_path):
    whole = train(FIXED, tiny_benchmark, tmp_path / "whole", progress=False, device=CPU).model().state_dict()
    train(FIXED, tiny_benchmark, tmp_path / "run", progress=False, device=CPU, until=2)
    rest = train(FIXED, tiny_benchmark, tmp_path / "run", progress=False, device=CPU, resume=True).model().state_dict()
    assert whole["query_encoder.fixed.weight"].norm() > 0
    for name, value in whole.items():
        assert torch.equal(rest[name], value), name


def test_an_index_with_fixed_numbers_is_the_same_when_it_is_read_again(tiny_benchmark, tmp_path):
    run = train(FIXED, tiny_benchmark, tmp_path / "run", progress=False, device=CPU)
    index = gallery_index(run, tiny_benchmark)
    index.save(tmp_path / "shapes.index")
    again, photos = ShapeIndex.load(tmp_path / "shapes.index"), tiny_benchmark.images[:5]
    assert index.views.shape[2] == 16 + 5
    assert torch.equal(again.scores(again.embed(photos)), index.scores(index.embed(photos)))
