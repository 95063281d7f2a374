"""Every CPU allocation and free of a run, as ``torch.profiler`` sees them.

PyTorch's CPU allocator reports each call to the profiler, whoever asked: this sees what happens
below the dispatcher and owes nothing to memfit's recorder. Checked against torch 2.15:
``reportMemoryUsage`` in ``c10/core/CPUAllocator.cpp``, ``Result`` in
``torch/csrc/profiler/collection.h``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["CpuAllocation", "CpuRun", "profile_memory"]

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports that there is no GPU


@dataclass(frozen=True, slots=True)
class CpuAllocation:
    """One block that the CPU allocator gave out during a run.

    Args:
        size_bytes: as asked for.
        dispatched: the outermost operator of those a dispatch mode sees; empty outside of them.
        is_scratch: allocated and freed while ``dispatched`` ran: no tensor outside ever had it.
    """

    size_bytes: int
    dispatched: str
    is_scratch: bool


@dataclass(frozen=True, slots=True)
class CpuRun:
    """What was allocated and freed: ``i`` makes allocation ``i``, ``~i`` frees it."""

    allocations: tuple[CpuAllocation, ...]
    events: tuple[int, ...]

    def signed_bytes(self, *, tensors_only: bool = False) -> list[int]:
        """Bytes of every event, negative for a free.

        Args:
            tensors_only: leave out scratch, and what was allocated outside of every operator:
                the 8 bytes into which PyTorch wraps a Python number.
        """
        kept = [
            not tensors_only or (bool(a.dispatched) and not a.is_scratch) for a in self.allocations
        ]
        sizes = [allocation.size_bytes for allocation in self.allocations]
        return [
            sizes[event] if event >= 0 else -sizes[~event]
            for event in self.events
            if kept[event if event >= 0 else ~event]
        ]


@dataclass(frozen=True, slots=True)
class _Report:
    """One call of the allocator, and the operators running at the time, outermost first."""

    time_ns: int
    address: int
    signed_bytes: int
    running: tuple[Any, ...]


def profile_memory(run: Callable[[], object], dispatched: Iterable[str]) -> CpuRun:
    """Run under the profiler and pair allocations with frees.

    Args:
        run: allocates on the CPU, from this thread.
        dispatched: names of the operators that a dispatch mode sees in this run, such as
            ``"aten::convolution"``; what they allocate and free inside is scratch.

    Raises:
        RuntimeError: a block was given out twice without a free between.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    reports = sorted(_reports(tree, ()), key=lambda report: report.time_ns)
    return _paired(reports, frozenset(dispatched))


def _reports(nodes: Iterable[Any], running: tuple[Any, ...]) -> Iterator[_Report]:
    event_type = torch._C._profiler._EventType
    for node in nodes:
        if node.tag == event_type.Allocation:
            fields = node.extra_fields
            yield _Report(node.start_time_ns, fields.ptr, fields.alloc_size, running)
        elif node.tag == event_type.TorchOp:
            yield from _reports(node.children, (*running, node))
        else:
            yield from _reports(node.children, running)


def _paired(reports: list[_Report], dispatched: frozenset[str]) -> CpuRun:
    made: list[tuple[_Report, int | None]] = []  # with the time of its free
    live: dict[int, int] = {}
    events = []
    for report in reports:
        if report.signed_bytes > 0:
            if report.address in live:
                raise RuntimeError(f"block {report.address:#x} was given out twice")
            live[report.address] = len(made)
            events.append(len(made))
            made.append((report, None))
        elif report.address in live:  # else it is older than the profile
            number = live.pop(report.address)
            made[number] = (made[number][0], report.time_ns)
            events.append(~number)
    return CpuRun(tuple(_allocation(r, freed, dispatched) for r, freed in made), tuple(events))


def _allocation(report: _Report, freed_ns: int | None, dispatched: frozenset[str]) -> CpuAllocation:
    outer = next((node for node in report.running if node.name in dispatched), None)
    return CpuAllocation(
        size_bytes=report.signed_bytes,
        dispatched=outer.name if outer is not None else "",
        is_scratch=outer is not None and freed_ns is not None and freed_ns <= outer.end_time_ns,
    )
