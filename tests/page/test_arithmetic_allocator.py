"""The page's caching allocator against the one of the command: every block, every failure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import js_page
from js_plans import page_settings

from memfit.memory.allocator.allocator import (
    AllocatorSettings,
    Block,
    CachingAllocator,
    OutOfDeviceMemory,
)

MIB = 1024**2
InPage = Callable[..., Any]

Operation = tuple[str, int, int, int]  # allocate, free or empty; number; bytes; stream

in_page = js_page.in_page

RUN_ALLOCATOR = """
async (runs, use) => {
  const { CachingAllocator, OutOfDeviceMemory } = await use("memfit/engine/allocator");
  const play = ({ settings, capacity, total, operations }) => {
    const memory = new CachingAllocator(settings, capacity, total);
    const live = new Map();
    const figures = operations.map(([what, number, size, stream]) => {
      let outcome = 0;
      try {
        if (what === "a") {
          const block = memory.allocate(size, stream);
          live.set(number, block);
          outcome = block.address;
        } else if (what === "e") {
          memory.emptyCache();
        } else if (live.has(number)) {
          memory.free(live.get(number));
          live.delete(number);
        }
      } catch (error) {
        if (!(error instanceof OutOfDeviceMemory)) throw error;
        outcome = Object.values(error.facts);
      }
      return [outcome, memory.allocatedBytes, memory.reservedBytes];
    });
    const { requestedBytes, peakAllocatedBytes, peakReservedBytes, retryCount } = memory;
    const sums = [requestedBytes, peakAllocatedBytes, peakReservedBytes, retryCount];
    return { figures, sums };
  };
  return runs.map(play);
}
"""


def random_settings(draw: random.Random) -> AllocatorSettings:
    pick = draw.choice
    return AllocatorSettings(
        expandable_segments=pick([False, True]),
        max_split_size_bytes=pick([None, None, 32 * MIB, 64 * MIB]),
        roundup_power2_divisions=pick([0, 0, 1, 4, 8, ((1, 8), (2, 2), (8, 1), (None, 4))]),
        garbage_collection_threshold=pick([0.0, 0.3, 0.6]),
        large_segment_size_bytes=pick([20 * MIB, 20 * MIB, 32 * MIB]),
        per_process_memory_fraction=pick([1.0, 0.7, 0.9]),
        max_non_split_rounding_bytes=pick([None, 40 * MIB]),
    )


def random_operations(draw: random.Random, count: int) -> Iterator[Operation]:
    live: list[int] = []
    for number in range(count):
        chance = draw.random()
        if chance < 0.01:
            yield "e", 0, 0, 0
        elif live and chance < (0.35 if number // 60 % 2 == 0 else 0.62):
            yield "f", live.pop(draw.randrange(len(live))), 0, 0
        else:
            live.append(number)
            size = draw.choice([0, draw.randrange(1, 3000), int(2 ** draw.uniform(9, 26.5))])
            yield "a", number, size, draw.choice([0, 0, 0, 7])


@dataclass(frozen=True)
class AllocatorRun:
    settings: AllocatorSettings
    capacity: int | None
    total: int | None
    operations: list[Operation]

    @classmethod
    def drawn(cls, seed: int) -> AllocatorRun:
        draw = random.Random(seed)
        capacity = draw.choice([None, 40 * MIB, 150 * MIB, 300 * MIB + 4096, 700 * MIB])
        total = draw.choice([None, (capacity or 500 * MIB) + 20 * MIB])
        return cls(random_settings(draw), capacity, total, list(random_operations(draw, 260)))

    def for_page(self) -> dict[str, Any]:
        return {
            "settings": page_settings(self.settings),
            "capacity": self.capacity,
            "total": self.total,
            "operations": self.operations,
        }

    def play(self) -> dict[str, Any]:
        memory = CachingAllocator(self.settings, self.capacity, self.total)
        live: dict[int, Block] = {}
        figures: list[list[Any]] = []
        for what, number, size, stream in self.operations:
            outcome: Any = 0
            try:
                if what == "a":
                    live[number] = memory.allocate(size, stream)
                    outcome = live[number].address
                elif what == "e":
                    memory.empty_cache()
                elif number in live:
                    memory.free(live.pop(number))
            except OutOfDeviceMemory as error:
                outcome = list(vars(error).values())
            figures.append([outcome, memory.allocated_bytes, memory.reserved_bytes])
        sums = [memory.requested_bytes, memory.peak_allocated_bytes, memory.peak_reserved_bytes]
        return {"figures": figures, "sums": [*sums, memory.retry_count]}


def test_every_block_is_where_the_command_puts_it(in_page: InPage) -> None:
    runs = [AllocatorRun.drawn(seed) for seed in range(400)]
    expected = [run.play() for run in runs]
    found = in_page(RUN_ALLOCATOR, [run.for_page() for run in runs])
    for run, ours, theirs in zip(runs, expected, found, strict=True):
        assert theirs == ours, run.settings
    failures = sum(isinstance(row[0], list) for run in expected for row in run["figures"])
    retries = sum(run["sums"][3] for run in expected)
    assert failures > 500  # the runs do what is being compared
    assert retries > failures


def test_as_counted_by_hand(in_page: InPage) -> None:
    """``tests/engine/allocator.json``: the cases of ``tests/memory/test_allocator.py``."""
    cases = json.loads((Path(__file__).parents[1] / "engine" / "allocator.json").read_text())
    letters = {"allocate": "a", "free": "f", "empty": "e"}
    runs = [
        AllocatorRun(
            AllocatorSettings.parse(case["conf"]),
            case["capacity_bytes"],
            case["device_total_bytes"],
            [
                (letters[what], *values, *[0] * (3 - len(values)))
                for what, *values in case["events"]
            ],
        )
        for case in cases
    ]
    played = in_page(RUN_ALLOCATOR, [run.for_page() for run in runs])
    for case, found in zip(cases, played, strict=True):
        after = [
            dict(zip(after, outcome, strict=True)) if isinstance(after, dict) else figures
            for after, (outcome, *figures) in zip(case["after"], found["figures"], strict=True)
        ]
        assert after == case["after"], case["name"]
        assert found["sums"][3] == case["retries"], case["name"]
