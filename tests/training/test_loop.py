import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.embed import autocast
from cmiclib.engine.device import prefetch
from cmiclib.errors import CheckpointError, CMICError, ConfigError, TrainingError
from cmiclib.io import code, provenance
from cmiclib.io.lock import alone
from cmiclib.model import build_model
from cmiclib.study.ablations import config_hash
from cmiclib.training import loop as training
from cmiclib.training import step as step_module
from cmiclib.training.loop import METHOD, run_name, train, train_or_load
from cmiclib.training.optimizer import check_options, learning_rate, make_optimizer, set_learning_rate
from cmiclib.training.other_losses import total_loss
from cmiclib.training.run import Run
from cmiclib.training.state import cut_log
from cmiclib.training.step import TrainingData, step_input, training_loss

CPU = torch.device("cpu")
CONFIG = Config(
    profile="test",
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random"),
    train=TrainConfig(batch=4, steps=6, views=2, lr=1e-3, log_every=2, eval_every=3),
)


class Watched:
    """An array of photos that remembers which rows were read."""

    def __init__(self, array):
        self.array, self.read = array, set()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.read |= set(np.arange(len(self.array))[rows].ravel().tolist())
        return self.array[rows]


@pytest.fixture(scope="module")
def watched(tiny_benchmark):
    return dataclasses.replace(
        tiny_benchmark, arrays=tiny_benchmark.arrays | {"queries.npy": Watched(tiny_benchmark.images)}
    )


@pytest.fixture(scope="module")
def finished(watched, tmp_path_factory):
    """A run from beginning to end; only read it."""
    return train(CONFIG, watched, tmp_path_factory.mktemp("run"), progress=False, device=CPU)


@pytest.fixture(scope="module")
def data(tiny_benchmark):
    return TrainingData.load(tiny_benchmark, CPU)


def steps_and_losses(run):
    return run.log.drop(columns="seconds").fillna(-1).to_dict("records")


def same_weights(a, b):
    a, b = load_file(a.path / "model.safetensors"), load_file(b.path / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# One step


def test_training_data_are_the_training_photos_with_their_own_shapes(data, tiny_benchmark):
    table = tiny_benchmark.queries[tiny_benchmark.queries.split == "train"]
    known = tiny_benchmark.shapes[tiny_benchmark.shapes.category != "odd"]  # those are unseen
    assert known.shape_id.to_numpy()[data.photo_shape].tolist() == table.shape_id.tolist()
    assert np.array_equal(data.views, tiny_benchmark.views[known.index])
    assert np.array_equal(data.category, tiny_benchmark.shape_category()[known.index])
    assert np.array_equal(data.photos, tiny_benchmark.images[table.index])


def test_without_distractors_only_photographed_shapes_are_left(data, tiny_benchmark):
    fewer = TrainingData.load(tiny_benchmark, CPU, distractors=False)
    assert (len(fewer.views), len(data.views)) == (5, 6)
    assert np.array_equal(fewer.views[fewer.photo_shape], data.views[data.photo_shape])


def test_a_step_pairs_photos_with_views_of_their_shapes(data, monkeypatch):
    """The whole wiring at once: what the encoders get, where the loss looks, what counts as the same category."""
    seen = {}

    def watch(name, keep):
        original = getattr(step_module, name)

        def watching(*args):
            seen[name] = keep(*args)
            return original(*args)

        monkeypatch.setattr(step_module, name, watching)

    watch("augment_queries", lambda photos, *rest: photos)
    watch("augment_views", lambda views, *rest: views)
    watch("total_loss", lambda scores, target, same, config: (scores, target, same))
    torch.manual_seed(0)
    training_loss(build_model(CONFIG.model), step_input(data, CONFIG, 3), CONFIG, 3)

    photos, views, (scores, target, same) = seen["augment_queries"], seen["augment_views"], seen["total_loss"]
    assert photos.shape == (4, 4, 32, 32) and views.shape == (4, 2, 32, 32) and scores.shape == (4, 4)
    shape_of_column = []
    for pair in views:
        found = [[(n, v) for n in range(6) for v in range(12) if torch.equal(data.views[n, v], view)] for view in pair]
        shapes = {n for places in found for n, _ in places}
        assert len(shapes) == 1 and found[0] != found[1]  # two different views of one shape
        shape_of_column.append(shapes.pop())
    assert len(set(shape_of_column)) == 4
    for i, photo in enumerate(photos):
        row = next(row for row, other in enumerate(data.photos) if torch.equal(photo, other))
        own = int(data.photo_shape[row])
        assert shape_of_column[target[i]] == own
        expected = [data.category[own] == data.category[other] for other in shape_of_column]
        assert same[i].tolist() == expected


def test_a_step_is_a_function_of_model_and_step_only(data):
    def loss(step, config=CONFIG):
        torch.manual_seed(0)
        model = build_model(config.model)
        torch.rand(step + 7)  # the global generator must not matter
        return training_loss(model, step_input(data, config, step), config, step)[0]

    first = loss(2)
    assert first.dtype == torch.float32 and first.isfinite()
    assert first == loss(2) and first != loss(3)
    assert first == loss(2, CONFIG.override(["train.precision=bf16"]))  # of a GPU: on a CPU it changes nothing


@pytest.mark.parametrize(("precision", "device", "half"), [
    ("bf16", "cuda", True), ("bf16", "cpu", False), ("fp32", "cuda", False), ("fp32", "cpu", False),
])  # fmt: skip
def test_only_an_accelerator_computes_in_half_precision(monkeypatch, precision, device, half):
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: asked.append((kind, dtype, enabled)))
    autocast(CONFIG.override([f"train.precision={precision}"]), torch.device(device))
    assert asked == [(device, torch.bfloat16, half)]


