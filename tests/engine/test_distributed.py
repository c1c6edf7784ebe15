"""Two processes against one: what they gather, normalise and learn."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import wait

import pytest
import torch
from live import free_port
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cmiclib.benchmark import Benchmark
from cmiclib.config import Config, ModelConfig, TrainConfig
from cmiclib.engine.distributed import ALONE, Processes, SharedBatchNorm, SharedBatchNormAct, joined, share_statistics
from cmiclib.errors import TrainingError
from cmiclib.index import ShapeIndex
from cmiclib.model import build_model
from cmiclib.training.guard import CheckpointTimer, LossWatch
from cmiclib.training.loop import TrainingData, step_input, train, training_loss

CPU = torch.device("cpu")


def serve(rank, count, port, connection):
    """Join the others, then call what comes through the pipe until nothing more comes."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with joined(CPU) as processes, suppress(EOFError):
        while True:
            function, arguments = connection.recv()
            connection.send(function(processes, *arguments))


class Team:
    """Two processes that stay joined from test to test; after a failure in one of them, two new ones."""

    count = 2

    def __init__(self):
        self.processes, self.pipes = [], []

    def __call__(self, function, *arguments):
        """Call ``function(processes, …)`` in both processes; return what each returned."""
        if not self.processes:
            self.start()
        for pipe in self.pipes:
            pipe.send((function, arguments))
        results = {}
        while len(results) < self.count:
            for pipe in wait([pipe for pipe in self.pipes if pipe not in results]):
                try:
                    results[pipe] = pipe.recv()
                except EOFError:
                    self.stop()
                    pytest.fail("a process failed; its traceback is in the captured stderr")
        return [results[pipe] for pipe in self.pipes]

    def start(self):
        context = get_context("forkserver")  # imports once what both need
        context.set_forkserver_preload(["cmiclib.training.loop", "cmiclib.index"])
        port = free_port()
        for rank in range(self.count):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(rank, self.count, port, there), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.pipes.append(here)

    def stop(self):
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.pipes = [], []


@pytest.fixture(scope="module")
def in_processes():
    team = Team()
    yield team
    team.stop()


@pytest.mark.parametrize("rows", [0, 1, 7, 12])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_all_rows_once_and_of_nearly_one_size(rows, count):
    parts = [list(range(rows))[Processes(rank, count).shard(rows)] for rank in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def gathered(processes, rows, weights):
    mine = rows[processes.shard(len(rows))].clone().requires_grad_()
    whole = processes.gather(mine, len(rows))
    (whole * weights).square().sum().backward()
    return whole.detach(), mine.grad


def test_gathering_keeps_order_and_adds_up_what_all_ask(in_processes):
    rows, weights = torch.randn(5, 3, 2), torch.randn(5, 3, 2)
    one, gradient = gathered(ALONE, rows, weights)
    results = in_processes(gathered, rows, weights)
    assert all(torch.equal(whole, one) for whole, _ in results)
    torch.testing.assert_close(torch.cat([g for _, g in results]), 2 * gradient)


def normalised(processes, pictures, state):
    norm = nn.BatchNorm2d(3) if pictures.ndim == 4 else nn.BatchNorm1d(3)
    norm.load_state_dict(state)
    norm = norm if processes.count == 1 else share_statistics(norm, CPU)
    mine = pictures[processes.shard(len(pictures))].clone().requires_grad_()
    result = norm.train()(mine)
    weights = torch.arange(pictures.numel(), dtype=torch.float32).view_as(pictures)[processes.shard(len(pictures))]
    (result * weights.sin()).sum().backward()
    return result.detach(), mine.grad, norm.weight.grad, norm.state_dict()


@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 4, 2)])
def test_statistics_are_those_of_the_whole_batch(in_processes, shape):
    pictures = 2 * torch.randn(shape) + 1
    state = nn.BatchNorm1d(3).state_dict() | {"weight": torch.rand(3) + 0.5, "bias": torch.randn(3)}
    output, gradient, weight, after = normalised(ALONE, pictures, state)
    results = in_processes(normalised, pictures, state)
    torch.testing.assert_close(torch.cat([r[0] for r in results]), output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([r[1] for r in results]), gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(r[2] for r in results), weight, rtol=1e-4, atol=1e-5)
    for _, _, _, theirs in results:
        torch.testing.assert_close(theirs, after, rtol=1e-5, atol=1e-6)


