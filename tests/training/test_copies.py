from dataclasses import replace

import pytest
import torch

from cmiclib.augment import prepare_queries, prepare_views
from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.model import build_model
from cmiclib.training import copies as module
from cmiclib.training.copies import AugmentedFeatures, ValidationFeatures, draw_photos, draw_views, make_copies
from cmiclib.training.loop import TrainingData, step_input, train, training_loss, validate

CPU = torch.device("cpu")
CONFIG = Config(
    profile="test",
    model=ModelConfig(
        query_backbone="resnet10t", view_backbone="resnet10t", dim=16, image_size=32, init="random", frozen=2
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


def pictures(copies, model, data, config):
    config = config.override([f"train.copies={copies}", f"train.view_copies={copies}"])
    made = make_copies(model, data.photos, data.views, config, progress=False)
    return made.photos, made.views


def test_without_augmentation_a_copy_is_what_evaluation_sees(model, data, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 7)
    photos, views = pictures(2, model, data, CONFIG.override(PLAIN))
    expected = model.query_encoder.frozen_forward(prepare_queries(data.photos, 32))
    for copy in photos:
        torch.testing.assert_close(copy, expected, rtol=1e-4, atol=1e-5)
    expected = model.view_encoder.frozen_forward(prepare_views(data.views, 32).flatten(0, 1)).unflatten(
        0, data.views.shape[:2]
    )
    for copy in views:
        torch.testing.assert_close(copy, expected, rtol=1e-4, atol=1e-5)


def test_copies_differ_from_each_other_and_are_the_same_again(model, data):
    photos, views = pictures(2, model, data, CONFIG)
    assert not torch.equal(photos[0], photos[1]) and not torch.equal(views[0], views[1])
    again = pictures(1, model, data, CONFIG)
    torch.testing.assert_close((photos[:1], views[:1]), again, rtol=1e-5, atol=1e-6)


def test_photos_and_views_have_as_many_copies_as_each_asks_for(model, data):
    config = CONFIG.override(["train.copies=3", "train.view_copies=1"])
    made = make_copies(model, data.photos, data.views, config, progress=False)
    assert (len(made.photos), len(made.views)) == (3, 1)


def test_validation_from_kept_maps_is_validation(model, tiny_benchmark):
    rows = tiny_benchmark.rows("val")
    still = ValidationFeatures.make(model, tiny_benchmark.images[rows], tiny_benchmark.views, CONFIG)
    kept, fresh = (validate(model, tiny_benchmark, rows, CONFIG, maps) for maps in (still, None))
    assert kept == pytest.approx(fresh)


def test_views_of_one_shape_are_cropped_each_on_its_own_even_by_the_clock(model, data):
    views = data.views[:1, :1].expand(6, 4, -1, -1)  # one picture everywhere: maps differ only where crops do
    config = CONFIG.override(["augment.crops=clock", "train.view_copies=1"])
    maps = make_copies(model, data.photos, views, config, progress=False).views[0].flatten(2)  # (6, 4, …)
    assert (maps[0, 0] - maps[0, 1:]).abs().amax(dim=1).min() > 1e-3
    assert torch.equal(maps[0], maps[4]) and not torch.equal(maps[0], maps[5])


def test_draws_come_from_the_right_picture_and_reach_every_copy():
    of_photos, of_views = torch.arange(12).view(3, 4), torch.arange(2 * 5 * 2).view(2, 5, 2)
    generator = torch.Generator().manual_seed(0)
    rows, shapes, chosen = torch.tensor([3, 1] * 20), torch.tensor([4, 0] * 20), torch.tensor([[1, 0], [0, 1]] * 20)
    photos, views = draw_photos(of_photos, rows, generator), draw_views(of_views, shapes, chosen, generator)
    assert torch.equal(photos % 4, rows) and set((photos // 4).tolist()) == {0, 1, 2}
    assert torch.equal(views % 10, shapes[:, None] * 2 + chosen) and set((views // 10).flatten().tolist()) == {0, 1}


def test_a_step_with_copies_is_the_step_without_where_nothing_is_augmented(model, data):
    config = CONFIG.override([*PLAIN, "model.dropout=0.3"])
    kept = data.with_copies(model, config, progress=False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    for of_photos, of_views in ((False, False), (True, False), (False, True), (True, True)):
        model.load_state_dict(state)
        own = config.override([f"train.copies={int(of_photos)}", f"train.view_copies={int(of_views)}"])
        copies = AugmentedFeatures(kept.copies.photos if of_photos else None, kept.copies.views if of_views else None)
        given = step_input(replace(data, copies=copies), own, 1)
        losses.append(torch.stack(training_loss(model, given, own, 1)))
    for each in losses[1:]:
        torch.testing.assert_close(each, losses[0], rtol=1e-4, atol=1e-5)


def test_copies_of_views_alone_leave_the_photos_to_the_step(model, data):
    config = CONFIG.override(["train.copies=0"])
    copies = data.with_copies(model, config, progress=False).copies
    assert copies.photos is None and copies.views is not None and len(copies.views) == 2


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
