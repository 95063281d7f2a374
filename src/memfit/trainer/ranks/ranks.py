"""One process or several: how they meet, what they agree on, and how they part."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from memfit.errors import MemfitError, RankStopped, UsageError
from memfit.trainer.ranks.launch import restarts

__all__ = ["TIMEOUT", "PlannedRanks", "Ranks"]

T = TypeVar("T")

#: Longest wait for another rank, NCCL's own default (``torch/distributed/constants.py``, 2.15;
#: gloo's would be 30 minutes). Nothing that a run does between two meetings takes so long, and a
#: rank whose process ends is noticed at once.
TIMEOUT = timedelta(minutes=10)

_VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class Ranks:
    """The processes of a run, as ``torchrun`` started them; alone without it.

    As a context it ends the conversation. Where ranks fail, the first to do so keeps its error;
    the others raise :class:`~memfit.errors.RankStopped`, so that a reason is told once.

    Args:
        rank: of this process.
        world_size: how many there are.
        store: that tells who failed first; None where somebody else started the conversation.
        is_ours: whether the conversation ends with this context.
    """

    def __init__(
        self, rank: int = 0, world_size: int = 1, store: Any = None, is_ours: bool = False
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self._store = store
        self._is_ours = is_ours

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Meet the other processes when ``torchrun`` started this one.

        Args:
            device: of this rank; CUDA devices talk through NCCL, the CPU through gloo.

        Raises:
            UsageError: the environment is not torchrun's.
            MemfitError: the others cannot be reached.
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        if _number("WORLD_SIZE", 1) == 1:
            return cls()
        missing = [name for name in _VARIABLES if not os.environ.get(name)]
        if missing:
            raise UsageError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set.",
                hint="Start with torchrun, which sets them all; or unset WORLD_SIZE.",
            )
        if not dist.is_available():
            raise UsageError("This PyTorch was built without torch.distributed.")
        try:
            shared, rank, world_size = next(rendezvous("env://", timeout=TIMEOUT))
            # torchrun's own store outlives a restart, with the addresses of the ranks before it
            store = dist.PrefixStore(f"memfit/{restarts()}", shared)  # type: ignore[attr-defined]
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=rank,
                world_size=world_size,
                timeout=TIMEOUT,
                device_id=device if device.type == "cuda" else None,
            )
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            reason = str(error).partition("\n")[0]
            lost = MemfitError(f"The other ranks cannot be reached at {where}: {reason}")
            lost.is_of_rank = True
            raise lost from None
        return cls(rank, world_size, store, is_ours=True)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether there is somebody to talk to."""
        return self.world_size > 1

    # -- what they agree on ------------------------------------------------------------------------

    def each(self, number: float, device: torch.device) -> list[float]:
        """What each rank has, in their order."""
        if not self.are_many:
            return [number]
        own = torch.tensor([float(number)], dtype=torch.float64, device=device)
        every = own.new_empty(self.world_size)
        dist.all_gather(list(every.split(1)), own)
        return every.tolist()

    def total(self, number: float, device: torch.device) -> float:
        """The sum of a number over all ranks."""
        return self.totals([number], device)[0] if self.are_many else number

    def totals(self, numbers: Sequence[float], device: torch.device) -> list[float]:
        """The sums of some numbers over all ranks, in float64."""
        if not self.are_many:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64, device=device)
        return [float(value) for value in self.sum_tensor(values).tolist()]

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether a flag is set on any rank."""
        return self.total(float(flag), device) > 0

    def from_first(self, value: T) -> T:
        """What the first rank has."""
        if not self.are_many:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What every rank has, in their order; on all ranks."""
        if not self.are_many:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def check_same(self, **facts: Any) -> None:
        """Compare what must be the same everywhere, as other files on another machine are not.

        Raises:
            UsageError: a fact differs; names it with the first two values.
        """
        gathered = self.gather(facts)
        for name, first in gathered[0].items():
            for rank, theirs in enumerate(gathered):
                if theirs[name] != first:
                    raise UsageError(
                        f"{name.replace('_', ' ').capitalize()} is {first} on rank 0 and "
                        f"{theirs[name]} on rank {rank}.",
                        hint="All ranks need the same files: put data and runs where every "
                        "machine sees them.",
                    )

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place."""
        if self.are_many:
            dist.all_reduce(tensor)
        return tensor

    def sum_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors up over all ranks, in place, all at once."""
        if self.are_many:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def copy_from_first(
        self, tensors: Iterable[Tensor], device: torch.device | None = None
    ) -> None:
        """Give tensors the first rank's values.

        Args:
            tensors: of the same shapes on all ranks.
            device: through which those go that lie elsewhere.
        """
        if not self.are_many:
            return
        with torch.no_grad():
            for tensor in tensors:
                passing = tensor.detach().to(device or tensor.device).contiguous()
                dist.broadcast(passing, 0)
                if passing.data_ptr() != tensor.data_ptr():
                    tensor.copy_(passing)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.are_many:
            dist.barrier()

    # -- the end -----------------------------------------------------------------------------------

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not self.are_many:
            return
        is_told_here = not isinstance(error, Exception) or self._fails_first()
        self._leave(failed=error is not None)
        if not is_told_here:
            raise RankStopped from None
        if error is not None and _is_lost(error):
            reason = str(error).partition("\n")[0].partition(". This is typically")[0]
            error = MemfitError(
                "Another rank ended, or did not answer within "
                f"{TIMEOUT.total_seconds() / 60:.0f} minutes: {reason}.",
                hint="Its own output says why, unless it was killed. Go on with --resume.",
            )
            error.is_of_rank = True
            raise error from None
        if isinstance(error, MemfitError):
            error.is_of_rank = True

    def _fails_first(self) -> bool:
        if self._store is None:
            return True
        try:
            return bool(self._store.add("memfit/failures", 1) == 1)
        except RuntimeError:  # the store is gone with the rank or machine that held it
            return True

    def _leave(self, failed: bool) -> None:
        """End the conversation; NCCL would wait for the others, who may be gone."""
        is_ours = self._is_ours and dist.is_initialized()
        if is_ours and not (failed and dist.get_backend() == "nccl"):
            dist.destroy_process_group()


class PlannedRanks(Ranks):
    """The first of several ranks in a plan, with nobody to talk to: what it would send is made.

    Args:
        world_size: how many are planned.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__(0, world_size)

    def each(self, number: float, device: torch.device) -> list[float]:
        """As if the others had the same."""
        torch.empty(self.world_size, dtype=torch.float64, device=device)
        return [number] * self.world_size

    def totals(self, numbers: Sequence[float], device: torch.device) -> list[float]:
        """Of this rank alone."""
        torch.empty(len(numbers), dtype=torch.float64, device=device)
        return list(numbers)

    def sum_tensors(self, tensors: Iterable[Tensor]) -> None:
        """In place: nothing."""

    def copy_from_first(
        self, tensors: Iterable[Tensor], device: torch.device | None = None
    ) -> None:
        """In place: nothing."""


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or (variable == "WORLD_SIZE" and int(text) < 1):
        raise UsageError(f"{variable} is {text!r}; torchrun sets it to a number.")
    return int(text)


def _is_lost(error: BaseException) -> bool:
    """Whether another rank is gone or silent: NCCL's and the store's errors, and gloo's.

    Gloo raises plain ones that name its source file, ``.../gloo/transport/tcp/pair.cc:561``.
    """
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )
