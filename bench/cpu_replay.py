"""A stand-in for xMem's method (Middleware 2025, arXiv 2510.21048): profile on the CPU, replay.

Two real training steps run on the CPU under ``torch.profiler``; the profiler's memory events,
in order, go through memfit's model of PyTorch's caching allocator. xMem itself also corrects the
lifetimes of gradients and batches and adds the framework's memory measured on the target GPU;
this is its idea, not its code, and its published figures are its own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["memory_events", "replayed_peak_bytes"]

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
    return replay(static, memory_events(model, input_shape, batch_size))


def memory_events(
    model: nn.Module, input_shape: tuple[int, int, int], batch_size: int
) -> list[tuple[int, int]]:
    """(address, bytes) of each CPU allocation, negative bytes for a free, in order."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9, foreach=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(STEPS):
            images = torch.randn(batch_size, *input_shape)
            labels = torch.zeros(batch_size, dtype=torch.long)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return list(_events_of(trace))


def _events_of(trace: Path) -> Iterator[tuple[int, int]]:
    events = json.loads(trace.read_text())["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    for event in sorted(memory, key=lambda event: event["ts"]):
        yield event["args"]["Addr"], event["args"]["Bytes"]


def replay(static: Iterable[int], events: Iterable[tuple[int, int]]) -> int:
    """Peak reserved bytes of the caching allocator over a sequence of allocations and frees.

    Args:
        static: bytes of what is there before the first event and stays.
        events: (address, bytes), negative for a free; frees of unknown addresses are of tensors
            older than the profile and are left out.
    """
    from memfit.memory.allocator import CachingAllocator

    allocator = CachingAllocator()
    for size in static:
        allocator.allocate(size)
    live = {}
    for address, size in events:
        if size > 0:
            live[address] = allocator.allocate(size)
        elif address in live:
            allocator.free(live.pop(address))
    return allocator.peak_reserved_bytes
