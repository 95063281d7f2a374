from __future__ import annotations

import random

import pytest
from plain_allocator import PlainAllocator
from recorded_allocator_runs import (
    CAPACITY_BYTES,
    DEVICE_TOTAL_BYTES,
    RECORDED_RUNS,
    RecordedRun,
    checksum,
    operations,
)

from memfit.memory.allocator.allocator import (
    AllocatorSettings,
    Block,
    BlockState,
    CachingAllocator,
    OutOfDeviceMemory,
)

KIB, MIB = 1024, 1024**2
LIVE = BlockState.LIVE


def allocator(conf: str = "", capacity: int | None = None) -> CachingAllocator:
    return CachingAllocator(AllocatorSettings.parse(conf), capacity)


class TestKnownFigures:
    """What a first request costs, as anyone can check on a GPU."""

    @pytest.mark.parametrize(
        ("request_bytes", "allocated", "reserved"),
        [
            (1, 512, 2 * MIB),
            (512, 512, 2 * MIB),
            (513, 1024, 2 * MIB),
            (MIB, MIB, 2 * MIB),
            (MIB + 1, MIB + 512, 20 * MIB),
            (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
            (10 * MIB - 511, 10 * MIB, 10 * MIB),  # rounded to 10 MiB before the choice
            (10 * MIB, 10 * MIB, 10 * MIB),
            (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
            (11 * MIB, 12 * MIB, 12 * MIB),  # 1 MiB would remain: not split, so all counts
            (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),  # more than 1 MiB remains: split
            (100 * MIB, 100 * MIB, 100 * MIB),
        ],
    )
    def test_first_request(self, request_bytes: int, allocated: int, reserved: int) -> None:
        memory = allocator()
        block = memory.allocate(request_bytes)
        assert (memory.allocated_bytes, memory.reserved_bytes) == (allocated, reserved)
        assert memory.requested_bytes == block.requested_bytes == request_bytes
        memory.free(block)
        assert (memory.allocated_bytes, memory.reserved_bytes) == (0, reserved)
        assert (memory.peak_allocated_bytes, memory.peak_reserved_bytes) == (allocated, reserved)

    def test_whole_block_counts_again_when_it_is_used_for_less(self) -> None:
        memory = allocator()
        memory.free(memory.allocate(12 * MIB))
        memory.allocate(11 * MIB)
        assert memory.allocated_bytes == 12 * MIB
        assert memory.requested_bytes == 11 * MIB

    def test_large_segment_size(self) -> None:
        memory = allocator("large_segment_size_mb:64")
        memory.allocate(MIB + 1)
        memory.allocate(50 * MIB)  # from 10 MiB on a segment is its own, but this fits the rest
        memory.allocate(40 * MIB)
        assert memory.reserved_bytes == 64 * MIB + 40 * MIB

    def test_nothing_is_allocated_for_zero_bytes(self) -> None:
        memory = allocator(capacity=0)
        block = memory.allocate(0)
        assert (block.address, block.size_bytes) == (0, 0)
        assert memory.reserved_bytes == memory.allocated_bytes == 0
        memory.free(block)
        with pytest.raises(AssertionError, match="not allocated"):
            memory.free(block)


class TestRounding:
    """``round_size``: steps between powers of two, once a size is more than 512 B a step."""

    @pytest.mark.parametrize(
        ("conf", "request_bytes", "rounded"),
        [
            ("roundup_power2_divisions:4", 1200, 1536),  # not more than 4 x 512: plain
            ("roundup_power2_divisions:4", 2049, 2560),  # 2048, 2560, 3072, 3584, 4096
            ("roundup_power2_divisions:4", 4096, 4096),
            ("roundup_power2_divisions:4", 5 * MIB + 1, 6 * MIB),  # 4, 5, 6, 7, 8
            ("roundup_power2_divisions:1", 5 * MIB + 1, 5 * MIB + 512),
            ("roundup_power2_divisions:[64:8,>:2]", 65 * MIB, 72 * MIB),  # 64, 72, 80 ...
            ("roundup_power2_divisions:[64:8,>:2]", 33 * MIB, 36 * MIB),  # as the first interval
            ("roundup_power2_divisions:[64:8,>:2]", 129 * MIB, 192 * MIB),  # 128, 192, 256
            ("roundup_power2_divisions:[64:8,256:2]", 129 * MIB, 130 * MIB),  # not named: plain
        ],
    )
    def test_steps(self, conf: str, request_bytes: int, rounded: int) -> None:
        # The segment is 2 MiB larger at most, so what is not split off shows the rounding.
        assert allocator(conf).allocate(request_bytes).size_bytes == rounded


class TestReuse:
    def test_smallest_block_that_fits(self) -> None:
        memory = allocator()
        wide, narrow = memory.allocate(40 * MIB), memory.allocate(30 * MIB)
        addresses = wide.address, narrow.address
        memory.free(wide)
        memory.free(narrow)
        assert memory.allocate(29 * MIB).address == addresses[1]
        assert memory.allocate(29 * MIB).address == addresses[0]
        assert memory.reserved_bytes == 70 * MIB

    def test_oldest_segment_first_among_equals(self) -> None:
        """Since pytorch/pytorch pull request 183591 age decides, not the address."""
        memory = allocator()
        blocks = [memory.allocate(12 * MIB) for _ in range(3)]
        for index in (1, 2, 0):
            memory.free(blocks[index])
        addresses = [block.address for block in blocks]
        assert [memory.allocate(12 * MIB).address for _ in range(3)] == addresses

    def test_neighbours_join(self) -> None:
        memory = allocator()
        blocks = [memory.allocate(5 * MIB) for _ in range(4)]  # one segment of 20 MiB, full
        assert memory.reserved_bytes == 20 * MIB
        memory.free(blocks[0])
        memory.free(blocks[2])
        memory.allocate(9 * MIB)  # 5 + 5 MiB are free, but not side by side
        assert memory.reserved_bytes == 40 * MIB
        memory.free(blocks[1])
        assert memory.allocate(15 * MIB).address == blocks[0].address
        assert memory.reserved_bytes == 40 * MIB

    def test_streams_do_not_share(self) -> None:
        memory = allocator()
        memory.free(memory.allocate(12 * MIB, stream=0))
        memory.allocate(12 * MIB, stream=1)
        assert memory.reserved_bytes == 24 * MIB
        memory.allocate(12 * MIB, stream=0)
        assert memory.reserved_bytes == 24 * MIB

    def test_small_requests_do_not_use_large_segments(self) -> None:
        memory = allocator()
        memory.free(memory.allocate(2 * MIB))
        memory.allocate(1)
        assert memory.reserved_bytes == 22 * MIB

    def test_freeing_twice_is_refused(self) -> None:
        memory = allocator()
        block, other = memory.allocate(1), memory.allocate(1)
        memory.free(block)
        with pytest.raises(AssertionError, match="not allocated"):
            memory.free(block)
        memory.free(other)  # joins the first: its handle is gone
        with pytest.raises(AssertionError, match="not allocated"):
            memory.free(other)


class TestFullDevice:
    def test_cache_is_released_and_the_request_repeated(self) -> None:
        memory = allocator(capacity=50 * MIB)
        memory.free(memory.allocate(30 * MIB))
        memory.allocate(32 * MIB)
        assert (memory.reserved_bytes, memory.retry_count, memory.release_count) == (32 * MIB, 1, 1)
        assert memory.peak_reserved_bytes == 32 * MIB

    def test_a_segment_in_use_is_not_released(self) -> None:
        """30 MiB are free in all, and 12 MiB cannot be had: what fragmentation means."""
        memory = allocator(capacity=41 * MIB)
        blocks = [memory.allocate(5 * MIB) for _ in range(8)]
        for block in (*blocks[0:4:2], *blocks[4:8:2]):
            memory.free(block)
        with pytest.raises(OutOfDeviceMemory) as caught:
            memory.allocate(12 * MIB)
        error = caught.value
        assert error.requested_bytes == 12 * MIB
        assert error.allocated_bytes == memory.allocated_bytes == 20 * MIB
        assert error.reserved_bytes == memory.reserved_bytes == 40 * MIB
        assert error.capacity_bytes == 41 * MIB
        assert error.largest_free_block_bytes == 5 * MIB
        assert memory.retry_count == 1
        memory.free(blocks[1])
        memory.allocate(12 * MIB)  # and the allocator goes on

    def test_small_pool_segments_are_released_too(self) -> None:
        memory = allocator(capacity=20 * MIB)
        memory.free(memory.allocate(1))
        memory.allocate(2 * MIB)
        assert memory.reserved_bytes == 20 * MIB

    def test_empty_cache_keeps_what_is_in_use(self) -> None:
        memory = allocator()
        memory.allocate(5 * MIB)
        memory.free(memory.allocate(30 * MIB))
        memory.empty_cache()
        assert memory.reserved_bytes == 20 * MIB
        assert memory.retry_count == 0

    def test_fraction_of_the_device(self) -> None:
        settings = AllocatorSettings(per_process_memory_fraction=0.5)
        memory = CachingAllocator(settings, capacity_bytes=90 * MIB, device_total_bytes=100 * MIB)
        memory.allocate(40 * MIB)
        with pytest.raises(OutOfDeviceMemory) as caught:
            memory.allocate(12 * MIB)
        assert caught.value.capacity_bytes == 50 * MIB

    def test_unlimited_without_a_capacity(self) -> None:
        memory = allocator("per_process_memory_fraction:0.5,garbage_collection_threshold:0.1")
        memory.allocate(10**15)
        assert memory.reserved_bytes >= 10**15


class TestMaxSplitSize:
    CONF = "max_split_size_mb:32"

    def test_oversize_blocks_are_not_split(self) -> None:
        memory = allocator(self.CONF)
        memory.free(memory.allocate(40 * MIB))
        assert memory.allocate(33 * MIB).size_bytes == 40 * MIB
        assert memory.allocated_bytes == 40 * MIB

    def test_oversize_blocks_do_not_serve_small_or_far_smaller_requests(self) -> None:
        memory = allocator(self.CONF)
        memory.free(memory.allocate(60 * MIB))
        memory.allocate(30 * MIB)  # below the limit
        assert memory.reserved_bytes == 90 * MIB
        memory.allocate(40 * MIB)  # 60 MiB is not less than 40 + 20 MiB
        assert memory.reserved_bytes == 130 * MIB
        memory.allocate(41 * MIB)
        assert memory.reserved_bytes == 130 * MIB

    def test_slack_can_be_set(self) -> None:
        memory = allocator(f"{self.CONF},max_non_split_rounding_mb:30")
        memory.free(memory.allocate(60 * MIB))
        memory.allocate(40 * MIB)
        assert memory.reserved_bytes == 60 * MIB

    def test_only_as_much_as_needed_is_released(self) -> None:
        """One block that is large enough goes, the others stay: no retry with an empty cache."""
        memory = allocator(self.CONF, capacity=160 * MIB)
        for block in [memory.allocate(size * MIB) for size in (34, 60, 36)]:
            memory.free(block)
        memory.allocate(20 * MIB)
        memory.allocate(30 * MIB)  # 150 MiB reserved; the smallest oversize block, 34, goes
        assert memory.reserved_bytes == 146 * MIB
        assert (memory.retry_count, memory.release_count) == (0, 1)

    def test_largest_go_first_when_one_is_not_enough(self) -> None:
        memory = allocator(self.CONF, capacity=150 * MIB)
        for block in [memory.allocate(size * MIB) for size in (34, 60, 36)]:
            memory.free(block)
        memory.allocate(90 * MIB)  # 60 + 36 MiB
        assert memory.reserved_bytes == 34 * MIB + 90 * MIB
        assert memory.retry_count == 0


class TestGarbageCollection:
    CONF = "garbage_collection_threshold:0.5,per_process_memory_fraction:0.8"

    def test_segments_not_used_for_longest_go(self) -> None:
        memory = allocator(self.CONF, capacity=200 * MIB)  # above 80 of 160 MiB
        blocks = [memory.allocate(size * MIB) for size in (30, 32, 34)]
        for block in blocks:
            memory.free(block)
        memory.free(memory.allocate(34 * MIB))  # the other two are older now
        memory.allocate(36 * MIB)
        assert memory.reserved_bytes == 34 * MIB + 36 * MIB
        assert memory.retry_count == 0

    def test_not_without_a_fraction(self) -> None:
        memory = allocator("garbage_collection_threshold:0.5", capacity=400 * MIB)
        memory.free(memory.allocate(220 * MIB))
        memory.free(memory.allocate(150 * MIB))  # cut from the 220
        memory.allocate(160 * MIB, stream=1)
        assert memory.reserved_bytes == 380 * MIB


def test_snapshot() -> None:
    memory = allocator()
    memory.allocate(1000, stream=3)
    memory.free(memory.allocate(12 * MIB))
    small, large = memory.segments()
    assert (small.pool, small.stream, small.total_bytes) == ("small", 3, 2 * MIB)
    assert [(b.size_bytes, b.requested_bytes, b.state.value) for b in small.blocks] == [
        (1024, 1000, "active_allocated"),
        (2 * MIB - 1024, 0, "inactive"),
    ]
    assert [block.address - small.address for block in small.blocks] == [0, 1024]
    assert (large.pool, large.stream, large.total_bytes) == ("large", 0, 12 * MIB)
    assert not large.expandable


@pytest.mark.parametrize("recorded", RECORDED_RUNS, ids=lambda run: run.conf or "default")
def test_as_the_binary_of_torch(recorded: RecordedRun) -> None:
    settings = AllocatorSettings.parse(recorded.conf)
    memory = CachingAllocator(settings, CAPACITY_BYTES, DEVICE_TOTAL_BYTES)
    live: dict[int, Block] = {}
    figures: list[tuple[int, int]] = []
    failures = 0
    for what, number, size, stream in operations():
        if what == "a":
            try:
                live[number] = memory.allocate(size, stream)
            except OutOfDeviceMemory:
                failures += 1
        elif what == "e":
            memory.empty_cache()
        elif number in live:
            memory.free(live.pop(number))
        else:
            continue
        figures.append((memory.allocated_bytes, memory.reserved_bytes))
    assert recorded == RecordedRun(
        recorded.conf,
        memory.allocated_bytes,
        memory.reserved_bytes,
        memory.requested_bytes,
        memory.peak_allocated_bytes,
        memory.peak_reserved_bytes,
        memory.retry_count,
        failures,
        checksum(figures),
    )


PLAIN_CONFS = (
    "",
    "max_split_size_mb:20",
    "max_split_size_mb:40,max_non_split_rounding_mb:30",
    "roundup_power2_divisions:8",
    "large_segment_size_mb:32",
    "per_process_memory_fraction:0.7",
    "garbage_collection_threshold:0.4,per_process_memory_fraction:0.9",
    "garbage_collection_threshold:0.4,per_process_memory_fraction:0.9,max_split_size_mb:32",
)


@pytest.mark.parametrize("conf", PLAIN_CONFS, ids=lambda conf: conf or "default")
@pytest.mark.parametrize("seed", range(3))
def test_as_the_plain_allocator(conf: str, seed: int) -> None:
    draw = random.Random(f"{conf}{seed}")
    capacity = draw.choice([120, 300, 2000]) * MIB
    memory, plain = (
        allocator(conf, capacity),
        PlainAllocator(AllocatorSettings.parse(conf), capacity),
    )
    live: dict[int, Block] = {}
    for number in range(500):
        if live and draw.random() < 0.45:
            owner = draw.choice(list(live))
            memory.free(live.pop(owner))
            plain.free(owner)
        elif draw.random() < 0.02:
            memory.empty_cache()
            plain.empty()
        else:
            size = draw.randint(1, draw.choice([4 * KIB, MIB, 12 * MIB, 80 * MIB]))
            stream = draw.choice([0, 0, 5])
            fits = plain.allocate(number, size, stream)
            if fits:
                live[number] = memory.allocate(size, stream)
            else:
                with pytest.raises(OutOfDeviceMemory):
                    memory.allocate(size, stream)
        assert (memory.allocated_bytes, memory.reserved_bytes) == (plain.allocated, plain.reserved)
        assert (memory.requested_bytes, memory.retry_count) == (plain.requested, plain.retries)
    assert [
        (segment.pool, segment.stream, [(b.size_bytes, b.state is LIVE) for b in segment.blocks])
        for segment in memory.segments()
    ] == [
        (segment.pool, segment.stream, [(b.size, b.owner is not None) for b in segment.blocks])
        for segment in plain.segments
    ]