@pytest.mark.parametrize("damage", ["\0\0\0\0", '{"step": 2, "lo', "7", "\ufffd"])
def test_a_log_that_a_power_loss_damaged_is_cut_before_the_damage(tmp_path, damage):
    log = tmp_path / "log.jsonl"
    log.write_text(f'{{"step": 1}}\n{damage}\n{{"step": 2}}\n')
    cut_log(log, 5)
    assert log.read_text() == '{"step": 1}\n'
    cut_log(log, 0)
    assert log.read_text() == ""


def test_the_loss_of_one_batch_falls_to_nothing(data):
    config = CONFIG.override(["augment.color=none", "augment.flip=false", "loss.category_weight=0"])
    torch.manual_seed(0)
    model = build_model(config.model)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(25):
        loss = training_loss(model, step_input(data, config, 0), config, 0)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < losses[0]


@pytest.mark.gpu
def test_a_step_on_the_gpu_equals_one_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (20, 4, 32, 32), dtype=torch.uint8, generator=generator)
    views = torch.randint(0, 256, (6, 12, 32, 32), dtype=torch.uint8, generator=generator)
    losses = []
    for device in (CPU, torch.device("cuda")):
        torch.manual_seed(0)
        model = build_model(CONFIG.model).to(device)
        data = TrainingData(
            photos.to(device), torch.arange(20) % 6, views.to(device), torch.tensor([0, 0, 1, 1, 2, 2], device=device)
        )
        given = step_input(data, CONFIG, 0)
        losses.append(training_loss(model, given, CONFIG, 0)[0].cpu())
    torch.testing.assert_close(losses[0], losses[1], atol=1e-3, rtol=1e-3)


# A whole run


def test_only_photos_for_training_and_validation_are_ever_read(finished, watched):
    assert watched.images.read == set(watched.rows("train")) | set(watched.rows("val"))


def test_the_run_folder_tells_the_whole_story(finished, tiny_benchmark):
    log = finished.log
    assert log.step[log.loss.notna()].tolist() == [2, 3, 4, 6]
    assert log.step[log["val.mrr"].notna()].tolist() == [3, 6]
    assert log.lr.dropna().tolist() == [1e-3] * 4
    assert log.seconds.is_monotonic_increasing
    total = log.instance + CONFIG.loss.category_weight * log.category
    np.testing.assert_allclose(log.loss.dropna(), total.dropna(), rtol=1e-6)
    assert finished.config == CONFIG
    assert finished.manifest == {
        "benchmark": "tiny", "hash": tiny_benchmark.hash, "shapes": 8, "photos": {"train": 20, "val": 11, "test": 11}
    }  # fmt: skip
    assert finished.environment["seconds"] > 0


