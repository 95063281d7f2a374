"""The device of a run: which one, how much it may give, what was used of it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from memfit.cards.catalogue import GPU, local_gpu
from memfit.errors import UsageError
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.trainer.recovery.out_of_memory import release_accelerator_cache

__all__ = ["MemoryPeaks", "RunDevice", "choose_device"]


@dataclass(frozen=True, slots=True)
class MemoryPeaks:
    """The most memory that a run took, predicted or measured.

    Args:
        allocated_bytes: in live blocks.
        reserved_bytes: in segments.
        limit_bytes: of the virtual budget; None where there is none.
        parts: requested bytes by part when most was allocated; None where nobody knows.
    """

    allocated_bytes: int
    reserved_bytes: int
    limit_bytes: int | None = None
    parts: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class RunDevice:
    """Where a run computes.

    Args:
        device: as torch has it.
        card: with its free memory; None on the CPU.
        memory_bytes: a limit that the user set; None for none.
        budget: holds the limit on the CPU.
    """

    device: torch.device
    card: GPU | None = None
    memory_bytes: int | None = None
    budget: CpuBudget | None = None

    @property
    def name(self) -> str:
        """In words."""
        if self.card is not None:
            return self.card.name
        return "CPU" if self.budget is None else "CPU under a virtual budget"

    def limits(self) -> AbstractContextManager[Any]:
        """Inside, the limit holds."""
        return self.budget if self.budget is not None else nullcontext()

    def release_cache(self) -> None:
        """Give cached memory back."""
        if self.budget is not None:
            self.budget.empty_cache()
        else:
            release_accelerator_cache()

    @property
    def reserved_bytes(self) -> int | None:
        """Now, by this process; None where nobody counts."""
        if self.budget is not None:
            return self.budget.reserved_bytes
        if self.device.type == "cuda":
            return torch.cuda.memory_reserved(self.device)
        return None

    def peaks(self) -> MemoryPeaks | None:
        """The most that was used so far; None where nobody counts."""
        if self.budget is not None:
            return MemoryPeaks(
                self.budget.max_allocated_bytes,
                self.budget.max_reserved_bytes,
                self.budget.capacity_bytes,
                {str(part): size for part, size in self.budget.peak_parts.items()},
            )
        if self.device.type == "cuda":
            return MemoryPeaks(
                torch.cuda.max_memory_allocated(self.device),
                torch.cuda.max_memory_reserved(self.device),
            )
        return None


def choose_device(name: str = "auto", memory_bytes: int | None = None) -> RunDevice:
    """The device for a run.

    Args:
        name: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``; under torchrun
            each process takes the GPU of its local rank.
        memory_bytes: play a smaller device: a share of the GPU, or a virtual budget on the CPU.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{name!r} is no device.", hint="auto, cpu, cuda or cuda:1.") from None
    if device.type == "cpu":
        budget = None if memory_bytes is None else CpuBudget(memory_bytes)
        return RunDevice(device, None, memory_bytes, budget)
    if device.type != "cuda":
        raise UsageError(f"memfit trains on cpu and cuda, not on {device.type}.")
    return _cuda(device, memory_bytes)


def _cuda(device: torch.device, memory_bytes: int | None) -> RunDevice:
    if not torch.cuda.is_available():
        raise UsageError(
            "There is no CUDA GPU here.", hint="Without --device, memfit takes the CPU."
        )
    _check_ranks(device)
    index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise UsageError(f"There is no cuda:{index}; {torch.cuda.device_count()} GPUs are here.")
    device = torch.device("cuda", index)
    found = local_gpu(index)  # before the CUDA context takes its share
    torch.cuda.set_device(device)
    card = None if found is None else found[0].with_free_bytes(found[1])
    if memory_bytes is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_bytes / total), device)
        card = None if card is None else card.with_free_bytes(memory_bytes)
    return RunDevice(device, card, memory_bytes)


def _check_ranks(device: torch.device) -> None:
    """Each of torchrun's processes on this machine needs a GPU of its own."""
    ranks, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if ranks > 1 and device.index is not None:
        raise UsageError(
            f"{device} is one GPU for {ranks} ranks.", hint="With --device cuda each takes its own."
        )
    if ranks > gpus:
        raise UsageError(
            f"torchrun started {ranks} ranks on this machine, which has {gpus} GPU"
            f"{'' if gpus == 1 else 's'}.",
            hint=f"Start {gpus} with --nproc-per-node {gpus}, or train on the CPU: --device cpu.",
        )
