from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

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
CASES = json.loads((Path(__file__).parents[1] / "engine" / "allocator.json").read_text())
LIVE = BlockState.LIVE


def allocator(conf: str = "", capacity: int | None = None) -> CachingAllocator:
    return CachingAllocator(AllocatorSettings.parse(conf), capacity)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_as_counted_by_hand(case: dict[str, Any]) -> None:
    """``tests/engine/allocator.json``: events in, bytes out; the page's engine runs them, too."""
    memory = CachingAllocator(
        AllocatorSettings.parse(case["conf"]), case["capacity_bytes"], case["device_total_bytes"]
    )
    live: dict[int, Block] = {}
    for (what, *values), after in zip(case["events"], case["after"], strict=True):
        if isinstance(after, dict):
            with pytest.raises(OutOfDeviceMemory) as caught:
                memory.allocate(*values[1:])
            assert {f"{name}_bytes": size for name, size in after.items()} == {
                name.replace("free_block_", "free_"): size
                for name, size in vars(caught.value).items()
                if name.endswith("_bytes")
            }
            continue
        if what == "allocate":
            live[values[0]] = memory.allocate(*values[1:])
        elif what == "free":
            memory.free(live.pop(values[0]))
        else:
            memory.empty_cache()
        assert [memory.allocated_bytes, memory.reserved_bytes] == after
    assert memory.retry_count == case["retries"]
    assert memory.requested_bytes == sum(block.requested_bytes for block in live.values())


def test_nothing_is_allocated_for_zero_bytes() -> None:
    memory = allocator(capacity=0)
    block = memory.allocate(0)
    assert (block.address, block.size_bytes) == (0, 0)
    memory.free(block)
    with pytest.raises(AssertionError, match="not allocated"):
        memory.free(block)


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

    def test_unlimited_without_a_capacity(self) -> None:
        memory = allocator("per_process_memory_fraction:0.5,garbage_collection_threshold:0.1")
        memory.allocate(10**15)
        assert memory.reserved_bytes >= 10**15


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