def test_the_kept_weights_reach_the_best_validation_score_of_the_log(finished, tiny_benchmark):
    scores = training.validate(finished.model(), tiny_benchmark, tiny_benchmark.rows("val"), CONFIG)
    assert scores["mrr"] == pytest.approx(finished.log["val.mrr"].max())


@pytest.mark.parametrize("scores, best", [((0.1, 0.9, 0.5), 1), ((0.5, 0.5, 0.2), 0)], ids=["best", "first of equals"])
def test_the_kept_weights_are_chosen_by_validation(tiny_benchmark, tmp_path, monkeypatch, scores, best):
    looks = []

    def validate(model, *rest):
        looks.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mrr": scores[len(looks) - 1]}

    monkeypatch.setattr(training, "validate", validate)
    config = CONFIG.override(["train.steps=3", "train.eval_every=1"])
    kept = train(config, tiny_benchmark, tmp_path, progress=False, device=CPU).model().state_dict()
    equal = [all(torch.equal(kept[name], look[name]) for name in kept) for look in looks]
    assert equal == [i == best for i in range(3)]


@pytest.mark.parametrize(
    "function, call",
    [("training_loss", 2), ("training_loss", 5), ("save_state", 2)],
    ids=["before the first state", "between states", "after the weights, before the state"],
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(function, call, finished, tiny_benchmark, tmp_path, monkeypatch):
    original, calls = getattr(training, function), []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, function, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, tiny_benchmark, tmp_path, progress=False, device=CPU)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "val": {"mrr": 0.1}')  # a line that the interruption cut off
    torch.manual_seed(99)
    resumed = train(CONFIG, tiny_benchmark, tmp_path, resume=True, progress=False, device=CPU)
    assert same_weights(resumed, finished)
    assert steps_and_losses(resumed) == steps_and_losses(finished)


def test_training_in_two_portions_ends_as_in_one(finished, tiny_benchmark, tmp_path):
    portion = CONFIG.train.eval_every
    first = train(CONFIG, tiny_benchmark, tmp_path, until=portion, progress=False, device=CPU)
    assert first.log["step"].max() == portion < CONFIG.train.steps
    assert not (first.path / "environment.json").exists()  # not finished
    again = train(CONFIG, tiny_benchmark, tmp_path, resume=True, until=portion, progress=False, device=CPU)
    assert same_weights(again, first)
    resumed = train(CONFIG, tiny_benchmark, tmp_path, resume=True, progress=False, device=CPU)
    assert same_weights(resumed, finished)
    assert steps_and_losses(resumed) == steps_and_losses(finished)


@pytest.mark.parametrize("until", [0, -2, 4])
def test_a_portion_ends_where_the_weights_are_judged(until, tiny_benchmark, tmp_path):
    with pytest.raises(ConfigError, match="cannot stop after step"):
        train(CONFIG, tiny_benchmark, tmp_path, until=until, progress=False, device=CPU)


def test_a_state_of_another_configuration_is_not_resumed(finished, tiny_benchmark, tmp_path):
    for file in ("config.json", "checkpoint/state.pt", "model.safetensors"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((finished.path / file).read_bytes())
    other = CONFIG.override(["loss.tau=0.2"])
    with pytest.raises(CheckpointError, match="another configuration"):
        train(other, tiny_benchmark, tmp_path, resume=True, progress=False, device=CPU)
    assert Run.open(tmp_path).config == CONFIG


def copied(run, folder):
    for file in run.path.rglob("*"):
        if file.is_file():
            (folder / file.relative_to(run.path)).parent.mkdir(exist_ok=True)
            (folder / file.relative_to(run.path)).write_bytes(file.read_bytes())
    return contents(folder)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and ".lock" not in file.name}


