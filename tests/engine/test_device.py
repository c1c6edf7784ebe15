"""What is made ahead is what would be made in turn, only earlier; and no error or order gets lost."""

import threading
import time

import pytest
import torch

from cmiclib.engine.device import prefetch, to_device

CPU = torch.device("cpu")


def numbered(item):
    return (torch.tensor(item),)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_come_in_order(overlap, count):
    assert [int(made) for (made,) in prefetch(numbered, range(count), CPU, overlap)] == list(range(count))


def test_the_next_one_is_made_while_the_caller_works():
    begun = [threading.Event() for _ in range(3)]

    def make(item):
        begun[item].set()
        return numbered(item)

    inputs = prefetch(make, range(3), CPU, overlap=True)
    next(inputs)
    assert begun[1].wait(timeout=10)
    time.sleep(0.05)
    assert not begun[2].is_set()  # one ahead, not all of them: each has a batch in memory
    inputs.close()


def test_a_cpu_makes_each_when_it_is_asked_for():
    made = []
    inputs = prefetch(lambda item: made.append(item) or numbered(item), range(3), CPU)
    next(inputs)
    assert made == [0]


def test_an_error_comes_in_its_turn_and_ends_the_thread():
    def make(item):
        if item == 1:
            raise ValueError("batch 1")
        return numbered(item)

    inputs = prefetch(make, range(5), CPU, overlap=True)
    assert int(next(inputs)[0]) == 0
    with pytest.raises(ValueError, match="batch 1"):
        next(inputs)
    assert not any(thread.name.startswith("input") for thread in threading.enumerate())


def test_a_caller_that_leaves_early_leaves_no_thread():
    inputs = prefetch(numbered, range(100), CPU, overlap=True)
    next(inputs)
    inputs.close()
    assert not any(thread.name.startswith("input") for thread in threading.enumerate())


def test_to_the_cpu_nothing_is_copied():
    tensor = torch.arange(3)
    assert to_device(tensor, CPU) is tensor


@pytest.mark.gpu
def test_a_gpu_gets_the_same_values_by_either_way():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")

    def make(item):
        generator = torch.Generator().manual_seed(item)
        return (to_device(torch.rand(512, 512, generator=generator), device) @ torch.ones(512, 64, device=device),)

    found = [[made.sum().item() for (made,) in prefetch(make, range(20), device, overlap)] for overlap in (True, False)]
    assert found[0] == found[1]
