"""Where every block of a device is, followed through a recorded trace.

A trace says what was requested and where, not how large the block became. The allocator cuts a
block from the front of a free one (``alloc_found_block`` in ``c10/cuda/CUDACachingAllocator.cpp``,
torch 2.11 to 2.15) and ``should_split`` says whether the rest stays free, so the size follows from
the addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memfit.memory.allocator.sizes import SizeRules

__all__ = ["BlockMap", "FreeMemory", "cut_out"]

#: More free blocks than this and a stretch inside of one is not looked for.
_MANY = 50_000


def cut_out(pieces: dict[int, int], address: int, end: int) -> None:
    """Take a stretch of addresses out of pieces, which are sizes by address."""
    for start, size_bytes in [(a, s) for a, s in pieces.items() if a < end and address < a + s]:
        del pieces[start]
        if start < address:
            pieces[start] = address - start
        if end < start + size_bytes:
            pieces[end] = start + size_bytes - end


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What is reserved and free at one instant.

    Args:
        free_bytes: in all free blocks.
        largest_bytes: of one free block.
        block_count: how many free blocks there are.
        segment_count: how many segments there are.
        sparse_segments: segments less than half full but not empty.
        sparse_free_bytes: free bytes in these: they cannot go back to the device.
        empty_bytes: in segments without any live block: they can.
    """

    free_bytes: int = 0
    largest_bytes: int = 0
    block_count: int = 0
    segment_count: int = 0
    sparse_segments: int = 0
    sparse_free_bytes: int = 0
    empty_bytes: int = 0


