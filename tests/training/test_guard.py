"""A training that is stopped, goes wrong, or is measured on another benchmark than it thinks."""

import dataclasses
import json
import math
import os
import signal
import warnings

import pytest
import torch
from safetensors.torch import load_file

from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.errors import BenchmarkError, CheckpointError, TrainingError
from cmiclib.evaluation.report import score_run
from cmiclib.io.atomic import write_json
from cmiclib.training import loop as training
from cmiclib.training.guard import CheckpointTimer, LossWatch, check_unchanged, warn_if_collapsed
from cmiclib.training.loop import TrainingData, train
from cmiclib.training.run import Run
from cmiclib.training.state import load_state, save_state

CONFIG = Config(
    profile="test",
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random"),
    train=TrainConfig(batch=4, steps=5, views=2, lr=1e-3, log_every=2, eval_every=5),
)


@pytest.fixture(scope="module")
def undisturbed(tiny_benchmark, tmp_path_factory):
    return train(CONFIG, tiny_benchmark, tmp_path_factory.mktemp("run"), progress=False)


def weights(run):
    return load_file(run.path / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_end_writes_a_state_and_stops(
    number, undisturbed, tiny_benchmark, tmp_path, monkeypatch
):
    original, steps = training.training_loss, []

    def loss(model, data, config, step, processes):
        steps.append(step)
        if step == 2:
            os.kill(os.getpid(), number)
        return original(model, data, config, step, processes)

    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(training, "training_loss", loss)
    try:
        with pytest.raises(Stopped):
            train(CONFIG, tiny_benchmark, tmp_path, progress=False)
        assert signal.getsignal(number) is stop
        assert load_state(tmp_path / "checkpoint/state.pt")["step"] == 3
        resumed = train(CONFIG, tiny_benchmark, tmp_path, resume=True, progress=False)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert steps == [0, 1, 2, 3, 4]
    assert same(weights(resumed), weights(undisturbed))


def test_a_second_signal_does_not_wait():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), CheckpointTimer() as pace:
            assert not pace.due()
            signal.raise_signal(signal.SIGINT)
            assert pace.due()
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), CheckpointTimer():  # before the first step there is nothing to wait for
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_states_are_written_between_looks_and_the_last_two_stay(undisturbed, tiny_benchmark, tmp_path):
    run = train(CONFIG, tiny_benchmark, tmp_path, progress=False, save_seconds=0)
    assert same(weights(run), weights(undisturbed))
    newest, before = tmp_path / "checkpoint/state.pt", tmp_path / "checkpoint/state-before.pt"
    assert (load_state(newest)["step"], load_state(before)["step"]) == (5, 4)
    newest.write_bytes(newest.read_bytes()[:1000])
    (tmp_path / "environment.json").unlink()  # as if the machine had stopped there
    with pytest.warns(UserWarning, match="goes on from the state before it"):
        resumed = train(CONFIG, tiny_benchmark, tmp_path, resume=True, progress=False)
    assert same(weights(resumed), weights(undisturbed))


def test_a_stop_between_the_two_renamings_loses_one_state_only(tmp_path):
    for step in (1, 2):
        save_state(tmp_path / "state.pt", {"step": step})
    (tmp_path / "state.pt").unlink()
    with pytest.warns(UserWarning, match="state before it"):
        assert load_state(tmp_path / "state.pt")["step"] == 1
    (tmp_path / "state-before.pt").write_bytes(b"")
    with pytest.raises(CheckpointError), warnings.catch_warnings():
        load_state(tmp_path / "state.pt")


