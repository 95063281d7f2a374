"""The caching allocator once more, written to be read: lists, scans, and no expandable segments."""

from __future__ import annotations

from dataclasses import dataclass, field

from memfit.memory.allocator.allocator import AllocatorSettings

MIB = 1024**2


@dataclass(eq=False)
class PlainBlock:
    size: int
    owner: int | None = None  # number of the allocation, None when free
    requested: int = 0
    freed_at: int = 0


@dataclass(eq=False)
class PlainSegment:
    pool: str
    stream: int
    blocks: list[PlainBlock] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def is_unused(self) -> bool:
        return all(block.owner is None for block in self.blocks)

    def join_free(self) -> None:
        joined: list[PlainBlock] = []
        for block in self.blocks:
            if joined and joined[-1].owner is None and block.owner is None:
                joined[-1].size += block.size
                joined[-1].freed_at = max(joined[-1].freed_at, block.freed_at)
            else:
                joined.append(block)
        self.blocks = joined


class PlainAllocator:
    """Segments in the order in which they were made; everything is found by looking."""

    def __init__(self, settings: AllocatorSettings, capacity: int) -> None:
        self.settings = settings
        self.capacity = capacity
        self.max_split = settings.max_split_size_bytes or float("inf")
        self.slack = settings.max_non_split_rounding_bytes or settings.large_segment_size_bytes
        fraction = settings.per_process_memory_fraction
        self.limit = int(fraction * capacity) if fraction < 1 else None
        self.segments: list[PlainSegment] = []
        self.large_searches = 0
        self.retries = 0

    def blocks(self) -> list[PlainBlock]:
        return [block for segment in self.segments for block in segment.blocks]

    @property
    def reserved(self) -> int:
        return sum(segment.size for segment in self.segments)

    @property
    def allocated(self) -> int:
        return sum(block.size for block in self.blocks() if block.owner is not None)

    @property
    def requested(self) -> int:
        return sum(block.requested for block in self.blocks() if block.owner is not None)

    def allocate(self, owner: int, request: int, stream: int) -> bool:
        size = self.rounded(request)
        pool = "small" if size <= MIB else "large"
        self.large_searches += pool == "large"
        found = self.cached(pool, stream, size) or self.fresh(pool, stream, size)
        if found is None:
            return False
        segment, block = found
        rest = block.size - size
        if rest >= 512 if pool == "small" else rest > MIB and size < self.max_split:
            segment.blocks.insert(segment.blocks.index(block) + 1, PlainBlock(rest))
            block.size = size
        block.owner, block.requested = owner, request
        return True

    def free(self, owner: int) -> None:
        for segment in self.segments:
            for block in segment.blocks:
                if block.owner == owner:
                    block.owner, block.freed_at = None, self.large_searches
                    segment.join_free()
                    return
        raise AssertionError(f"{owner} is not allocated")

    def empty(self) -> None:
        self.segments = [segment for segment in self.segments if not segment.is_unused]

    def rounded(self, request: int) -> int:
        steps = self.settings.roundup_power2_divisions
        assert isinstance(steps, int)
        if steps > 1 and request > 512 * steps:
            power = 1
            while power * 2 <= request:
                power *= 2
            boundaries = [power + power * step // steps for step in range(steps + 1)]
            return min(boundary for boundary in boundaries if boundary >= request)
        return max(512, (request + 511) // 512 * 512)

    def cached(self, pool: str, stream: int, size: int) -> tuple[PlainSegment, PlainBlock] | None:
        fitting = [
            (block.size, age, place)
            for age, segment in enumerate(self.segments)
            if (segment.pool, segment.stream) == (pool, stream)
            for place, block in enumerate(segment.blocks)
            if block.owner is None and block.size >= size
        ]
        if not fitting:
            return None
        found, age, place = min(fitting)
        if size < self.max_split <= found or (
            size >= self.max_split and found >= size + self.slack
        ):
            return None
        return self.segments[age], self.segments[age].blocks[place]

    def fresh(self, pool: str, stream: int, size: int) -> tuple[PlainSegment, PlainBlock] | None:
        if size < 10 * MIB:
            total = 2 * MIB if pool == "small" else self.settings.large_segment_size_bytes
        else:
            total = (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB
        self.collect()
        room = self.has_room(total)
        if not room and self.release_oversize(pool, stream, size):
            room = self.has_room(total)
        if not room:
            self.empty()
            self.retries += 1
        if not self.has_room(total):
            return None
        segment = PlainSegment(pool, stream, [PlainBlock(total)])
        self.segments.append(segment)
        return segment, segment.blocks[0]

    def has_room(self, size: int) -> bool:
        limit = self.capacity if self.limit is None else min(self.limit, self.capacity)
        return self.reserved + size <= limit

    def release_oversize(self, pool: str, stream: int, size: int) -> bool:
        wanted = max(size, self.max_split)
        oversize = [
            segment
            for segment in self.segments
            if (segment.pool, segment.stream) == (pool, stream)
            and segment.is_unused
            and segment.size >= self.max_split
        ]
        enough = [segment for segment in oversize if segment.size >= wanted]
        if enough:
            self.segments.remove(min(enough, key=lambda segment: segment.size))
            return True
        released = 0
        oversize.sort(key=lambda segment: segment.size)
        for segment in reversed(oversize):
            if released < wanted:
                self.segments.remove(segment)
                released += segment.size
        return released >= wanted

    def collect(self) -> None:
        threshold = self.settings.garbage_collection_threshold
        if not threshold or self.limit is None:
            return
        excess = self.reserved - int(threshold * self.limit)
        while excess > 0:
            unused = [s for s in self.segments if s.is_unused and s.pool == "large"]
            if not unused:
                return
            ages = [self.large_searches - segment.blocks[0].freed_at for segment in unused]
            mean = sum(ages) / len(ages)
            for segment, age in zip(unused, ages, strict=True):
                if age >= mean:
                    self.segments.remove(segment)
                    excess -= segment.size