class BlockMap:
    """The segments and blocks of one device.

    Attributes:
        allocated_bytes: in live blocks.
        reserved_bytes: in segments.
        surprises: events that do not fit what came before (the trace has gaps).
    """

    def __init__(self, rules: SizeRules) -> None:
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.surprises = 0
        self._rules = rules
        self._live: dict[int, int] = {}  # size by address
        self._unplaced: set[int] = set()  # live blocks where nothing was known to be free
        self._free: dict[int, int] = {}
        self._free_start: dict[int, int] = {}  # first byte by the byte behind
        self._segments: dict[int, int] = {}  # size by address; mapped pieces as they came
        self._walls: set[int] = set()  # first bytes of segments: nothing merges across

    def add_segment(self, address: int, size_bytes: int, *, joins: bool = False) -> None:
        """Take memory from the device; ``joins`` what is mapped beside it."""
        self._segments[address] = self._segments.get(address, 0) + size_bytes
        self.reserved_bytes += size_bytes
        if not joins:
            self._walls |= {address, address + size_bytes}
        self._add_free(address, size_bytes)

    def remove_segment(self, address: int, size_bytes: int, *, joins: bool = False) -> None:
        """Give memory back to the device."""
        self.reserved_bytes -= size_bytes
        if not joins:
            self._segments.pop(address, None)
            self._walls.discard(address)
            if address + size_bytes not in self._segments:
                self._walls.discard(address + size_bytes)
        else:
            cut_out(self._segments, address, address + size_bytes)
        self._carve(address, size_bytes)

    def add_filled(self, address: int, size_bytes: int, blocks: Iterable[tuple[int, int]]) -> None:
        """A segment as it was when the trace began: its live blocks, in order of addresses."""
        self._segments[address] = size_bytes
        self.reserved_bytes += size_bytes
        self._walls |= {address, address + size_bytes}
        at = address
        for start, block_bytes in blocks:
            self._live[start] = block_bytes
            self.allocated_bytes += block_bytes
            if start > at:
                self._add_free(at, start - at)
            at = max(at, start + block_bytes)
        if at < address + size_bytes:
            self._add_free(at, address + size_bytes - at)

    def add_live(self, address: int, size_bytes: int) -> None:
        """A live block of known extent, where nothing is known to be free."""
        self._live[address] = size_bytes
        self._unplaced.add(address)
        self.allocated_bytes += size_bytes

    def allocate(self, address: int, requested_bytes: int) -> int:
        """A block for a request; its whole size in bytes."""
        size_bytes = self._rules.rounded_bytes(requested_bytes)
        if address in self._live:
            self.surprises += 1
            self.free(address)
        room_bytes = self._free.get(address, 0)
        if room_bytes < size_bytes:
            self.surprises += 1
            self._unplaced.add(address)
        else:
            least_rest_bytes, below_bytes = self._rules.split_bounds(size_bytes)
            if room_bytes - size_bytes < least_rest_bytes or size_bytes >= below_bytes:
                size_bytes = room_bytes
            self._take_front(address, size_bytes)
        self._live[address] = size_bytes
        self.allocated_bytes += size_bytes
        return size_bytes

    def free(self, address: int) -> None:
        """Put a block back."""
        size_bytes = self._live.pop(address, None)
        if size_bytes is None:
            self.surprises += 1
            return
        self.allocated_bytes -= size_bytes
        if address in self._unplaced:
            self._unplaced.remove(address)
        else:
            self._add_free(address, size_bytes)

    def free_memory(self) -> FreeMemory:
        """What is free now, and in what pieces."""
        free, filled = self._free.values(), list(self._filled())
        sparse = [total - used for total, used in filled if 0 < used * 2 < total]
        return FreeMemory(
            free_bytes=sum(free),
            largest_bytes=max(free, default=0),
            block_count=len(free),
            segment_count=len(filled),
            sparse_segments=len(sparse),
            sparse_free_bytes=sum(sparse),
            empty_bytes=sum(total for total, used in filled if used == 0),
        )

    # -- pieces --------------------------------------------------------------------------------

    def _filled(self) -> Iterable[tuple[int, int]]:
        """Bytes and live bytes of every segment; pieces that touch without a wall are one."""
        live = sorted(self._live.items())
        index = 0
        for start, end in self._whole_segments():
            used_bytes = 0
            while index < len(live) and live[index][0] < end:
                used_bytes += live[index][1] if live[index][0] >= start else 0
                index += 1
            yield end - start, used_bytes

    def _whole_segments(self) -> list[tuple[int, int]]:
        whole: list[tuple[int, int]] = []
        for address, size_bytes in sorted(self._segments.items()):
            if whole and whole[-1][1] == address and address not in self._walls:
                whole[-1] = (whole[-1][0], address + size_bytes)
            else:
                whole.append((address, address + size_bytes))
        return whole

    def _add_free(self, address: int, size_bytes: int) -> None:
        """A free block, one with its free neighbours."""
        end = address + size_bytes
        following = self._free.get(end)
        if following is not None and end not in self._walls:
            self._drop(end, following)
            end += following
        start = self._free_start.get(address)
        if start is not None and address not in self._walls:
            self._drop(start, address - start)
            address = start
        self._free[address] = end - address
        self._free_start[end] = address

    def _drop(self, address: int, size_bytes: int) -> None:
        self._free.pop(address, None)
        self._free_start.pop(address + size_bytes, None)

    def _take_front(self, address: int, size_bytes: int) -> None:
        room_bytes = self._free[address]
        self._drop(address, room_bytes)
        if room_bytes > size_bytes:
            self._free[address + size_bytes] = room_bytes - size_bytes
            self._free_start[address + room_bytes] = address + size_bytes

    def _carve(self, address: int, size_bytes: int) -> None:
        """Take a stretch out of whatever free blocks it touches."""
        end = address + size_bytes
        if self._free.get(address, 0) >= size_bytes:
            self._take_front(address, size_bytes)
            return
        if len(self._free) > _MANY:
            self.surprises += 1
            return
        for start, room_bytes in [
            (a, s) for a, s in self._free.items() if a < end and address < a + s
        ]:
            self._drop(start, room_bytes)
            if start < address:
                self._free[start] = address - start
                self._free_start[address] = start
            if end < start + room_bytes:
                self._free[end] = start + room_bytes - end
                self._free_start[start + room_bytes] = end
