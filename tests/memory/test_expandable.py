from __future__ import annotations

import pytest

from memfit.memory.allocator.allocator import AllocatorSettings, CachingAllocator, OutOfDeviceMemory

MIB = 1024**2


def expandable(capacity: int | None = None, conf: str = "") -> CachingAllocator:
    return CachingAllocator(AllocatorSettings.parse(f"expandable_segments:True,{conf}"), capacity)


def test_pages_of_2_and_20_mib() -> None:
    memory = expandable()
    memory.allocate(1)
    assert memory.reserved_bytes == 2 * MIB
    memory.allocate(30 * MIB)
    assert memory.reserved_bytes == 2 * MIB + 40 * MIB


def test_a_segment_grows_by_what_is_missing() -> None:
    memory = expandable()
    first = memory.allocate(30 * MIB)
    second = memory.allocate(25 * MIB)  # 10 MiB are mapped already: one page more
    assert second.address == first.address + 30 * MIB
    assert memory.reserved_bytes == 60 * MIB
    (segment,) = memory.segments()
    assert segment.expandable
    assert [block.size_bytes for block in segment.blocks] == [30 * MIB, 25 * MIB, 5 * MIB]


def test_large_blocks_are_split_to_the_last_512_bytes() -> None:
    """Without expandable segments 1 MiB would stay unsplit and count as allocated."""
    memory = expandable()
    memory.allocate(20 * MIB - 512)
    assert memory.allocated_bytes == 20 * MIB - 512


def test_pools_and_streams_have_segments_of_their_own() -> None:
    memory = expandable()
    for stream in (0, 1):
        memory.allocate(1, stream)
        memory.allocate(2 * MIB, stream)
    assert memory.reserved_bytes == 2 * (2 + 20) * MIB
    assert len(memory.segments()) == 4


def test_page_size_follows_large_segment_size() -> None:
    memory = expandable(conf="large_segment_size_mb:32")
    memory.allocate(2 * MIB)
    assert memory.reserved_bytes == 32 * MIB


def test_only_whole_pages_are_unmapped() -> None:
    memory = expandable()
    blocks = [memory.allocate(15 * MIB) for _ in range(4)]  # 60 MiB: three pages
    assert memory.reserved_bytes == 60 * MIB
    memory.free(blocks[0])
    memory.free(blocks[1])  # free: 0 to 30 MiB, of which 0 to 20 is a page
    memory.empty_cache()
    assert memory.reserved_bytes == 40 * MIB
    assert memory.release_count == 1
    (segment,) = memory.segments()
    assert [block.size_bytes for block in segment.blocks] == [10 * MIB, 15 * MIB, 15 * MIB]


def test_gaps_are_filled_before_the_end_grows() -> None:
    memory = expandable()
    blocks = [memory.allocate(20 * MIB) for _ in range(3)]
    memory.free(blocks[1])
    memory.empty_cache()
    assert memory.allocate(18 * MIB).address == blocks[1].address
    assert memory.reserved_bytes == 60 * MIB


def test_a_gap_that_is_too_small_is_passed_over() -> None:
    memory = expandable()
    blocks = [memory.allocate(20 * MIB) for _ in range(3)]
    memory.free(blocks[1])
    memory.empty_cache()
    assert memory.allocate(21 * MIB).address == blocks[2].address + 20 * MIB
    assert memory.reserved_bytes == 80 * MIB


def test_mapped_ranges_on_both_sides_of_a_gap_join() -> None:
    memory = expandable()
    blocks = [memory.allocate(10 * MIB) for _ in range(6)]  # three pages
    for block in blocks[1:5]:  # free: 10 to 50 MiB; 20 to 40 is unmapped
        memory.free(block)
    memory.empty_cache()
    assert memory.reserved_bytes == 40 * MIB
    assert len(memory.segments()) == 2  # one for each mapped range, as torch shows them
    block = memory.allocate(40 * MIB)
    assert block.address == blocks[1].address
    assert memory.reserved_bytes == memory.allocated_bytes == 60 * MIB


def test_the_end_of_a_segment_is_used_last() -> None:
    """A block in front of unmapped addresses counts as large as it can grow."""
    memory = expandable()
    front, *_ = [memory.allocate(size * MIB) for size in (14, 6, 8)]  # of 40: 12 are left
    memory.free(front)
    # Of 12 MiB at the end and 14 in front, 11 MiB would fit the 12 best.
    assert memory.allocate(11 * MIB).address == front.address


def test_fragmentation_that_expandable_segments_avoid() -> None:
    """The same requests: 41 MiB are too little with segments of 20 MiB, enough with pages."""
    sizes = [9 * MIB, 9 * MIB, 9 * MIB, 9 * MIB, 4 * MIB]
    plain = CachingAllocator(capacity_bytes=41 * MIB)
    grows = expandable(41 * MIB)
    for size in sizes[:-1]:
        plain.allocate(size)
        grows.allocate(size)
    with pytest.raises(OutOfDeviceMemory):
        plain.allocate(sizes[-1])
    grows.allocate(sizes[-1])
    assert grows.allocated_bytes == grows.reserved_bytes == 40 * MIB


def test_full_device_gives_unused_pages_of_other_streams_back() -> None:
    memory = expandable(60 * MIB)
    memory.free(memory.allocate(35 * MIB, stream=1))
    memory.allocate(35 * MIB, stream=0)
    assert memory.reserved_bytes == 40 * MIB
    assert memory.retry_count == 1


def test_out_of_memory_keeps_what_is_there() -> None:
    memory = expandable(100 * MIB)
    memory.allocate(30 * MIB)
    with pytest.raises(OutOfDeviceMemory) as caught:
        memory.allocate(80 * MIB)
    assert caught.value.reserved_bytes == memory.reserved_bytes == 40 * MIB
    assert caught.value.largest_free_block_bytes == 10 * MIB
    with pytest.raises(OutOfDeviceMemory):
        memory.allocate(200 * MIB)  # more than the addresses of a segment
    memory.allocate(70 * MIB)
    assert memory.allocated_bytes == memory.reserved_bytes == 100 * MIB


def test_pages_of_the_last_partial_step_need_room() -> None:
    """80 of 95 MiB are mapped and 10 more would do, but a page is 20 MiB."""
    memory = expandable(95 * MIB)
    memory.allocate(80 * MIB)
    with pytest.raises(OutOfDeviceMemory):
        memory.allocate(10 * MIB)
