"""The allocator's size rules: how a request is rounded, what is cut off, what the device gives.

Sources are named by function; all are in ``c10/cuda/CUDACachingAllocator.cpp`` and
``c10/core/AllocatorConfig.h`` of PyTorch, read for 2.11 to 2.15.
"""

from __future__ import annotations

from dataclasses import dataclass

from memfit.units import MIB

__all__ = [
    "LARGE_SEGMENT_BYTES", "MIN_BLOCK_BYTES", "MIN_LARGE_BYTES", "ROUND_LARGE_BYTES",
    "SMALL_BYTES", "SMALL_SEGMENT_BYTES", "UNLIMITED", "SizeRules", "round_up",
]  # fmt: skip

# AllocatorConfig.h
MIN_BLOCK_BYTES = 512  # kMinBlockSize
SMALL_BYTES = MIB  # kSmallSize: the largest request of the small pool
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer
LARGE_SEGMENT_BYTES = 20 * MIB  # kLargeBuffer: a segment of the large pool for several requests
MIN_LARGE_BYTES = 10 * MIB  # kMinLargeAlloc: from here a segment is for one request
ROUND_LARGE_BYTES = 2 * MIB  # kRoundLarge

UNLIMITED = 1 << 62  # bytes; stands for "no limit" wherever torch has SIZE_MAX or no check


def round_up(size_bytes: int, unit_bytes: int) -> int:
    """The least multiple of the unit that is not less."""
    return -(-size_bytes // unit_bytes) * unit_bytes


@dataclass(frozen=True, slots=True)
class SizeRules:
    """What the allocator's options make of sizes.

    Args:
        max_split_bytes: blocks from here on are not split.
        divisions: steps between powers of two from 1 MiB on, or None.
        large_segment_bytes: of a segment of the large pool, and of its pages when expandable.
        expandable: whether segments are expandable; their blocks are always split.
    """

    max_split_bytes: int = UNLIMITED
    divisions: tuple[int, ...] | None = None
    large_segment_bytes: int = LARGE_SEGMENT_BYTES
    expandable: bool = False

    def rounded_bytes(self, size_bytes: int) -> int:
        """A request as the allocator rounds it (``round_size``)."""
        if size_bytes <= MIN_BLOCK_BYTES:
            return MIN_BLOCK_BYTES
        if self.divisions is None:
            return (size_bytes + 511) & -512
        interval = min(max(size_bytes.bit_length() - 21, 0), len(self.divisions) - 1)
        count = self.divisions[interval]
        if count > 1 and size_bytes > MIN_BLOCK_BYTES * count:
            return round_up(size_bytes, (1 << (size_bytes.bit_length() - 1)) // count)
        return round_up(size_bytes, MIN_BLOCK_BYTES)

    def split_bounds(self, rounded_bytes: int) -> tuple[int, int]:
        """When a block is split (``should_split``).

        Returns:
            It is when at least the first remains, and the rounded request is smaller than the
            second; the same for every request of a pool.
        """
        if rounded_bytes <= SMALL_BYTES or self.expandable:
            return MIN_BLOCK_BYTES, UNLIMITED
        return SMALL_BYTES + 1, self.max_split_bytes

    def segment_bytes(self, rounded_bytes: int) -> int:
        """A segment for a request (``get_allocation_size``)."""
        if rounded_bytes <= SMALL_BYTES:
            return SMALL_SEGMENT_BYTES
        if rounded_bytes < MIN_LARGE_BYTES:
            return self.large_segment_bytes
        return round_up(rounded_bytes, ROUND_LARGE_BYTES)

    def taken_bytes(self, rounded_bytes: int) -> int:
        """What is taken from the device for a request alone: a segment, or whole pages of one."""
        if self.expandable and rounded_bytes > SMALL_BYTES:
            return round_up(rounded_bytes, self.large_segment_bytes)
        return self.segment_bytes(rounded_bytes)
