"""The pieces of the caching allocator: blocks, free lists, and the device that gives memory.

Sources are named by function; all are in ``c10/cuda/CUDACachingAllocator.cpp`` and
``c10/core/AllocatorConfig.h`` of PyTorch, read for 2.11 to 2.15.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Literal

from memfit.memory.allocator.sizes import ROUND_LARGE_BYTES, round_up

__all__ = [
    "FREE",
    "GONE",
    "KEY_SHIFT",
    "UNMAPPED",
    "Block",
    "BlockState",
    "DeviceMemory",
    "FreeList",
    "PoolName",
    "Segment",
    "SegmentBlock",
    "snapshot",
]

KEY_SHIFT = 64  # a free list's key is size << KEY_SHIFT | address

PoolName = Literal["small", "large"]


class BlockState(Enum):
    """What a block is; the first two values are the words of ``torch.cuda.memory_snapshot``."""

    LIVE = "active_allocated"
    FREE = "inactive"
    UNMAPPED = "unmapped"  # address space of an expandable segment without memory behind it
    GONE = "gone"  # merged into a neighbour: no handle may use it


FREE, UNMAPPED, GONE = BlockState.FREE, BlockState.UNMAPPED, BlockState.GONE


class Block:
    """A stretch of a segment; what `CachingAllocator.allocate` hands out.

    Attributes:
        address: first byte; 0 for a request of zero bytes.
        size_bytes: the whole stretch, at least the rounded request.
        requested_bytes: what was asked for; stale unless the block is live.
        state: live, free, unmapped or gone.
    """

    __slots__ = (
        "address", "following", "freed_at", "home", "key", "preceding", "requested_bytes",
        "size_bytes", "state",
    )  # fmt: skip

    def __init__(
        self,
        address: int,
        size_bytes: int,
        state: BlockState,
        home: FreeList,
        preceding: Block | None = None,
    ) -> None:
        self.address = address
        self.size_bytes = size_bytes
        self.requested_bytes = 0
        self.state = state
        self.home = home
        self.preceding = preceding
        self.following: Block | None = None
        self.key = 0
        self.freed_at = 0

    def __repr__(self) -> str:
        return f"Block({self.address:#x}, {self.size_bytes} B, {self.state.value})"

    def cut(self, size_bytes: int, state: BlockState) -> Block:
        """Keep the first ``size_bytes``; the rest becomes a block of its own, in no list."""
        rest_bytes = self.size_bytes - size_bytes
        rest = Block(self.address + size_bytes, rest_bytes, state, self.home, self)
        rest.following = following = self.following
        if following is not None:
            following.preceding = rest
        self.following = rest
        self.size_bytes = size_bytes
        return rest

    def absorb_following(self) -> None:
        """Take over the next block, which must be out of every list."""
        gone = self.following
        assert gone is not None
        self.size_bytes += gone.size_bytes
        self.following = gone.following
        if gone.following is not None:
            gone.following.preceding = self
        gone.state = GONE


_by_address = attrgetter("address")


class FreeList:
    """The free and the unmapped blocks of one pool on one stream (``BlockPool``).

    Torch keeps one set a pool, ordered by (stream, size, address); a block serves its own
    stream only, so a list for each stream gives the same order.

    Attributes:
        name: the small or the large pool.
        stream: the stream its blocks serve.
        min_remainder_bytes: a block is split when at least this much remains ...
        split_below_bytes: ... and the request is smaller than this (``should_split``).
        keys: sorted ``size << KEY_SHIFT | address`` of the free blocks.
        by_key: the free block of each key.
        unmapped: in order of addresses; expandable segments only.
    """

    __slots__ = (
        "by_key", "keys", "min_remainder_bytes", "name", "split_below_bytes", "stream", "unmapped"
    )  # fmt: skip

    def __init__(
        self, name: PoolName, stream: int, min_remainder_bytes: int, split_below_bytes: int
    ) -> None:
        self.name: PoolName = name
        self.stream = stream
        self.min_remainder_bytes = min_remainder_bytes
        self.split_below_bytes = split_below_bytes
        self.keys: list[int] = []
        self.by_key: dict[int, Block] = {}
        self.unmapped: list[Block] = []

    def add(self, block: Block) -> None:
        """Enter a free block."""
        block.key = key = block.size_bytes << KEY_SHIFT | block.address
        insort(self.keys, key)
        self.by_key[key] = block

    def remove(self, block: Block) -> None:
        """Take a free block out."""
        key = block.key
        del self.keys[bisect_left(self.keys, key)]
        del self.by_key[key]

    def add_unmapped(self, block: Block) -> None:
        """Enter an unmapped block."""
        insort(self.unmapped, block, key=_by_address)

    def whole_segments(self) -> list[Block]:
        """The free blocks that are a whole segment: only these can go back to the device."""
        return [b for b in self.free_blocks() if b.preceding is None and b.following is None]

    def free_blocks(self) -> list[Block]:
        """The free blocks, smallest first."""
        return [self.by_key[key] for key in self.keys]


class DeviceMemory:
    """What ``cudaMalloc`` and ``cuMemCreate`` can give this process.

    Assumption: the device gives exactly ``capacity_bytes``, whatever the pieces; physical
    memory does not fragment, because the driver maps pages.

    Addresses only ascend and are not used twice. So blocks of equal size are ordered by the
    age of their segment and then by their place in it, which is torch's order since pull
    request 183591 (``BlockComparatorSizeCounterAddress``, in 2.15, not yet in 2.11). Before,
    real addresses decided, which nobody can know beforehand.

    Attributes:
        capacity_bytes: the most that can be taken.
        taken_bytes: what the allocator has reserved (``reserved_bytes`` of the statistics).
        peak_taken_bytes: the highest ``taken_bytes`` so far.
        release_count: how often a range was given back (``num_device_free``).
    """

    __slots__ = (
        "_next_address", "capacity_bytes", "peak_taken_bytes", "release_count", "taken_bytes"
    )  # fmt: skip

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.taken_bytes = 0
        self.peak_taken_bytes = 0
        self.release_count = 0
        self._next_address = ROUND_LARGE_BYTES  # not 0, which is no address

    def take(self, size_bytes: int) -> bool:
        """Whether the device had ``size_bytes`` left; they are taken then."""
        taken_bytes = self.taken_bytes + size_bytes
        if taken_bytes > self.capacity_bytes:
            return False
        self.taken_bytes = taken_bytes
        self.peak_taken_bytes = max(self.peak_taken_bytes, taken_bytes)
        return True

    def give_back(self, size_bytes: int) -> None:
        """Return a range to the device."""
        self.taken_bytes -= size_bytes
        self.release_count += 1

    def place(self, size_bytes: int, alignment_bytes: int = 1) -> int:
        """An address with ``size_bytes`` from there on that no segment ever had."""
        address = round_up(self._next_address, alignment_bytes)
        self._next_address = address + size_bytes
        return address


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """A block as a snapshot shows it; ``requested_bytes`` is 0 when it is free."""

    address: int
    size_bytes: int
    requested_bytes: int
    state: BlockState


@dataclass(frozen=True, slots=True)
class Segment:
    """Memory taken from the device in one piece (of an expandable segment: a mapped range)."""

    address: int
    total_bytes: int
    pool: PoolName
    stream: int
    expandable: bool
    blocks: tuple[SegmentBlock, ...]


def snapshot(heads: Iterable[Block], expandable: bool) -> list[Segment]:
    """The segments that start with the given blocks, in order of addresses.

    Of an expandable segment each mapped range is one, as in ``torch.cuda.memory_snapshot``.
    """
    found = []
    for head in heads:
        mapped: list[Block] = []
        block: Block | None = head
        while block is not None:
            if block.state is not UNMAPPED:
                mapped.append(block)
            block = block.following
            if mapped and (block is None or block.state is UNMAPPED):
                found.append(_segment(mapped, expandable))
                mapped = []
    return sorted(found, key=lambda segment: segment.address)


def _segment(blocks: list[Block], expandable: bool) -> Segment:
    shown = tuple(
        SegmentBlock(
            block.address,
            block.size_bytes,
            block.requested_bytes if block.state is BlockState.LIVE else 0,
            block.state,
        )
        for block in blocks
    )
    return Segment(
        address=blocks[0].address,
        total_bytes=sum(block.size_bytes for block in blocks),
        pool=blocks[0].home.name,
        stream=blocks[0].home.stream,
        expandable=expandable,
        blocks=shown,
    )
