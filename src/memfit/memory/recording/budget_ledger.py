"""The ledger of a CPU under a virtual budget: every allocation takes a block, or there is none."""

from __future__ import annotations

from collections import deque

import torch

from memfit.memory.allocator.allocator import (
    AllocatorSettings,
    Block,
    CachingAllocator,
    OutOfDeviceMemory,
)
from memfit.memory.recording.ledger import Ledger, Record
from memfit.memory.tape.parts import ALLOCATED_PARTS
from memfit.memory.tape.tape import Part, Phase
from memfit.units import format_bytes

__all__ = ["BudgetLedger", "Injection"]


class Injection:
    """A failure that is still to come."""

    def __init__(self, phase: Phase, after: int) -> None:
        self.phase = phase
        self.left = after

    def is_due(self, phase: Phase) -> bool:
        """Whether the allocation that is asked for now is the one to fail."""
        if phase is self.phase:
            self.left -= 1
        return self.left == 0


class BudgetLedger(Ledger):
    """A ledger whose allocations take blocks of an allocator, and which keeps no long tape.

    Args:
        capacity_bytes: what the device can give to the allocator's segments.
        settings: options of the caching allocator.

    Attributes:
        injection: a failure that was asked for and has not happened yet.
        peak_allocated_bytes: the most since the last :meth:`reset_peak`.
        peak_reserved_bytes: likewise.
    """

    def __init__(self, capacity_bytes: int, settings: AllocatorSettings) -> None:
        super().__init__()
        self.allocator = CachingAllocator(settings, capacity_bytes)
        self.capacity_bytes = capacity_bytes
        self.injection: Injection | None = None
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = 0
        self._blocks: dict[int, Block] = {}
        # A storage can die while the allocator is at work (the collector runs at any moment): its
        # block is given back before the next request.
        self._freed: deque[int] = deque()
        self._base: list[int] = []  # what was live when the events begin
        self._peak_at: int | None = None  # the event that reached the peak; None: in _peak_parts
        self._peak_parts: dict[Part, int] = {}

    def free(self, number: int) -> None:
        """Its block is given back with the next request."""
        self._freed.append(number)

    def settle_frees(self) -> None:
        """Give back the blocks of storages that died."""
        while self._freed:
            number = self._freed.popleft()
            super().free(number)
            self.allocator.free(self._blocks.pop(number))

    def allocate(self, record: Record) -> int:
        """Take a block and write it down.

        Raises:
            torch.OutOfMemoryError: the allocator has none, or a failure was asked for.
        """
        self.settle_frees()
        allocator = self.allocator
        if record.size_bytes and self.injection is not None and self.injection.is_due(record.phase):
            self.injection = None
            raise self._out_of_memory(record, " (a failure that was asked for)")
        try:
            block = allocator.allocate(record.size_bytes)
        except OutOfDeviceMemory:
            raise self._out_of_memory(record) from None
        number = super().allocate(record)
        self._blocks[number] = block
        if allocator.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = allocator.allocated_bytes
            self._peak_at = len(self.events) - 1
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, allocator.reserved_bytes)
        return number

    def _out_of_memory(self, record: Record, note: str = "") -> torch.OutOfMemoryError:
        return torch.OutOfMemoryError(
            f"Out of memory on the CPU's virtual budget{note}: "
            f"{record.operator.removesuffix('.default')}"
            f"{f' in {record.module}' if record.module else ''} asked for "
            f"{format_bytes(record.size_bytes)}; capacity {format_bytes(self.capacity_bytes)}, "
            f"allocated {format_bytes(self.allocator.allocated_bytes)}, "
            f"reserved {format_bytes(self.allocator.reserved_bytes)}."
        )

    # -- the composition of the peak -----------------------------------------------------------

    def parts_at_peak(self) -> dict[Part, int]:
        """Requested bytes by part at the peak."""
        if self._peak_at is None:
            return dict(self._peak_parts)
        live = dict.fromkeys(self._base)
        for event in self.events[: self._peak_at + 1]:
            if event >= 0:
                live[event] = None
            else:
                del live[~event]
        parts = dict.fromkeys(ALLOCATED_PARTS, 0)
        for number in live:
            record = self.records[number]
            parts[record.part or Part.TEMPORARIES] += record.size_bytes
        return parts

    def settle(self) -> None:
        """Forget the dead, once the composition of the peak is known."""
        self.settle_frees()
        if self._peak_at is not None:
            self._peak_parts = self.parts_at_peak()
            self._peak_at = None
        self.events.clear()
        self.marks.clear()
        self.records = {number: self.records[number] for number in self._blocks}
        self._base = list(self._blocks)

    def reset_peak(self) -> None:
        """The peak is what is live now."""
        self.settle()
        self.peak_allocated_bytes = self.allocator.allocated_bytes
        self.peak_reserved_bytes = self.allocator.reserved_bytes
        self._peak_at = -1  # before the first event
