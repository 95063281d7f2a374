"""PyTorch's CUDA caching allocator, on integers: what is allocated, what is reserved, and why.

The rules are those of ``DeviceCachingAllocator`` in ``c10/cuda/CUDACachingAllocator.cpp`` of
PyTorch 2.11 to 2.15; each method names the function it follows. Left out: CUDA graphs, private
memory pools and ``record_stream`` (a freed block can be used again at once).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from memfit.memory.allocator.blocks import (
    FREE,
    GONE,
    KEY_SHIFT,
    Block,
    BlockState,
    DeviceMemory,
    FreeList,
    PoolName,
    Segment,
    SegmentBlock,
    snapshot,
)
from memfit.memory.allocator.expandable import ExpandableSegments
from memfit.memory.allocator.settings import AllocatorSettings
from memfit.memory.allocator.sizes import SMALL_BYTES, UNLIMITED

__all__ = [
    "AllocatorSettings",
    "Block",
    "BlockState",
    "CachingAllocator",
    "OutOfDeviceMemory",
    "Segment",
    "SegmentBlock",
]

LIVE = BlockState.LIVE

# Address space of expandable segments when nobody said how large the device is.
_UNKNOWN_DEVICE_BYTES = 1 << 44

# What a request of zero bytes belongs to: torch gives it no memory and no block.
_NOWHERE = FreeList("small", 0, UNLIMITED, UNLIMITED)


@dataclass(eq=False)
class OutOfDeviceMemory(Exception):
    """The device has no room for a request, even after all cached memory was given back.

    Args:
        requested_bytes: what was asked for.
        allocated_bytes: in blocks that are in use.
        reserved_bytes: in segments, after the cache was released.
        capacity_bytes: the most that can be reserved.
        largest_free_block_bytes: the largest block still cached.
    """

    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    capacity_bytes: int
    largest_free_block_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.requested_bytes} bytes requested, {self.allocated_bytes} allocated, "
            f"{self.reserved_bytes} reserved of {self.capacity_bytes}, "
            f"largest free block {self.largest_free_block_bytes}"
        )


class CachingAllocator:
    """A device's caching allocator.

    Args:
        settings: options of ``PYTORCH_ALLOC_CONF``.
        capacity_bytes: what ``cudaMalloc`` can give this process; None for no limit.
        device_total_bytes: the device's whole memory, of which ``per_process_memory_fraction``
            is taken and 9/8 reserved as addresses by an expandable segment; as
            ``capacity_bytes`` when None. The fraction limits nothing when both are None.

    Attributes:
        allocated_bytes: in live blocks, whole blocks counted (``torch.cuda.memory_allocated``).
        requested_bytes: the same before rounding.
        peak_allocated_bytes: the highest ``allocated_bytes`` so far.
        retry_count: how often the whole cache was released to go on (``num_alloc_retries``).

    >>> allocator = CachingAllocator()
    >>> block = allocator.allocate(1)
    >>> allocator.allocated_bytes, allocator.reserved_bytes
    (512, 2097152)
    """

    __slots__ = (
        "_collect_above_bytes", "_device", "_expandable", "_heads", "_large", "_large_searches",
        "_limit_bytes", "_max_split_bytes", "_rules", "_small", "allocated_bytes",
        "peak_allocated_bytes", "requested_bytes", "retry_count", "settings",
    )  # fmt: skip

    def __init__(
        self,
        settings: AllocatorSettings = AllocatorSettings(),  # noqa: B008  (frozen)
        capacity_bytes: int | None = None,
        device_total_bytes: int | None = None,
    ) -> None:
        total_bytes = capacity_bytes if device_total_bytes is None else device_total_bytes
        self.settings = settings
        self.allocated_bytes = 0
        self.requested_bytes = 0
        self.peak_allocated_bytes = 0
        self.retry_count = 0
        self._device = DeviceMemory(UNLIMITED if capacity_bytes is None else capacity_bytes)
        self._heads: dict[int, Block] = {}  # first block of each segment by address
        self._small: dict[int, FreeList] = {}  # by stream
        self._large: dict[int, FreeList] = {}
        self._large_searches = 0  # get_free_blocks_call_count of the large pool
        self._rules = settings.size_rules
        self._max_split_bytes = self._rules.max_split_bytes
        self._limit_bytes, self._collect_above_bytes = _limits(settings, total_bytes)
        self._expandable: ExpandableSegments | None = None
        if settings.expandable_segments:
            span_bytes = _UNKNOWN_DEVICE_BYTES if total_bytes is None else total_bytes
            page_bytes = settings.large_segment_size_bytes
            self._expandable = ExpandableSegments(self._device, span_bytes, page_bytes, self._heads)

    @property
    def reserved_bytes(self) -> int:
        """Taken from the device (``torch.cuda.memory_reserved``)."""
        return self._device.taken_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """The highest ``reserved_bytes`` so far."""
        return self._device.peak_taken_bytes

    @property
    def release_count(self) -> int:
        """How many segments or ranges of pages were given back (``num_device_free``)."""
        return self._device.release_count

    def allocate(self, size_bytes: int, stream: int = 0) -> Block:
        """A block for ``size_bytes`` (``malloc``, ``alloc_found_block``).

        Args:
            size_bytes: the request; nothing is allocated for 0.
            stream: blocks that were freed on another stream are not used.

        Raises:
            OutOfDeviceMemory: there is no room even with all cached memory released.
        """
        if size_bytes <= 0:
            assert size_bytes == 0, f"{size_bytes} bytes requested"
            return Block(0, 0, LIVE, _NOWHERE)
        size = self._rules.rounded_bytes(size_bytes)
        free = (self._small if size <= SMALL_BYTES else self._large).get(stream)
        if free is None:
            free = self._open(size, stream)
        block = self._take_free(free, size) or self._take_new(free, size, size_bytes)
        remaining = block.size_bytes - size
        if remaining >= free.min_remainder_bytes and size < free.split_below_bytes:
            free.add(block.cut(size, FREE))
        block.state = LIVE
        block.requested_bytes = size_bytes
        self.requested_bytes += size_bytes
        self.allocated_bytes += block.size_bytes
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return block

    def free(self, block: Block) -> None:
        """Put a block back into the cache, joined with its free neighbours (``free_block``)."""
        assert block.state is LIVE, f"{block} is not allocated"
        size = block.size_bytes
        if size == 0:
            block.state = GONE
            return
        self.allocated_bytes -= size
        self.requested_bytes -= block.requested_bytes
        free = block.home
        preceding, following = block.preceding, block.following
        if following is not None and following.state is FREE:
            free.remove(following)
            block.absorb_following()
        if preceding is not None and preceding.state is FREE:
            free.remove(preceding)
            preceding.absorb_following()
            block = preceding
        block.state = FREE
        block.freed_at = self._large_searches
        free.add(block)

    def empty_cache(self) -> None:
        """Give back all segments and pages without a live block (``release_cached_blocks``)."""
        for free in (*self._large.values(), *self._small.values()):
            if self._expandable is not None:
                self._expandable.release(free)
            else:
                for block in free.whole_segments():
                    self._release(block)

    def segments(self) -> list[Segment]:
        """Every segment with its blocks, in order of addresses (``snapshot``)."""
        return snapshot(self._heads.values(), self._expandable is not None)

    def _open(self, size: int, stream: int) -> FreeList:
        """The free list for a pool that the stream has not used before."""
        name: PoolName = "small" if size <= SMALL_BYTES else "large"
        pool = self._small if name == "small" else self._large
        pool[stream] = FreeList(name, stream, *self._rules.split_bounds(size))
        return pool[stream]

    def _take_free(self, free: FreeList, size: int) -> Block | None:
        """The smallest cached block that fits, out of its list (``get_free_block``)."""
        if free.name == "large":
            self._large_searches += 1
        keys = free.keys
        index = bisect_left(keys, size << KEY_SHIFT)
        if index == len(keys):
            return None
        if self._expandable is not None:
            index = self._expandable.best_fit(free, index)
        key = keys[index]
        block = free.by_key[key]
        if block.size_bytes >= self._max_split_bytes and not self._may_use_oversize(block, size):
            return None
        del keys[index]
        del free.by_key[key]
        return block

    def _may_use_oversize(self, block: Block, size: int) -> bool:
        """An oversize block serves only oversize requests that nearly fill it."""
        slack_bytes = self.settings.max_non_split_rounding_bytes
        if slack_bytes is None:
            slack_bytes = self.settings.large_segment_size_bytes
        return size >= self._max_split_bytes and block.size_bytes < size + slack_bytes

    def _take_new(self, free: FreeList, size: int, requested_bytes: int) -> Block:
        """A new block from the device, releasing cached memory when it is full (``malloc``)."""
        if self._device.taken_bytes > self._collect_above_bytes:
            self._collect_garbage()
        block = self._grow(free, size)
        if block is None and self._release_oversize(free, size):
            block = self._grow(free, size)
        if block is None:
            self.empty_cache()
            self.retry_count += 1
            block = self._grow(free, size)
        if block is None:
            raise self._out_of_memory(requested_bytes)
        return block

    def _grow(self, free: FreeList, size: int) -> Block | None:
        """A segment (``alloc_block``), or pages of an expandable one; None when it is full."""
        segment_bytes = self._rules.segment_bytes(size)
        if self._device.taken_bytes + segment_bytes > self._limit_bytes:
            return None
        if self._expandable is not None:
            return self._expandable.grow(free, size)
        if not self._device.take(segment_bytes):
            return None
        block = Block(self._device.place(segment_bytes), segment_bytes, FREE, free)
        self._heads[block.address] = block
        return block

    def _release(self, block: Block) -> None:
        """Give one whole segment back (``release_block``)."""
        block.home.remove(block)
        block.state = GONE
        del self._heads[block.address]
        self._device.give_back(block.size_bytes)

    def _release_oversize(self, free: FreeList, size: int) -> bool:
        """Release as many oversize blocks as the request needs, if that can be enough.

        As ``release_available_cached_blocks``: one block that is large enough, else the
        largest ones of this stream until their sum is.
        """
        if self._max_split_bytes == UNLIMITED or self._expandable is not None:
            return False
        wanted = max(size, self._max_split_bytes)
        index = bisect_left(free.keys, wanted << KEY_SHIFT)
        if index < len(free.keys):
            self._release(free.by_key[free.keys[index]])
            return True
        released_bytes = 0
        for block in reversed(free.free_blocks()):
            if released_bytes >= wanted or block.size_bytes < self._max_split_bytes:
                break
            released_bytes += block.size_bytes
            self._release(block)
        return released_bytes >= wanted

    def _collect_garbage(self) -> None:
        """Release segments unused for longest (``garbage_collect_cached_blocks``)."""
        target_bytes = self._device.taken_bytes - self._collect_above_bytes
        ages = {
            block: self._large_searches - block.freed_at
            for free in self._large.values()
            for block in free.whole_segments()
        }
        while ages and target_bytes > 0:
            mean_age = sum(ages.values()) / len(ages)
            old = [block for block, age in ages.items() if age >= mean_age]
            for block in old:
                target_bytes -= block.size_bytes
                self._release(block)
                del ages[block]

    def _out_of_memory(self, requested_bytes: int) -> OutOfDeviceMemory:
        free_lists = [*self._small.values(), *self._large.values()]
        largest = max((f.keys[-1] >> KEY_SHIFT for f in free_lists if f.keys), default=0)
        return OutOfDeviceMemory(
            requested_bytes,
            self.allocated_bytes,
            self.reserved_bytes,
            min(self._device.capacity_bytes, self._limit_bytes),
            largest,
        )


def _limits(settings: AllocatorSettings, total_bytes: int | None) -> tuple[int, int]:
    """What may be reserved, and above how much old segments are released.

    As ``setMemoryFraction`` and ``garbage_collect_cached_blocks``. A fraction of 1 sets no
    limit, and without a limit torch collects nothing.
    """
    if settings.per_process_memory_fraction == 1.0 or total_bytes is None:
        return UNLIMITED, UNLIMITED
    limit_bytes = int(settings.per_process_memory_fraction * total_bytes)
    threshold = settings.garbage_collection_threshold
    return limit_bytes, int(threshold * limit_bytes) if threshold > 0.0 else UNLIMITED