def test_a_new_start_in_a_folder_with_a_run_is_refused_and_changes_nothing(finished, tiny_benchmark, tmp_path):
    before = copied(finished, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds a training already[\s\S]*--resume"):
        train(CONFIG.override(["train.seed=1"]), tiny_benchmark, tmp_path, progress=False, device=CPU)
    assert contents(tmp_path) == before


def test_resuming_a_finished_run_gives_it_back_as_it_is(finished, tiny_benchmark, tmp_path):
    before = copied(finished, tmp_path)
    train(CONFIG, tiny_benchmark, tmp_path, resume=True, progress=False, device=CPU)
    assert contents(tmp_path) == before
    with pytest.raises(CheckpointError, match="another configuration"):
        train(CONFIG.override(["loss.tau=0.2"]), tiny_benchmark, tmp_path, resume=True, progress=False, device=CPU)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("override", ["train.batch=7", "model.query_backbone=none", "model.init=none.safetensors"])
def test_what_cannot_train_leaves_the_folder_alone(override, tiny_benchmark, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')  # of a training that was stopped before its first state
    before = contents(tmp_path)
    with pytest.raises(CMICError):
        train(CONFIG.override([override]), tiny_benchmark, tmp_path, progress=False, device=CPU)
    assert contents(tmp_path) == before


def test_a_folder_belongs_to_one_training_at_a_time(tiny_benchmark, tmp_path):
    with alone(tmp_path, TrainingError), pytest.raises(TrainingError, match="another run is at work here"):
        train(CONFIG, tiny_benchmark, tmp_path, progress=False, device=CPU)


def test_other_code_is_not_mixed_in_unless_told_so_and_recorded(finished, tiny_benchmark, tmp_path, monkeypatch):
    half = CONFIG.train.eval_every
    run = train(CONFIG, tiny_benchmark, tmp_path, until=half, progress=False, device=CPU)
    (first,) = json.loads((run.path / "code.json").read_text())
    monkeypatch.setattr(training, "code_digest", lambda names: "another")
    with pytest.raises(CheckpointError, match=r"method's code has changed[\s\S]*--other-code"):
        train(CONFIG, tiny_benchmark, tmp_path, resume=True, progress=False, device=CPU)
    run = train(CONFIG, tiny_benchmark, tmp_path, resume=True, other_code=True, progress=False, device=CPU)
    assert json.loads((run.path / "code.json").read_text()) == [first, {"step": half, "code": "another"}]
    assert same_weights(run, finished)


def test_the_environment_names_the_device_that_trained(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU {device}")
    assert provenance.environment(CPU)["accelerator"] == "none"
    assert provenance.environment(torch.device("cuda", 1))["accelerator"] == "GPU cuda:1"


def test_a_photo_with_several_right_shapes_never_takes_one_of_them_as_wrong(data, tiny_benchmark, monkeypatch):
    train_rows = tiny_benchmark.rows("train")
    queries = tiny_benchmark.queries.copy()
    ids = tiny_benchmark.shapes.shape_id.to_numpy()[data.photo_shape.unique()]
    column = queries.columns.get_loc("shape_id")
    queries.iloc[train_rows[0], column] = "|".join(ids)  # every shape of a training photo is right for this one
    several = TrainingData.load(dataclasses.replace(tiny_benchmark, queries=queries), CPU)
    given = []
    monkeypatch.setattr(step_module, "total_loss", lambda scores, target, same, loss: given.append((scores, same)))
    torch.manual_seed(0)
    model = build_model(CONFIG.model)
    for step in range(5):  # an epoch
        batch = several.draw(CONFIG.train, step)
        training_loss(model, step_input(several, CONFIG, step), CONFIG, step)
        scores, same = given[-1]
        for i, photo in enumerate(batch.photos.tolist()):
            excluded = [int(photo == 0 and shape in several.photo_shape and column != batch.target[i])
                        for column, shape in enumerate(batch.shapes)]  # fmt: skip
            assert scores[i].isinf().int().tolist() == excluded
            assert not (same[i] & scores[i].isinf()).any()
    assert any(scores.isinf().any() for scores, _ in given)


@pytest.mark.parametrize("loss", ["", "loss.hard_negatives=1", "loss.instance=triplet", "loss.zero_losses=dropped"])
def test_a_score_of_minus_infinity_is_as_good_as_no_shape(loss):
    config = Config().override(loss.split()).loss
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 6, generator=generator).requires_grad_()
    target, same = torch.tensor([0, 1, 2, 3]), torch.randint(2, (4, 6), generator=generator).bool()
    same[:, 5] = False
    with_column = total_loss(scores.masked_fill(torch.arange(6) == 5, -torch.inf), target, same, config)
    torch.testing.assert_close(with_column, total_loss(scores[:, :5], target, same[:, :5], config))
    with_column[0].backward()
    assert scores.grad.isfinite().all()


def spoil_the_loss(total, model):
    return total * math.nan


def spoil_the_gradient(total, model):
    return total + (0 * model.attention_weight).sqrt().sum()  # adds 0, with a gradient of 0 · ∞


@pytest.mark.parametrize("spoil", [spoil_the_loss, spoil_the_gradient])
def test_a_loss_that_is_not_a_number_stops_before_anything_is_kept(spoil, tiny_benchmark, tmp_path, monkeypatch):
    original = training.training_loss

    def spoiled(model, *args):
        total, *parts = original(model, *args)
        return spoil(total, model), *parts

    monkeypatch.setattr(training, "training_loss", spoiled)
    config = CONFIG.override(["train.eval_every=1", "train.log_every=100"])
    with pytest.raises(TrainingError, match=r"not (a )?number[\s\S]*train\.lr"):
        train(config, tiny_benchmark, tmp_path, progress=False, device=CPU)
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / "checkpoint").exists()


def test_a_run_whose_inputs_are_made_ahead_is_the_same_to_the_bit(finished, tiny_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "prefetch", lambda make, steps, device: prefetch(make, steps, device, overlap=True))
    other = train(CONFIG, tiny_benchmark, tmp_path, progress=False, device=CPU)
    assert steps_and_losses(other) == steps_and_losses(finished) and same_weights(other, finished)


def test_without_a_compiler_fusing_is_refused_in_words(tiny_benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"C\+\+ compiler[\s\S]*--compile"):
        train(CONFIG, tiny_benchmark, tmp_path, progress=False, device=CPU, fuse=True)


@pytest.mark.slow
def test_a_fused_run_learns_as_the_plain_one_does(tiny_benchmark, tmp_path):
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler")
    config = CONFIG.override(["train.log_every=1", "train.steps=3"])
    plain, fused = (
        train(config, tiny_benchmark, tmp_path / str(fuse), progress=False, device=CPU, fuse=fuse)
        for fuse in (False, True)
    )
    # Only the first loss: Adam's first steps are as long for a gradient that is nothing but rounding.
    assert fused.log["loss"].iloc[0] == pytest.approx(plain.log["loss"].iloc[0], abs=1e-4)
    assert fused.log["loss"].iloc[2] == pytest.approx(plain.log["loss"].iloc[2], rel=0.1)
    assert fused.model().state_dict().keys() == plain.model().state_dict().keys()


def test_a_batch_larger_than_the_training_shapes_is_refused(tiny_benchmark, tmp_path):
    with pytest.raises(TrainingError, match=r"train\.batch=6"):  # two of eight shapes are unseen
        train(CONFIG.override(["train.batch=7"]), tiny_benchmark, tmp_path, progress=False, device=CPU)


def test_a_benchmark_without_validation_photos_is_refused(tiny_benchmark, tmp_path):
    queries = tiny_benchmark.queries.replace({"split": {"val": "test"}})
    with pytest.raises(TrainingError, match="split 'val'"):
        train(CONFIG, dataclasses.replace(tiny_benchmark, queries=queries), tmp_path, progress=False)


# Names of runs


def test_a_run_is_named_by_configuration_data_and_code(tiny_benchmark, tmp_path, monkeypatch):
    meta = tiny_benchmark.meta | {"sha256": tiny_benchmark.meta["sha256"] | {"views.npy": "0" * 64}}
    names = [
        run_name(CONFIG, tiny_benchmark),
        run_name(CONFIG.override(["train.seed=1"]), tiny_benchmark),
        run_name(CONFIG, dataclasses.replace(tiny_benchmark, meta=meta)),
    ]
    package = tmp_path / "cmiclib"
    shutil.copytree(code.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", package)
    assert run_name(CONFIG, tiny_benchmark) == names[0]
    for edited in ("losses.py", "training/guard.py"):
        with (package / edited).open("a") as file:
            file.write("EDITED = True\n")
        names.append(run_name(CONFIG, tiny_benchmark))
    assert len(set(names)) == len(names)
    (package / "index" / "query.py").write_text("EDITED = True\n")  # no weight depends on it
    assert run_name(CONFIG, tiny_benchmark) == names[-1]
    assert all(name.startswith("test-") for name in names)


def test_all_code_that_training_imports_is_part_of_the_name():
    import grimp  # comes with import-linter, which a machine that only trains may lack

    beside = {"config", "benchmark"}  # their values are in the name
    beside |= {"errors", "geometry", "io"}  # no weight depends on them
    imported = grimp.build_graph("cmiclib", cache_dir=None).find_upstream_modules("cmiclib.training.loop")
    assert {name.split(".")[1] for name in imported} <= {*METHOD, *beside}


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_run_is_named_by_the_content_of_its_initial_weights(as_folder, tiny_benchmark, tmp_path):
    file = tmp_path / "test_resnet.safetensors"
    config = CONFIG.override([f"model.init={tmp_path if as_folder else file}"])
    names = []
    for content in (b"one", b"another", b"one"):
        file.write_bytes(content)
        names.append((run_name(config, tiny_benchmark), config_hash(config)))
    assert names[0] == names[2] and all(a != b for a, b in zip(names[0], names[1], strict=True))


def test_train_or_load_trains_once_and_finishes_what_was_interrupted(tiny_benchmark, tmp_path, monkeypatch):
    config = CONFIG.override(["train.steps=2", "train.eval_every=1"])
    original = training.training_loss
    steps = []

    def counted(model, data, config, step, processes):
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return original(model, data, config, step, processes)

    monkeypatch.setattr(training, "training_loss", counted)
    with pytest.raises(KeyboardInterrupt):
        train_or_load(config, tiny_benchmark, tmp_path, progress=False)
    first = train_or_load(config, tiny_benchmark, tmp_path, progress=False)
    again = train_or_load(config, tiny_benchmark, tmp_path, progress=False)
    assert steps == [0, 1, 1]
    assert first.path == again.path == tmp_path / run_name(config, tiny_benchmark)


# Optimisation


def test_learning_rate_by_hand():
    constant = TrainConfig(lr=2.0, warmup=4, steps=8)
    assert [learning_rate(step, constant) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    cosine = TrainConfig(lr=2.0, warmup=2, steps=6, schedule="cosine")
    expected = [1, 2, 2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)]
    assert [learning_rate(step, cosine) for step in range(6)] == pytest.approx(expected)


def test_adam_is_the_papers_and_adamw_decays_matrices_only():
    model = build_model(CONFIG.model)
    adam = make_optimizer(model, TrainConfig())
    assert type(adam) is torch.optim.Adam
    assert (adam.defaults["lr"], adam.defaults["betas"], adam.defaults["weight_decay"]) == (5e-5, (0.5, 0.999), 0)
    adamw = make_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    assert all(decay[id(p)] == (0.1 if p.ndim > 1 else 0) for p in model.parameters())


def test_backbones_can_learn_with_a_share_of_the_learning_rate():
    model = build_model(CONFIG.model)
    optimizer = make_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1, backbone_lr=0.25))
    set_learning_rate(optimizer, 2.0)
    rate = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        assert rate[id(p)] == (0.5 if ".backbone." in name else 2.0, 0.1 if p.ndim > 1 else 0.0)


def test_fixed_filters_need_depthwise_convolutions():
    for backbone in ("test_resnet", "resnext50_32x4d"):
        model = build_model(CONFIG.model.model_copy(update={"query_backbone": backbone, "fixed_filters": True}))
        assert all(p.requires_grad for name, p in model.named_parameters() if "conv" in name)
        with pytest.raises(ConfigError, match=r"model\.fixed_filters.*model\.query_backbone"):
            check_options(model)
