"""What PyTorch's own allocator did on fixed sequences of requests.

Recorded by calling ``raw_alloc_with_stream``, ``raw_delete`` and ``emptyCache`` of
``libc10_cuda.so`` from the wheels torch 2.15.0+cu132 and 2.11.0+cu130, which gave the same
figures. CUDA itself was replaced by a library that counts bytes: ``cudaMalloc`` and
``cuMemCreate`` succeed while the sum stays within `CAPACITY_BYTES`, addresses ascend, and
``cudaMemGetInfo`` reports `DEVICE_TOTAL_BYTES`. So the rules are those of the shipped binary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

MIB = 1024**2
CAPACITY_BYTES = 300 * MIB
DEVICE_TOTAL_BYTES = 320 * MIB
STREAMS = (0, 7)

SIZES_BYTES = (
    *(4, 256, 2048, 6000, 70_000, 300_000, 700_001, MIB - 1, MIB, MIB + 1, 2_398_310, 3 * MIB),
    *(5 * MIB + 77, 9 * MIB, 10 * MIB - 512, 10 * MIB, 11 * MIB, 12 * MIB + 5, 17 * MIB),
    *(21 * MIB, 31 * MIB + 1, 40 * MIB, 66 * MIB, 90 * MIB, 128 * MIB),
)

Operation = tuple[str, int, int, int]  # what, number of the allocation, bytes, stream


class RecordedRun(NamedTuple):
    """Figures after 2,000 operations, and a checksum over (allocated, reserved) after each."""

    conf: str
    allocated_bytes: int
    reserved_bytes: int
    requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    retries: int
    failures: int
    checksum: int


def operations(seed: int = 1, count: int = 2000) -> Iterator[Operation]:
    """``("a", n, size, stream)`` allocates, ``("f", n, 0, 0)`` frees, ``("e", ...)`` empties."""
    state = seed
    live: list[int] = []
    for number in range(count):
        draws = []
        for _ in range(3):  # Numerical Recipes' generator: the same on every Python
            state = (state * 1664525 + 1013904223) % 2**32
            draws.append(state >> 8)
        growing = number // 100 % 2 == 0
        if draws[0] % 97 == 0:
            yield "e", 0, 0, 0
        elif live and draws[0] % 100 < (35 if growing else 60):
            yield "f", live.pop(draws[1] % len(live)), 0, 0
        else:
            stream = STREAMS[draws[2] // 4096 % 8 == 0]
            live.append(number)
            yield "a", number, SIZES_BYTES[draws[1] // 64 % len(SIZES_BYTES)], stream


def checksum(figures: list[tuple[int, int]]) -> int:
    """Of (allocated, reserved) after each operation; a free of a failed request is none."""
    return zlib.crc32("".join(f"{a},{r}\n" for a, r in figures).encode())


RECORDED_RUNS = (
    RecordedRun(
        "",
        211_108_864,
        299_892_736,
        207_954_452,
        312_548_864,
        314_572_800,
        310,
        302,
        313_117_565,
    ),
    RecordedRun(
        "max_split_size_mb:20",
        227_581_952,
        268_435_456,
        222_633_927,
        312_548_864,
        314_572_800,
        385,
        363,
        2_072_396_666,
    ),
    RecordedRun(
        "max_split_size_mb:32",
        272_973_312,
        308_281_344,
        270_868_429,
        312_548_864,
        314_572_800,
        366,
        347,
        1_054_183_146,
    ),
    RecordedRun(
        "max_split_size_mb:64,max_non_split_rounding_mb:40",
        236_117_504,
        291_504_128,
        233_119_770,
        312_548_864,
        314_572_800,
        353,
        337,
        3_657_970_003,
    ),
    RecordedRun(
        "roundup_power2_divisions:4",
        256_478_208,
        312_475_648,
        238_362_645,
        306_269_184,
        314_572_800,
        324,
        316,
        3_592_387_928,
    ),
    RecordedRun(
        "roundup_power2_divisions:[1:8,2:2,8:1,>:4]",
        216_951_296,
        289_406_976,
        201_662_407,
        309_029_888,
        314_572_800,
        333,
        325,
        112_935_433,
    ),
    RecordedRun(
        "large_segment_size_mb:32",
        226_534_400,
        314_572_800,
        223_682_073,
        312_548_864,
        314_572_800,
        316,
        306,
        1_692_582_754,
    ),
    RecordedRun(
        "large_segment_size_mb:64,max_split_size_mb:80",
        250_351_616,
        291_504_128,
        249_896_908,
        312_548_864,
        314_572_800,
        359,
        349,
        2_964_512_075,
    ),
    RecordedRun(
        "per_process_memory_fraction:0.7",
        188_183_040,
        234_881_024,
        184_885_270,
        232_857_088,
        234_881_024,
        376,
        368,
        1_335_518_668,
    ),
    RecordedRun(
        "garbage_collection_threshold:0.5,per_process_memory_fraction:0.8",
        230_125_568,
        268_435_456,
        226_828_743,
        260_932_096,
        268_435_456,
        347,
        347,
        273_047_245,
    ),
    RecordedRun(
        "garbage_collection_threshold:0.3,per_process_memory_fraction:0.9,max_split_size_mb:32",
        221_291_520,
        266_338_304,
        217_391_559,
        299_965_952,
        301_989_888,
        340,
        339,
        2_767_896_801,
    ),
    RecordedRun(
        "garbage_collection_threshold:0.3",
        211_108_864,
        299_892_736,
        207_954_452,
        312_548_864,
        314_572_800,
        310,
        302,
        313_117_565,
    ),
    RecordedRun(
        "expandable_segments:True",
        233_128_960,
        270_532_608,
        233_120_281,
        290_372_096,
        314_572_800,
        339,
        328,
        1_056_436_378,
    ),
    RecordedRun(
        "expandable_segments:True,large_segment_size_mb:32",
        242_565_120,
        285_212_672,
        242_556_872,
        303_117_312,
        314_572_800,
        332,
        324,
        1_949_374_556,
    ),
    RecordedRun(
        "expandable_segments:True,roundup_power2_divisions:4,max_split_size_mb:32",
        273_779_712,
        312_475_648,
        260_382_746,
        291_784_704,
        314_572_800,
        333,
        321,
        2_837_494_488,
    ),
    RecordedRun(
        "expandable_segments:True,garbage_collection_threshold:0.5,per_process_memory_fraction:0.8",
        228_934_656,
        268_435_456,
        228_925_468,
        267_464_704,
        278_921_216,
        355,
        344,
        891_646_016,
    ),
)
