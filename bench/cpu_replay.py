"""A stand-in for xMem's method (Middleware 2025, arXiv 2510.21048): profile on the CPU, replay.

Two real training steps run on the CPU under ``torch.profiler``; its memory events, in order, go
through memfit's model of PyTorch's caching allocator. xMem itself also corrects the lifetimes of
gradients and batches and adds the framework's memory measured on the target GPU; this is its
idea, not its code, and its published figures are its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from profiler_memory import CpuRun

__all__ = ["replayed_peak_bytes"]

STEPS = 2  # optimizer state appears at the end of the first


def replayed_peak_bytes(
    model: nn.Module, input_shape: tuple[int, int, int], *, batch_size: int
) -> int:
    """Peak reserved bytes of two training steps, had their CPU allocations been CUDA's.

    Args:
        model: on the CPU; trained in place.
        input_shape: (channels, height, width) of one image.
        batch_size: images per step.
    """
    static = [t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers())]
    return replay(static, profiled_steps(model, input_shape, batch_size))


def profiled_steps(model: nn.Module, input_shape: tuple[int, int, int], batch_size: int) -> CpuRun:
    """Every CPU allocation and free of the steps."""
    import torch
    from torch.nn.functional import cross_entropy

    from profiler_memory import profile_memory

    # foreach: the default on CUDA, not on the CPU
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9, foreach=True)

    def steps() -> None:
        for _ in range(STEPS):
            images = torch.randn(batch_size, *input_shape)
            labels = torch.zeros(batch_size, dtype=torch.long)
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()

    return profile_memory(steps, dispatched=())


def replay(static: Iterable[int], run: CpuRun) -> int:
    """Peak reserved bytes of the caching allocator over a run.

    Args:
        static: bytes of each tensor that is there before the run and stays.
        run: allocations and frees in order.
    """
    from memfit.memory.allocator.allocator import CachingAllocator

    allocator = CachingAllocator()
    for size_bytes in static:
        allocator.allocate(size_bytes)
    live = {}
    for event in run.events:
        if event >= 0:
            live[event] = allocator.allocate(run.allocations[event].size_bytes)
        else:
            allocator.free(live.pop(~event))
    return allocator.peak_reserved_bytes