def test_a_loss_that_is_read_late_is_reported_with_the_step_where_it_was_no_number(tiny_benchmark, tmp_path):
    """On a GPU the host reads a loss only now and then; by then another batch is at work."""
    data, watch = TrainingData.load(tiny_benchmark, torch.device("cpu")), LossWatch("cpu")
    for step, loss in enumerate([1.0, 2.0, math.inf, 3.0, math.nan]):
        watch.note(torch.tensor(loss), step)
        if step == 1:
            watch.check(data, CONFIG.train, tiny_benchmark, tmp_path)
    with pytest.raises(TrainingError, match="the loss of step 3 is not a number"):
        watch.check(data, CONFIG.train, tiny_benchmark, tmp_path)
    photos = tiny_benchmark.queries.query_id.to_numpy()[tiny_benchmark.rows("train")][data.draw(CONFIG.train, 2).photos]
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert failed == {"step": 3, "loss": "inf", "photos": photos.tolist()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_keeps_the_last_state_and_names_its_batch(
    value, tiny_benchmark, tmp_path, monkeypatch
):
    original, seen = training.training_loss, []
    data = training.TrainingData.load(tiny_benchmark, torch.device("cpu"))

    def spoiled(model, given, config, step, processes):
        total, *parts = original(model, given, config, step, processes)
        batch = data.draw(config.train, step)
        seen.append(tiny_benchmark.queries.query_id.to_numpy()[tiny_benchmark.rows("train")[batch.photos]].tolist())
        return total * value if step == 3 else total, *parts

    monkeypatch.setattr(training, "training_loss", spoiled)
    with pytest.raises(TrainingError, match="the loss of step 4 is not a number") as error:
        train(CONFIG, tiny_benchmark, tmp_path, progress=False, save_seconds=0)
    assert seen[3][0] in str(error.value)
    assert json.loads((tmp_path / "failed.json").read_text()) == {"step": 4, "loss": str(value), "photos": seen[3]}
    assert load_state(tmp_path / "checkpoint/state.pt")["step"] == 3


def test_weights_that_are_no_numbers_are_not_kept(tiny_benchmark, tmp_path, monkeypatch):
    original = training.training_loss

    def spoiled(model, data, config, step, processes):
        total, *parts = original(model, data, config, step, processes)
        if step == 1:
            total = total + (0 * model.attention_weight).sqrt().sum()  # adds 0, with a gradient of 0 · ∞
        return total, *parts

    monkeypatch.setattr(training, "training_loss", spoiled)
    with pytest.raises(TrainingError, match="the weights after step 2 are not numbers"):
        train(CONFIG, tiny_benchmark, tmp_path, progress=False, save_seconds=0)
    assert load_state(tmp_path / "checkpoint/state.pt")["step"] == 1


def test_a_collapsed_embedding_is_said_aloud():
    torch.manual_seed(0)
    spread = torch.nn.functional.normalize(torch.randn(20, 8), dim=-1)
    one = spread[:1].expand(20, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_collapsed(spread, spread.unflatten(0, (5, 4)))
    with pytest.warns(UserWarning, match="embedding of photos has collapsed"):
        warn_if_collapsed(one, spread.unflatten(0, (5, 4)))
    with pytest.warns(UserWarning, match="embedding of views has collapsed"):
        warn_if_collapsed(spread, one.unflatten(0, (5, 4)))


def test_training_says_so_where_its_embedding_collapses(tiny_benchmark, tmp_path, monkeypatch):
    original = training.build_model

    def collapsed(config):
        model = original(config)
        for encoder in (model.query_encoder, model.view_encoder):
            torch.nn.init.zeros_(encoder.head[1].weight)  # the bias alone is left, whatever the picture
            torch.nn.init.ones_(encoder.head[1].bias)
        return model

    monkeypatch.setattr(training, "build_model", collapsed)
    still = CONFIG.override(["train.steps=1", "train.lr=1e-9"])
    with pytest.warns(UserWarning, match="embedding of (photos|views) has collapsed") as caught:
        train(still, tiny_benchmark, tmp_path, progress=False)
    assert {str(warning.message).split()[3] for warning in caught} >= {"photos", "views"}


def test_training_never_gets_the_labels_of_test_photos(undisturbed, tiny_benchmark, tmp_path, monkeypatch):
    given = []
    load, validate = TrainingData.load, training.validate
    monkeypatch.setattr(
        TrainingData, "load", lambda benchmark, *rest: (given.append(benchmark), load(benchmark, *rest))[1]
    )
    monkeypatch.setattr(
        training, "validate", lambda m, benchmark, *rest: (given.append(benchmark), validate(m, benchmark, *rest))[1]
    )
    run = train(CONFIG, tiny_benchmark, tmp_path, progress=False)
    assert same(weights(run), weights(undisturbed)) and len(given) == 2
    for benchmark in given:
        test = benchmark.queries.split == "test"
        assert test.sum() == 11
        assert set(benchmark.queries[test].shape_id) | set(benchmark.queries[test].category) == {"|hidden"}
        assert benchmark.queries[~test].equals(tiny_benchmark.queries[~test])
        for labels in (benchmark.relevant, benchmark.group_relevant):
            with pytest.raises(BenchmarkError, match="training asks what a test photo shows"):
                labels(benchmark.rows("test"))


def test_a_shape_that_only_test_photos_show_is_no_distractor(tiny_benchmark):
    only_test = tiny_benchmark.queries.assign(
        split=tiny_benchmark.queries.split.where(tiny_benchmark.queries.shape_id != "odd/corner", "test")
    )
    blind = dataclasses.replace(tiny_benchmark, queries=only_test).without_test_labels()
    assert len(TrainingData.load(blind, torch.device("cpu")).views) == 6
    assert blind.categories == tiny_benchmark.categories


def test_a_benchmark_that_changed_since_training_is_noticed(undisturbed, tiny_benchmark, tmp_path):
    check_unchanged(undisturbed, tiny_benchmark)
    changed = tiny_benchmark.meta | {"sha256": tiny_benchmark.meta["sha256"] | {"queries.csv": "0" * 64}}
    with pytest.raises(BenchmarkError, match=r"'tiny' has changed since the run was trained[\s\S]*--changed"):
        check_unchanged(undisturbed, dataclasses.replace(tiny_benchmark, meta=changed))
    check_unchanged(undisturbed, dataclasses.replace(tiny_benchmark, meta=changed | {"name": "another"}))
    with pytest.raises(BenchmarkError, match="has changed since the run was trained"):
        score_run(undisturbed, dataclasses.replace(tiny_benchmark, meta=changed))
    write_json(tmp_path / "config.json", {})
    check_unchanged(Run(tmp_path, CONFIG), tiny_benchmark)  # a converted checkpoint knows no benchmark
