"""``pace.jsonl``: what a run took of time and memory, which never decides anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import Crash, Watcher, assert_same, crash, recipe, state_of, stop_at

from memfit.cards.catalogue import gpu
from memfit.files.metrics_file import MetricsFile
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.trainer.run.pace import PaceLog
from memfit.trainer.run.run import train
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.step.devices import RunDevice

MIB = 1 << 20


def pace(path: Path) -> list[dict[str, Any]]:
    return RunFolder.open(path).pace.read()


def steps(rows: list[dict[str, Any]]) -> list[int]:
    return [row["step"] for row in rows if row["event"] == "step"]


def test_a_line_for_each_step_of_the_metrics(tmp_path: Path) -> None:
    watcher = Watcher()
    run = train(recipe(), runs=tmp_path, name="run", memory_bytes=64 * MIB, listener=watcher)
    start, *rows = pace(run.path)
    assert start == {
        "step": 0, "event": "start", "total_steps": 8, "device": "CPU under a virtual budget",
        "limit_bytes": 64 * MIB,
    }  # fmt: skip
    metrics = RunFolder.open(run.path).metrics.read()
    assert steps(rows) == steps(metrics) == list(range(1, 9))
    assert [row["samples"] for row in rows] == [24 * step for step in range(1, 9)]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0
    assert watcher.beginning is not None
    planned = watcher.beginning.plan.at(24).peak_reserved_bytes
    assert {row["planned_bytes"] for row in rows} == {planned}
    assert run.summary.measured is not None
    assert max(row["reserved_bytes"] for row in rows) <= run.summary.measured.reserved_bytes
    assert all(0 < row["reserved_bytes"] <= 64 * MIB for row in rows)


def test_nobody_counts_on_a_plain_cpu(tmp_path: Path) -> None:
    start, *rows = pace(train(recipe(steps=2), runs=tmp_path, name="run").path)
    assert (start["device"], start["limit_bytes"]) == ("CPU", None)
    assert [row["reserved_bytes"] for row in rows] == [None, None]


def test_reserved_is_the_budgets_at_that_moment(tmp_path: Path) -> None:
    seen: list[int | None] = []

    class Reading(Watcher):
        def took_step(self, result: Any, used_bytes: int | None) -> None:
            seen.append(used_bytes)

    run = train(
        recipe(), runs=tmp_path, name="run", memory_bytes=64 * MIB, listener=Reading()
    )  # fmt: skip
    assert [row["reserved_bytes"] for row in pace(run.path)[1:]] == seen


def test_a_resumed_run_adds_to_it_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    stop_at(3, recipe(), tmp_path, "run")
    path = tmp_path / "run"
    with (path / "pace.jsonl").open("a") as file:
        file.write('{"step": 4, "ev')  # killed in the middle of a line
    train(resume=path)
    rows = pace(path)
    assert [(row["step"], row["event"]) for row in rows if row["event"] == "start"] == [
        (0, "start"), (3, "start"),
    ]  # fmt: skip
    assert steps(rows) == list(range(1, 9))
    assert rows[-1]["samples"] == 5 * 24  # of this process
    assert_same(state_of(path), state_of(train(recipe(), runs=tmp_path, name="other").path))


def test_steps_that_are_made_again_stand_twice(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        train(recipe(), runs=tmp_path, name="run", listener=Watcher(6, crash))
    train(resume=tmp_path / "run")
    assert steps(pace(tmp_path / "run")) == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]
    metrics = RunFolder.open(tmp_path / "run").metrics.read()
    assert steps(metrics) == list(range(1, 9))


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    stop_at(2, recipe(), tmp_path, "run")
    path = tmp_path / "run"
    (path / "pace.jsonl").unlink()
    (path / "pace.jsonl").mkdir()
    assert train(resume=path).status == "finished"
    assert_same(state_of(path), state_of(train(recipe(), runs=tmp_path, name="other").path))


def test_a_damaged_file_is_no_reason_either(tmp_path: Path) -> None:
    stop_at(2, recipe(), tmp_path, "run")
    path = tmp_path / "run"
    (path / "pace.jsonl").write_bytes(b"\xff\n[1]\n{}\n")
    assert train(resume=path).status == "finished"
    assert (path / "pace.jsonl").read_bytes().startswith(b"\xff\n[1]\n{}\n{")


def test_the_limit_is_what_pytorch_may_reserve(tmp_path: Path) -> None:
    import torch

    card = gpu("rtx-3060")
    places = {
        "whole": RunDevice(torch.device("cuda"), card),
        "share": RunDevice(torch.device("cuda"), card.with_free_bytes(4 << 30), 4 << 30),
        "budget": RunDevice(torch.device("cpu"), None, MIB, CpuBudget(MIB)),
    }
    found = {}
    for name, place in places.items():
        file = MetricsFile(tmp_path / name)
        PaceLog(file, None, place).start(0, 8)  # type: ignore[arg-type]  # no step is written
        found[name] = json.loads(file.path.read_text())["limit_bytes"]
    assert found == {
        "whole": card.usable_bytes - card.context_bytes, "share": 4 << 30, "budget": MIB,
    }  # fmt: skip
