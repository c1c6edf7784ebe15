"""Several processes that train as one: started by torchrun, joined by torch.distributed.

A batch is a function of seed and step, so all processes draw the same one. Each embeds its share of the photos and of
the shapes; then all vectors are gathered, and every process computes the whole loss, which compares each photo with the
shapes of all processes. The gradient of gathering is the sum of all processes' gradients. Each of them is that of the
whole loss, so the mean that ``DistributedDataParallel`` takes is the gradient of one process with the whole batch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from ..errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """This process's rank among ``count`` processes."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def shard(self, rows: int) -> slice:
        """Return this process's part of ``rows`` rows: contiguous, its size differing from others' by one at most."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def gather(self, part: Tensor, rows: int) -> Tensor:
        """Return all rows (rows, …) in every process, with gradients; ``part`` is this process's ``shard(rows)``."""
        if self.count == 1:
            return part
        parts: Tensor = _Gather.apply(part, self, rows)
        return parts

    def all_reduce_max(self, number: int, device: torch.device | str) -> int:
        """Return the largest number of all processes; on a GPU the host waits for it."""
        if self.count == 1:
            return number
        shared = torch.tensor(number, device=device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return int(shared)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Processes()


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, by NCCL on CUDA and Gloo elsewhere; TrainingError if that fails."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise TrainingError(f"the processes do not find each other ({error})", fix="start them with torchrun") from None
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def own_device() -> torch.device:
    """Return this process's GPU, by torchrun's ``LOCAL_RANK``, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, processes: Processes, rows: int) -> Tensor:
        ctx.own = processes.shard(rows)
        shares = [Processes(rank, processes.count).shard(rows) for rank in range(processes.count)]
        most = max(share.stop - share.start for share in shares)
        padded = F.pad(part, (0, 0) * (part.ndim - 1) + (0, most - len(part))).contiguous()  # all send the same amount
        received = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(received, padded)
        return torch.cat([block[: share.stop - share.start] for block, share in zip(received, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _total(gradient.contiguous())[ctx.own], None, None


class _Sum(torch.autograd.Function):
    """A sum over processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _total(value.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _total(gradient.contiguous())


def _total(tensor: Tensor) -> Tensor:
    distributed.all_reduce(tensor)
    return tensor


def share_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """Let batch normalisations that learn use the statistics of all processes; returns the model.

    Only their class changes, because encoders list parts of their backbones, and hooks are attached to them. On GPUs
    they become ``torch.nn.SyncBatchNorm``, which does not run on CPUs.
    """
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    plain, with_activation = (
        (nn.SyncBatchNorm, SyncBatchNormAct) if device.type == "cuda" else (SharedBatchNorm, SharedBatchNormAct)
    )
    norms: list[Any] = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        if all(parameter.requires_grad for parameter in norm.parameters()):
            norm.__class__ = with_activation if isinstance(norm, BatchNormAct2d) else plain  # timm's EfficientNets
            norm.process_group = None  # of SyncBatchNorm: all processes
    return model


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all processes, for torchrun on CPUs, where SyncBatchNorm does not run."""

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 4):
            raise ValueError(f"expected (B, C) or (B, C, H, W), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (B, C) or (B, C, H, W)."""
        self._check_input_dim(x)
        if not self.training or self.running_mean is None or self.running_var is None or self.momentum is None:
            return super().forward(x)
        others, columns = [i for i in range(x.ndim) if i != 1], (1, -1) + (1,) * (x.ndim - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = x.new_tensor(x.numel() / x.shape[1], dtype=wide.dtype)
        sums = _Sum.apply(torch.cat((wide.sum(others), count.view(1))))
        total, mean = sums[-1], sums[:-1] / sums[-1]
        centred = wide - mean.view(columns)
        variance = _Sum.apply(centred.square().sum(others)) / total
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * total / (total - 1)).to(self.running_var), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        result = centred * (variance + self.eps).rsqrt().view(columns)
        if self.affine:
            result = result * self.weight.view(columns) + self.bias.view(columns)
        return result.to(x.dtype)


class SharedBatchNormAct(SharedBatchNorm):
    """The same for timm's ``BatchNormAct2d``, whose dropout and activation it keeps."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (B, C, H, W), then apply the activation."""
        result: Tensor = self.act(self.drop(super().forward(x)))
        return result
