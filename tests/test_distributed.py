"""Two processes against one: what they gather, normalise and learn."""

import os
import socket

import pytest
import torch
from torch import multiprocessing, nn

from cmiclib.distributed import ALONE, Processes, SharedBatchNorm, joined, share_statistics
from cmiclib.errors import TrainingError

CPU = torch.device("cpu")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def as_process(rank, function, count, port, results, arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    with joined(CPU) as processes:
        results[rank] = function(processes, *arguments)


def in_processes(function, *arguments, count=2):
    """Call ``function(processes, …)`` in so many processes; returns what each returned."""
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(as_process, (function, count, free_port(), results, arguments), nprocs=count)
        return [results[rank] for rank in range(count)]


@pytest.mark.parametrize("rows", [0, 1, 7, 12])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_all_rows_once_and_of_nearly_one_size(rows, count):
    parts = [list(range(rows))[Processes(rank, count).share(rows)] for rank in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def gathered(processes, rows, weights):
    mine = rows[processes.share(len(rows))].clone().requires_grad_()
    whole = processes.gather(mine, len(rows))
    (whole * weights).square().sum().backward()
    return whole.detach(), mine.grad


def test_gathering_keeps_order_and_adds_up_what_all_ask():
    rows, weights = torch.randn(5, 3, 2), torch.randn(5, 3, 2)
    one, gradient = gathered(ALONE, rows, weights)
    results = in_processes(gathered, rows, weights)
    assert all(torch.equal(whole, one) for whole, _ in results)
    torch.testing.assert_close(torch.cat([g for _, g in results]), 2 * gradient)


def normalised(processes, pictures, state):
    norm = nn.BatchNorm2d(3) if pictures.ndim == 4 else nn.BatchNorm1d(3)
    norm.load_state_dict(state)
    norm = norm if processes.count == 1 else SharedBatchNorm.like(norm)
    mine = pictures[processes.share(len(pictures))].clone().requires_grad_()
    result = norm.train()(mine)
    weights = torch.arange(pictures.numel(), dtype=torch.float32).view_as(pictures)[processes.share(len(pictures))]
    (result * weights.sin()).sum().backward()
    return result.detach(), mine.grad, norm.weight.grad, norm.state_dict()


@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 4, 2)])
def test_statistics_are_those_of_the_whole_batch(shape):
    pictures = 2 * torch.randn(shape) + 1
    state = nn.BatchNorm1d(3).state_dict() | {"weight": torch.rand(3) + 0.5, "bias": torch.randn(3)}
    output, gradient, weight, after = normalised(ALONE, pictures, state)
    results = in_processes(normalised, pictures, state)
    torch.testing.assert_close(torch.cat([r[0] for r in results]), output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([r[1] for r in results]), gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(r[2] for r in results), weight, rtol=1e-4, atol=1e-5)
    for _, _, _, theirs in results:
        torch.testing.assert_close(theirs, after, rtol=1e-5, atol=1e-6)


def test_every_normalisation_of_a_model_is_replaced_and_keeps_its_names():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)))
    names, parameters = list(model.state_dict()), list(model.parameters())
    shared = share_statistics(model, CPU)
    assert not any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in shared.modules())
    assert list(shared.state_dict()) == names
    assert all(a is b for a, b in zip(shared.parameters(), parameters, strict=True))


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
