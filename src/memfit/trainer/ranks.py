"""One process or several: what they agree on, and the sum of their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from memfit.errors import UsageError

__all__ = ["GradientBuckets", "Ranks"]

#: As DistributedDataParallel's ``bucket_cap_mb`` (torch/nn/parallel/distributed.py, 2.11 to 2.15).
T = TypeVar("T")

_BUCKET_BYTES = 25 * 1024 * 1024


class Ranks:
    """The processes of a run, as ``torchrun`` started them; alone without it.

    Args:
        rank: of this process.
        world_size: how many there are.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size

    @classmethod
    def join(cls, device_type: str) -> Ranks:
        """Meet the other processes when ``torchrun`` started this one.

        Args:
            device_type: ``"cuda"`` talks through NCCL, the others through gloo.

        Raises:
            UsageError: the environment is not torchrun's.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if not dist.is_available():
            raise UsageError("This PyTorch was built without torch.distributed.")
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether there is somebody to talk to."""
        return self.world_size > 1

    def total(self, number: float, device: torch.device) -> float:
        """The sum of a number over all ranks."""
        if not self.are_many:
            return number
        value = torch.tensor(float(number), dtype=torch.float64, device=device)
        dist.all_reduce(value)
        return float(value)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether a flag is set on any rank."""
        return self.total(float(flag), device) > 0

    def least(self, number: int, device: torch.device) -> int:
        """The smallest of a number over all ranks."""
        if not self.are_many:
            return number
        value = torch.tensor(number, device=device)
        dist.all_reduce(value, op=dist.ReduceOp.MIN)
        return int(value)

    def from_first(self, value: T) -> T:
        """What the first rank has."""
        if not self.are_many:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place."""
        if self.are_many:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.are_many:
            dist.barrier()

    def leave(self) -> None:
        """End the conversation."""
        if self.are_many and dist.is_initialized():
            dist.destroy_process_group()


class GradientBuckets:
    """Gradients as views of a few flat tensors, which ranks add up whole.

    DistributedDataParallel with ``gradient_as_bucket_view`` keeps them so, too. Its reducer talks
    in the middle of backward, and a rank that runs out of memory there would leave the others
    waiting for ever; here ranks first agree that all have come through.

    Args:
        parameters: that train.
        ranks: who adds up.
    """

    def __init__(self, parameters: Iterable[Tensor], ranks: Ranks) -> None:
        self._ranks = ranks
        self._flat: list[Tensor] = []
        self._views: list[tuple[Tensor, Tensor]] = []
        bucket: list[Tensor] = []
        for parameter in parameters:
            full = sum(p.nbytes for p in bucket) + parameter.nbytes > _BUCKET_BYTES
            other = bucket and bucket[0].dtype != parameter.dtype
            if bucket and (full or other):
                self._add(bucket)
                bucket = []
            bucket.append(parameter)
        self._add(bucket)

    def _add(self, parameters: list[Tensor]) -> None:
        first = parameters[0]
        flat = torch.zeros(
            sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device
        )
        self._flat.append(flat)
        start = 0
        for parameter in parameters:
            # as the parameter lies in memory: autograd then adds to it in place
            view = flat[start : start + parameter.numel()].as_strided(
                parameter.shape, parameter.stride(), start
            )
            self._views.append((parameter, view))
            start += parameter.numel()

    def clear(self) -> None:
        """Zero gradients, in their place."""
        for flat in self._flat:
            flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def sum(self) -> None:
        """Add the gradients up over all ranks."""
        handles = [dist.all_reduce(flat, async_op=True) for flat in self._flat]
        for handle in handles:
            handle.wait()
