"""Copies from the host to the device that do not make the host wait, and inputs made ahead of their step."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Made = TypeVar("Made", bound=tuple[Tensor, ...])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device, without waiting for a GPU; on the CPU return the tensor itself."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # from pageable memory the copy would wait


def prefetch(
    make: Callable[[T], Made], items: Iterable[T], device: torch.device, overlap: bool | None = None
) -> Generator[Made, None, None]:
    """Yield ``make(item)`` for each item in order, each made while the caller works with the one before.

    For a GPU, a thread does this on a stream of its own, so that host and device overlap. On a CPU the step uses all
    cores already, and nothing would be gained.

    Args:
        make: returns tensors on the device; it must not draw from torch's global generators.
        items: the arguments of ``make``.
        device: of the tensors.
        overlap: make inputs ahead; default: on a GPU only.
    """
    on_gpu = device.type == "cuda"
    if not (on_gpu if overlap is None else overlap):
        yield from map(make, items)
        return
    stream = torch.cuda.Stream(device) if on_gpu else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))  # what is there already may still be on its way

    def prepare(item: T) -> tuple[Made, torch.cuda.Event | None]:
        if stream is None:
            return make(item), None
        with torch.cuda.device(device), torch.cuda.stream(stream):
            made = make(item)
            return made, stream.record_event()

    def ready(waiting: "Future[tuple[Made, torch.cuda.Event | None]]") -> Made:
        made, done = waiting.result()
        if done is not None:
            own = torch.cuda.current_stream(device)
            own.wait_event(done)  # the device waits, not the host
            for tensor in made:
                tensor.record_stream(own)  # its memory is not given to the next input while the step reads it
        return made

    with ThreadPoolExecutor(1, "input") as pool:
        waiting = None
        for item in items:
            following = pool.submit(prepare, item)
            if waiting is not None:
                yield ready(waiting)
            waiting = following
        if waiting is not None:
            yield ready(waiting)
