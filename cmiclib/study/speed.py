"""What search and training cost, and what this machine could do at best: measured, beside what was counted.

A measurement is a list of seconds, all of which are kept; reports show its median. A machine sets two limits: how fast
it copies memory and how fast it multiplies matrices. An operation is one multiplication or one addition.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median_high as median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ..config import Config
from ..model import CMIC

VIEWS, DIM = 12, 128


def peak_memory() -> int:
    """Return the most bytes of memory that this process has used at once, including parts of mapped files."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows; on Linux it would include the parent's memory

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds(function: Callable[[], Any], repeats: int = 5) -> list[float]:
    """Time a function ``repeats`` times, after a first call that warms up."""
    return in_turns({"": function}, repeats)[""]


def in_turns(functions: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, list[float]]:
    """Return each function's seconds, timed turn by turn after a warming one: all share what slows the machine."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return taken


def beside_limits(
    function: Callable[[], Any], repeats: int = 5, megabytes: int = 256, side: int = 2048
) -> dict[str, Any]:
    """Time a function and, in turns with it, what no search can beat: copying memory, and multiplying square matrices.

    ``megabytes``, the size of the memory that is copied, must be more than the caches hold. Returns ``seconds``,
    ``copy_seconds`` and ``product_seconds`` of each turn and, from their medians, ``copy_rate``, bytes read and written
    per second, and ``product_rate``, operations per second in float32.
    """
    source, matrix = torch.ones(megabytes << 18), torch.randn(side, side)  # float32
    target = torch.empty_like(source)
    copy, multiply = partial(target.copy_, source), partial(torch.mm, matrix, matrix)
    taken = in_turns({"seconds": function, "copy_seconds": copy, "product_seconds": multiply}, repeats)
    copied, multiplied = median(taken["copy_seconds"]), median(taken["product_seconds"])
    return {**taken, "copy_rate": 2 * source.nbytes / copied, "product_rate": 2 * side**3 / multiplied}


def random_gallery(shapes: int, queries: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return random queries (Q, 128), views (N, 12, 128) of ``dtype`` and W (128, 128); values do not affect times."""
    generator = torch.Generator().manual_seed(0)
    query = F.normalize(torch.randn(queries, DIM, generator=generator), dim=-1)
    views = torch.empty(shapes, VIEWS, DIM, dtype=dtype)
    for block in views.split(4096):  # so that never much more than the gallery exists
        block.copy_(F.normalize(torch.randn(block.shape, generator=generator), dim=-1))
    return query, views, torch.randn(DIM, DIM, generator=generator) / 4


def search_work(shapes: int, queries: int, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Count what any search has to do: ``bytes`` of the gallery read, ``operations`` of both products."""
    numbers = shapes * VIEWS * DIM
    return {"bytes": numbers * dtype.itemsize, "operations": 2 * 2 * queries * numbers}


def least_seconds(row: Mapping[str, Any]) -> float:
    """Return the least time of a search from its ``bytes``, ``operations`` and the rates of :func:`beside_limits`."""
    return float(max(row["bytes"] / row["copy_rate"], row["operations"] / row["product_rate"]))


def step_cost(config: Config) -> dict[str, float]:
    """Count what one training step needs, without running it.

    Returns ``operations`` forward and backward; ``activations``, bytes kept from forward to backward in ``float32``;
    ``weights``, bytes of weights, gradients and Adam's two moments.
    """
    model = CMIC(config.model).train().to("meta")  # made with numbers, by which the stages are told apart
    size, settings = config.model.image_size, config.train
    columns = max(settings.batch, settings.shapes)
    photos = torch.empty(settings.batch, 4, size, size, device="meta")
    views = torch.empty(columns, settings.views, 1, size, size, device="meta")
    if settings.copies:  # the step begins behind the frozen stages
        photos = model.query_encoder.frozen_forward(model.photo_input(photos))
    if settings.view_copies:
        views = model.view_encoder.frozen_forward(views.flatten(0, 1)).unflatten(0, views.shape[:2])
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        alive.append(tensor)  # so that no storage of the same id follows
        return tensor

    alive: list[Tensor] = [*model.parameters()]
    weights = {id(p.untyped_storage()) for p in alive}
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        query, gallery = model(
            photos, views, photos_are_features=settings.copies > 0, views_are_features=settings.view_copies > 0
        )
        model.score(query, gallery).sum().backward()
    whole = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    return {
        "operations": float(counter.get_total_flops()),
        "activations": float(sum(size for name, size in kept.items() if name not in weights)),
        "weights": float(whole + 3 * sum(p.nbytes for p in model.parameters() if p.requires_grad)),
    }
