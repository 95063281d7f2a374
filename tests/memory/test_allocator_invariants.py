from __future__ import annotations

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memfit.memory.allocator.allocator import (
    AllocatorSettings,
    Block,
    BlockState,
    CachingAllocator,
    OutOfDeviceMemory,
)

MIB = 1024**2
LIVE = BlockState.LIVE


class AllocatorMachine(RuleBasedStateMachine):
    """Any sequence of requests, with any options: no byte is lost, none is given out twice."""

    @initialize(
        expandable=st.booleans(),
        max_split=st.sampled_from([None, 20 * MIB, 64 * MIB]),
        steps=st.sampled_from([0, 4]),
        fraction=st.sampled_from([0.6, 1.0]),
        capacity=st.sampled_from([60 * MIB, 250 * MIB]),
    )
    def start(
        self, expandable: bool, max_split: int | None, steps: int, fraction: float, capacity: int
    ) -> None:
        settings = AllocatorSettings(
            expandable_segments=expandable,
            max_split_size_bytes=max_split,
            roundup_power2_divisions=steps,
            garbage_collection_threshold=0.5,
            per_process_memory_fraction=fraction,
        )
        self.capacity = capacity
        self.memory = CachingAllocator(settings, capacity)
        self.live: list[Block] = []
        self.requested = 0
        self.peaks = (0, 0)

    @rule(
        size=st.one_of(st.integers(1, 2 * MIB), st.integers(MIB, 80 * MIB)),
        stream=st.sampled_from([0, 1]),
    )
    def allocate(self, size: int, stream: int) -> None:
        before = self.memory.allocated_bytes
        try:
            block = self.memory.allocate(size, stream)
        except OutOfDeviceMemory as error:
            self.check_failure(error, size, before)
            return
        assert block.size_bytes >= size
        self.live.append(block)
        self.requested += size

    def check_failure(self, error: OutOfDeviceMemory, size: int, allocated_before: int) -> None:
        assert error.requested_bytes == size
        assert error.allocated_bytes == self.memory.allocated_bytes == allocated_before
        rounded_up = size * 5 // 4 + 22 * MIB  # a quarter by steps, then segment and page
        assert error.reserved_bytes + rounded_up > error.capacity_bytes

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        block = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.requested -= block.requested_bytes
        self.memory.free(block)

    @rule()
    def empty_cache(self) -> None:
        allocated = self.memory.allocated_bytes
        self.memory.empty_cache()
        assert self.memory.allocated_bytes == allocated

    @invariant()
    def bytes_add_up(self) -> None:
        memory, segments = self.memory, self.memory.segments()
        assert memory.allocated_bytes == sum(block.size_bytes for block in self.live)
        assert memory.requested_bytes == self.requested
        assert memory.reserved_bytes == sum(segment.total_bytes for segment in segments)
        assert memory.allocated_bytes <= memory.reserved_bytes <= self.capacity
        peaks = memory.peak_allocated_bytes, memory.peak_reserved_bytes
        assert peaks[0] >= max(self.peaks[0], memory.allocated_bytes)
        assert peaks[1] >= max(self.peaks[1], memory.reserved_bytes)
        self.peaks = peaks

    @invariant()
    def blocks_tile_their_segments(self) -> None:
        shown = []
        for segment in self.memory.segments():
            end = segment.address
            was_free = False
            for block in segment.blocks:
                assert block.address == end  # no gap, no overlap
                assert block.size_bytes > 0
                is_free = block.state is not LIVE
                assert not (was_free and is_free)  # free neighbours are joined
                was_free, end = is_free, end + block.size_bytes
                if not is_free:
                    shown.append((block.address, block.size_bytes))
            assert end == segment.address + segment.total_bytes
        assert sorted(shown) == sorted((b.address, b.size_bytes) for b in self.live)

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        for block in self.live:
            self.memory.free(block)
        self.memory.empty_cache()
        assert self.memory.reserved_bytes == self.memory.allocated_bytes == 0
        assert self.memory.segments() == []


TestAllocatorMachine = AllocatorMachine.TestCase
TestAllocatorMachine.settings = hypothesis_settings(max_examples=40, stateful_step_count=40)
