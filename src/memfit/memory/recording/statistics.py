"""What ``torch.cuda`` would count while a tape is written."""

from __future__ import annotations

from dataclasses import replace

from memfit.memory.allocator.allocator import AllocatorSettings, CachingAllocator
from memfit.memory.allocator.blocks import Block
from memfit.memory.recording.ledger import Ledger

__all__ = ["Statistics"]


class Statistics:
    """The allocator of a ledger's events, as far as they have come.

    Args:
        ledger: grows while it is followed.
        settings: options of the caching allocator.

    Attributes:
        settings: with what the program set itself.
    """

    def __init__(self, ledger: Ledger, settings: AllocatorSettings) -> None:
        self._ledger = ledger
        self.settings = settings
        self._allocator = CachingAllocator(settings)
        self._blocks: dict[int, Block] = {}
        self._position = 0
        self._peaks = (0, 0)
        self._allocations = 0

    def _followed(self) -> CachingAllocator:
        allocator, events = self._allocator, self._ledger.events
        while self._position < len(events):
            event = events[self._position]
            self._position += 1
            if event >= 0:
                size_bytes = self._ledger.records[event].size_bytes
                self._blocks[event] = allocator.allocate(size_bytes)
                self._allocations += size_bytes > 0
                self._note_peaks()
            else:
                allocator.free(self._blocks.pop(~event))
        return allocator

    def _note_peaks(self) -> None:
        allocated, reserved = self._peaks
        allocator = self._allocator
        self._peaks = (
            max(allocated, allocator.allocated_bytes), max(reserved, allocator.reserved_bytes)
        )  # fmt: skip

    @property
    def allocations(self) -> int:
        """How many there were, as ``num_alloc`` of ``torch.cuda.memory_stats``."""
        self._followed()
        return self._allocations

    @property
    def allocated_bytes(self) -> int:
        """As ``torch.cuda.memory_allocated``."""
        return self._followed().allocated_bytes

    @property
    def reserved_bytes(self) -> int:
        """As ``torch.cuda.memory_reserved``."""
        return self._followed().reserved_bytes

    @property
    def peak_allocated_bytes(self) -> int:
        """As ``torch.cuda.max_memory_allocated``."""
        self._followed()
        return self._peaks[0]

    @property
    def peak_reserved_bytes(self) -> int:
        """As ``torch.cuda.max_memory_reserved``."""
        self._followed()
        return self._peaks[1]

    def reset_peaks(self) -> None:
        """As ``torch.cuda.reset_peak_memory_stats``."""
        self._followed()
        self._peaks = (0, 0)
        self._note_peaks()

    def empty_cache(self) -> None:
        """As ``torch.cuda.empty_cache``."""
        self._followed().empty_cache()

    @property
    def share(self) -> float:
        """As ``torch.cuda.get_per_process_memory_fraction``."""
        return self.settings.per_process_memory_fraction

    def allow(self, share: float) -> None:
        """As ``torch.cuda.set_per_process_memory_fraction``: heeded where a tape is replayed."""
        self.settings = replace(self.settings, per_process_memory_fraction=share)

    def as_dict(self) -> dict[str, int]:
        """As ``torch.cuda.memory_stats``, as far as it is about bytes."""
        known = {
            "allocated_bytes": (self.allocated_bytes, self.peak_allocated_bytes),
            "active_bytes": (self.allocated_bytes, self.peak_allocated_bytes),
            "reserved_bytes": (self.reserved_bytes, self.peak_reserved_bytes),
        }
        found = {"num_alloc_retries": 0, "num_ooms": 0, "num_device_alloc": 0}
        for name, (current, peak) in known.items():
            found |= {f"{name}.all.current": current, f"{name}.all.peak": peak}
        return found
