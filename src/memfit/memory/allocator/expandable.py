"""Expandable segments: one stretch of addresses a pool and stream, mapped page by page.

The rules are those of ``ExpandableSegment``, ``find_expandable_block``, ``map_block``,
``try_allocate_expandable_block`` and ``unmap_block`` in PyTorch's
``c10/cuda/CUDACachingAllocator.cpp`` (2.11 to 2.15).
"""

from __future__ import annotations

from memfit.memory.allocator.blocks import (
    FREE,
    UNMAPPED,
    Block,
    BlockState,
    DeviceMemory,
    FreeList,
    PoolName,
)
from memfit.memory.allocator.sizes import SMALL_SEGMENT_BYTES, round_up

__all__ = ["ExpandableSegments"]

_LIVE = BlockState.LIVE


class ExpandableSegments:
    """All expandable segments of one device.

    Args:
        device: where pages come from.
        device_total_bytes: memory of the device; a segment reserves 9/8 of it as addresses.
        large_page_bytes: what one page of the large pool holds (``large_segment_size``).
        heads: the first block of each segment by address; kept up to date here.
    """

    def __init__(
        self,
        device: DeviceMemory,
        device_total_bytes: int,
        large_page_bytes: int,
        heads: dict[int, Block],
    ) -> None:
        self._device = device
        self._span_bytes = device_total_bytes + device_total_bytes // 8
        self._page_bytes: dict[PoolName, int] = {
            "small": SMALL_SEGMENT_BYTES,
            "large": large_page_bytes,
        }
        self._heads = heads

    def best_fit(self, free: FreeList, index: int) -> int:
        """The free block to use when ``index`` is the smallest that is large enough.

        A block in front of unmapped addresses counts with the size that it can grow to, so
        that the end of a segment is used last (``get_free_block``).
        """
        size_bytes = _growable_bytes(free.by_key[free.keys[index]])
        for candidate in range(index + 1, len(free.keys)):
            next_bytes = _growable_bytes(free.by_key[free.keys[candidate]])
            if next_bytes >= size_bytes:
                break
            index, size_bytes = candidate, next_bytes
        return index

    def grow(self, free: FreeList, size_bytes: int) -> Block | None:
        """Map pages until a free block holds ``size_bytes``, and take it out of the list.

        Returns:
            The block, or None when the device has no more pages; those mapped so far stay.
        """
        block: Block | None = self._lowest_room(free, size_bytes)
        assert block is not None
        if block.state is UNMAPPED:
            block = self._map(block, min(block.size_bytes, size_bytes))
        while block is not None and block.size_bytes < size_bytes:
            unmapped = block.following
            if unmapped is None:  # larger than the whole segment
                return None
            missing_bytes = size_bytes - block.size_bytes
            block = self._map(unmapped, min(missing_bytes, unmapped.size_bytes))
        if block is not None:
            free.remove(block)
        return block

    def release(self, free: FreeList) -> None:
        """Give every page back that holds no part of a live block (``release_blocks``)."""
        for block in free.free_blocks():
            unmapped = self._unmap(block)
            if unmapped and unmapped.preceding is None and unmapped.following is None:
                free.unmapped.remove(unmapped)
                del self._heads[unmapped.address]

    def _lowest_room(self, free: FreeList, size_bytes: int) -> Block:
        """The lowest run of free and unmapped blocks with room for the request."""
        for unmapped in free.unmapped:
            first = unmapped
            if unmapped.preceding is not None and unmapped.preceding.state is FREE:
                first = unmapped.preceding
            if _has_room(first, size_bytes):
                return first
        page_bytes = self._page_bytes[free.name]
        span_bytes = round_up(self._span_bytes, page_bytes)
        segment = Block(self._device.place(span_bytes, page_bytes), span_bytes, UNMAPPED, free)
        self._heads[segment.address] = segment
        free.add_unmapped(segment)
        return segment

    def _map(self, block: Block, size_bytes: int) -> Block | None:
        """Put pages behind the start of an unmapped block; the free block they end up in."""
        free = block.home
        mapped_bytes = round_up(size_bytes, self._page_bytes[free.name])
        if not self._device.take(mapped_bytes):
            return None
        free.unmapped.remove(block)
        if mapped_bytes < block.size_bytes:
            free.add_unmapped(block.cut(mapped_bytes, UNMAPPED))
        block.state = FREE
        following, preceding = block.following, block.preceding
        if following is not None and following.state is FREE:
            free.remove(following)
            block.absorb_following()
        if preceding is not None and preceding.state is FREE:
            free.remove(preceding)
            preceding.absorb_following()
            block = preceding
        free.add(block)
        return block

    def _unmap(self, block: Block) -> Block | None:
        """Take the whole pages of a free block away; the unmapped block they end up in."""
        free = block.home
        page_bytes = self._page_bytes[free.name]
        begin = round_up(block.address, page_bytes)
        end = (block.address + block.size_bytes) // page_bytes * page_bytes
        if begin >= end:
            return None
        free.remove(block)
        if begin > block.address:
            rest = block.cut(begin - block.address, FREE)
            free.add(block)
            block = rest
        if block.size_bytes > end - begin:
            free.add(block.cut(end - begin, FREE))
        block.state = UNMAPPED
        self._device.give_back(end - begin)
        return _joined_unmapped(block)


def _joined_unmapped(block: Block) -> Block:
    """Enter an unmapped block, one with its unmapped neighbours."""
    free = block.home
    following, preceding = block.following, block.preceding
    if following is not None and following.state is UNMAPPED:
        free.unmapped.remove(following)
        block.absorb_following()
    if preceding is not None and preceding.state is UNMAPPED:
        preceding.absorb_following()  # keeps its place in the list: its address is the same
        return preceding
    free.add_unmapped(block)
    return block


def _has_room(block: Block | None, size_bytes: int) -> bool:
    while size_bytes > 0 and block is not None and block.state is not _LIVE:
        size_bytes -= block.size_bytes
        block = block.following
    return size_bytes <= 0


def _growable_bytes(block: Block) -> int:
    following = block.following
    if following is not None and following.state is UNMAPPED:
        return block.size_bytes + following.size_bytes
    return block.size_bytes