def test_every_normalisation_that_learns_is_shared_and_stays_what_it_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)))
    frozen = nn.BatchNorm2d(4).requires_grad_(False)
    model.append(frozen)
    parts, names, parameters = list(model.modules()), list(model.state_dict()), list(model.parameters())
    shared = share_statistics(model, CPU)
    assert [type(part) for part in shared.modules() if "Norm" in type(part).__name__] == [
        SharedBatchNorm, SharedBatchNorm, nn.BatchNorm2d
    ]  # fmt: skip
    assert list(shared.state_dict()) == names
    assert all(a is b for a, b in zip(shared.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(shared.modules(), parts, strict=True))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_activations_inside_of_normalisations_stay(device):
    encoder = build_model_of(LITE).query_encoder
    share_statistics(encoder, torch.device(device))  # classes only, no GPU is asked
    norms = [part for part in encoder.backbone.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert all(type(norm) in (SharedBatchNormAct, SyncBatchNormAct, BatchNormAct2d) for norm in norms)
    learning = [norm for norm in norms if norm.weight.requires_grad]
    assert learning and {type(norm) for norm in learning} == {
        SharedBatchNormAct if device == "cpu" else SyncBatchNormAct
    }
    assert encoder.top[1] is encoder.backbone.bn2  # lists of parts are still lists of the same parts


CONFIG = Config(
    profile="test",
    model=ModelConfig(query_backbone="test_resnet", view_backbone="test_resnet", dim=16, image_size=32, init="random"),
    train=TrainConfig(batch=5, shapes=7, steps=4, views=3, lr=1e-3, log_every=1, eval_every=2),
)


LITE = CONFIG.override([
    "model.query_backbone=tf_efficientnet_lite0", "model.view_backbone=tf_efficientnet_lite0", "model.grid=2",
    "model.frozen=2", "model.running_variance=biased",
])  # fmt: skip


def first_step(processes, folder, config):
    """One step in float64: in float32, gradients of maps of one pixel are mostly rounding."""
    benchmark, model = Benchmark.open(folder), build_model_of(config).double()
    model = model if processes.count == 1 else share_statistics(model, CPU)
    data = TrainingData.load(benchmark, CPU)
    wrapped = model if processes.count == 1 else DistributedDataParallel(model)
    given = step_input(data, config, 0)
    given = given._replace(photos=given.photos.double(), views=given.views.double())
    losses = training_loss(wrapped, given, config, 0, processes)
    losses[0].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return torch.stack(losses).detach(), gradients, dict(model.named_buffers())


def build_model_of(config):
    torch.manual_seed(config.train.seed)
    return build_model(config.model).train()


@pytest.mark.parametrize("config", [CONFIG, LITE], ids=["residual", "activations in normalisations"])
def test_a_step_of_two_processes_has_loss_gradients_and_statistics_of_one(in_processes, tiny_benchmark, config):
    losses, gradients, statistics = first_step(ALONE, tiny_benchmark.path, config)
    for theirs, of_theirs, kept in in_processes(first_step, tiny_benchmark.path, config):
        torch.testing.assert_close(theirs, losses, atol=1e-5, rtol=0)
        assert of_theirs.keys() == gradients.keys()
        for name, gradient in gradients.items():
            largest = max(1.0, gradient.abs().max().item())
            assert (of_theirs[name] - gradient).abs().max().item() <= 1e-5 * largest, name
        torch.testing.assert_close(kept, statistics, atol=1e-5, rtol=1e-4)


def built(processes, folder):
    model = build_model_of(CONFIG)
    index = ShapeIndex.build(model, Benchmark.open(folder), CONFIG, processes=processes)
    return index.views, index.shape_ids


def test_two_processes_embed_a_gallery_together(in_processes, tiny_benchmark):
    views, ids = built(ALONE, tiny_benchmark.path)
    for theirs, of_theirs in in_processes(built, tiny_benchmark.path):
        torch.testing.assert_close(theirs, views, atol=1e-5, rtol=0)
        assert of_theirs == ids


def whole_run(processes, folder, path, resume):
    run = train(CONFIG, Benchmark.open(folder), path, resume=resume, progress=False, device=CPU, processes=processes)
    return run.log.drop(columns="seconds").to_dict("list"), run.model().state_dict()


def test_two_processes_train_alike_and_resume(in_processes, tiny_benchmark, tmp_path):
    log, _ = whole_run(ALONE, tiny_benchmark.path, tmp_path / "one", False)
    results = in_processes(whole_run, tiny_benchmark.path, tmp_path / "two", False)
    for theirs, of_theirs in results:
        assert theirs["step"] == log["step"]
        assert theirs["loss"][0] == pytest.approx(log["loss"][0], abs=1e-4)
        assert theirs["loss"][1] == pytest.approx(log["loss"][1], rel=0.01)  # Adam magnifies what is rounded otherwise
        assert all(torch.equal(value, results[0][1][name]) for name, value in of_theirs.items())
    (tmp_path / "two" / "environment.json").unlink()
    again, _ = in_processes(whole_run, tiny_benchmark.path, tmp_path / "two", True)[0]
    assert again["step"] == log["step"]


def mean_run(processes, folder, path):
    config = CONFIG.override(["model.fusion=mean"])
    run = train(config, Benchmark.open(folder), path, progress=False, device=CPU, processes=processes)
    return run.log.step.max()


def test_two_processes_train_without_attention(in_processes, tiny_benchmark, tmp_path):
    assert in_processes(mean_run, tiny_benchmark.path, tmp_path / "run") == [4, 4]


class Stopped(BaseException):
    """What the signal does in a test."""


def stopped_after(processes, folder):
    def stop(*_):
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return _stopped_after(processes, folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stopped_after(processes, folder):
    with CheckpointTimer(processes=processes) as pace:
        for done in range(1, 20):
            if processes.rank == 1 and done == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if pace.due(asks=done % 2 == 0):
                (folder / f"state {processes.rank}").write_text(str(done))
                try:
                    pace.written(done)
                except Stopped:
                    return done
    return None


def test_one_process_that_is_told_to_stop_stops_all_after_the_same_step(in_processes, tmp_path):
    assert in_processes(stopped_after, tmp_path) == [4, 4]
    assert (tmp_path / "state 0").read_text() == "4"


def failed(processes, folder, path):
    benchmark, watch = Benchmark.open(folder), LossWatch(CPU)
    watch.note(torch.tensor(float("nan")), 0)
    try:
        watch.check(TrainingData.load(benchmark, CPU), CONFIG.train, benchmark, path, processes.first)
    except TrainingError as error:
        return error.problem
    return None


def test_a_loss_that_is_no_number_is_one_message_in_all_processes(in_processes, tiny_benchmark, tmp_path):
    messages = in_processes(failed, tiny_benchmark.path, tmp_path)
    assert messages[0] == messages[1] and "step 1 is not a number" in messages[0]
    assert json.loads((tmp_path / "failed.json").read_text())["step"] == 1


@pytest.mark.slow
def test_torchrun_trains_evaluates_and_indexes_by_the_commands_of_the_readme(tiny_benchmark, tmp_path):
    def together(*arguments, count=2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        done = subprocess.run(
            [*launch, "-m", "cmiclib.cli", *map(str, arguments)], capture_output=True, text=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    folder, run = tiny_benchmark.path, tmp_path / "run"
    values = [f"model.{key}={getattr(CONFIG.model, key)}" for key in ("query_backbone", "view_backbone", "image_size")]
    values += [f"train.{key}={getattr(CONFIG.train, key)}" for key in ("batch", "steps", "views", "eval_every")]
    said = together("train", "--benchmark", folder, "--profile", "paper", "--output", run, "model.init=random", *values)
    assert said.count("run: ") == 1
    figures = []
    for count in (1, 2):
        figures.append(tmp_path / f"{count}.json")
        together("evaluate", "-r", run, "--benchmark", folder, "--json", figures[-1], count=count)
        together("index", "-r", run, "--benchmark", folder, "--output", tmp_path / f"{count}.index", count=count)
    alone, two = (json.loads(file.read_text()) for file in figures)
    assert two == pytest.approx(alone, abs=1e-6)
    indexes = [ShapeIndex.load(tmp_path / f"{count}.index") for count in (1, 2)]
    torch.testing.assert_close(indexes[1].views, indexes[0].views, atol=1e-5, rtol=0)
    if find_spec("lancedb"):
        together("index", "-r", run, "--benchmark", folder, "--output", tmp_path / "base", "--engine", "lance")
        database = ShapeIndex.load(tmp_path / "base")
        database.check_gallery(tiny_benchmark)
        torch.testing.assert_close(database.views, indexes[0].views, atol=1e-3, rtol=0)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(CPU) as processes:
        assert processes == ALONE and processes.first
    rows = torch.randn(3, 2)
    assert ALONE.gather(rows, 3) is rows


def test_processes_that_cannot_meet_are_told_how_to_start(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match="torchrun"), joined(CPU):
        pass
