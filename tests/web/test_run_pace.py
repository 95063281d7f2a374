"""The pace of a run as curves: by hand, and for any history of processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.files.metrics_file import MetricsFile
from memfit.page.documents.run_pace import pace_of

Line = dict[str, Any]


def start(step: int, limit: int | None = 100) -> Line:
    return {
        "step": step, "event": "start", "total_steps": 9, "device": "a card", "limit_bytes": limit,
    }  # fmt: skip


def row(step: int, seconds: float, samples: int, reserved: int | None = 40) -> Line:
    return {
        "step": step, "event": "step", "seconds": seconds, "samples": samples,
        "reserved_bytes": reserved, "planned_bytes": 50,
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> MetricsFile:
    return MetricsFile(tmp_path / "pace.jsonl")


def write(file: MetricsFile, *lines: Line) -> MetricsFile:
    for line in lines:
        file.append(line)
    return file


def test_nothing_of_nothing(file: MetricsFile) -> None:
    assert pace_of(file) is None


DAMAGED = [
    "[1]\n", '{"step": 1}\n', '{"event": "start"}\n', "\xff\n",
    '{"event": "start", "step": "x"}\n{"event": "step"}\n',
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_hides_nothing_else(file: MetricsFile, text: str) -> None:
    file.path.write_text(text, encoding="latin-1")
    assert pace_of(file) is None


def test_a_run_by_hand(file: MetricsFile) -> None:
    found = pace_of(write(file, start(0), row(1, 2.0, 64, 30), row(2, 2.5, 128), row(3, 4.5, 192)))
    assert found == {
        "total_steps": 9, "device": "a card", "limit_bytes": 100,
        "memory": [[1, 30, 50], [2, 40, 50], [3, 40, 50]],
        "speed": [[1, 32.0], [2, 128.0], [3, 32.0]],
    }  # fmt: skip


def test_each_process_has_a_clock_of_its_own(file: MetricsFile) -> None:
    write(file, start(0, 200), row(1, 1.0, 10), row(2, 2.0, 20), row(3, 3.0, 30))
    write(file, start(2), row(3, 0.5, 10), row(4, 4.5, 20))  # from a checkpoint after step 2
    found = pace_of(file)
    assert found is not None
    assert found["limit_bytes"] == 100
    assert [step for step, *_ in found["memory"]] == [1, 2, 3, 4]
    assert found["speed"] == [[1, 10.0], [2, 10.0], [3, 20.0], [4, 2.5]]


def test_steps_made_again_by_the_same_process_replace_the_old_ones(file: MetricsFile) -> None:
    write(file, start(0), row(1, 1.0, 10, 11), row(2, 2.0, 20, 12), row(3, 3.0, 30, 13))
    found = pace_of(write(file, row(2, 4.0, 40, 22), row(3, 5.0, 50, 23)))
    assert found is not None
    assert found["memory"] == [[1, 11, 50], [2, 22, 50], [3, 23, 50]]


def test_uncounted_memory_keeps_the_plan(file: MetricsFile) -> None:
    found = pace_of(write(file, start(0, None), row(1, 1.0, 10, None)))
    assert found is not None
    assert (found["limit_bytes"], found["memory"]) == (None, [[1, None, 50]])


def test_a_long_run_is_thinned_but_keeps_its_peak(file: MetricsFile) -> None:
    lines = [row(k, k / 10, 64 * k, 999 if k == 3333 else 40) for k in range(1, 5001)]
    file.path.write_text("".join(json.dumps(line) + "\n" for line in [start(0), *lines]))
    found = pace_of(file)
    assert found is not None
    assert len(found["memory"]) <= 400
    assert [3333, 999, 50] in found["memory"]
    assert len(found["speed"]) == 100
    assert {speed for _, speed in found["speed"]} == {640.0}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=1, max_size=6))
def test_whatever_was_killed_steps_only_grow(
    tmp_path_factory: pytest.TempPathFactory, processes: list[tuple[int, int]]
) -> None:
    file = MetricsFile(tmp_path_factory.mktemp("pace") / "pace.jsonl")
    last = 0
    for back, count in processes:
        first = max(0, last - back)
        write(file, start(first))
        write(file, *(row(first + k, k / 2, 8 * k) for k in range(1, count + 1)))
        last = first + count
    found = pace_of(file)
    assert found is not None
    assert [step for step, *_ in found["memory"]] == list(range(1, last + 1))
    assert all(speed == 16 for _, speed in found["speed"])
