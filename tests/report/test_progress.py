"""What the reporters say of a run."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from memfit.planner.plan import Plan
from memfit.planner.planning import plan
from memfit.report.training.progress import (
    BarReporter,
    JsonReporter,
    LineReporter,
    describe_event,
    epoch_line,
    opening_lines,
)
from memfit.trainer.recovery.transaction import MicroBatchEvent
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult

FOUND = Evaluation(0.25, 0.75, ((3, 1), (1, 3)), ("a", "b"))
SHRUNK = MicroBatchEvent(6, "backward", 32, 16, "no room")
GROWN = MicroBatchEvent(9, "growth", 16, 32)


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan("mlp", input_shape=(1, 8, 8), data=None, verify=False)


def beginning(made: Plan, **changes: Any) -> Beginning:
    values: dict[str, Any] = {
        "run": Path("runs/x"), "plan": made, "device": "CPU", "step": 0, "total_steps": 1000,
        "steps_per_epoch": 2, "global_batch": 64, "micro_batch": 32, "world_size": 1,
        "learning_rate": 0.1, "memory_bytes": None,
    }  # fmt: skip
    return Beginning(**(values | changes))


def tell(reporter: Listener, made: Plan) -> None:
    """A short run with everything that can happen."""
    reporter.began(beginning(made))
    reporter.note("Something to know.")
    for step in (1, 2):
        reporter.took_step(StepResult(step, 0.5 * step, 0.1, 64, 32), 1 << 20)
    reporter.changed_micro_batch(SHRUNK)
    reporter.finished_epoch(2, 1, FOUND, True)
    reporter.saved(Path("runs/x/checkpoints/step-00000002.pt"))
    reporter.took_step(StepResult(3, 0.25, 0.1, 64, 16), None)
    reporter.finished_epoch(3, 2, None, False)
    reporter.ended()


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ({}, "batch 64 = 2 × micro-batch 32,"),
        ({"micro_batch": 64}, "batch 64, "),
        ({"micro_batch": 22}, "batch 64 = 3 × micro-batch 22,"),
        ({"world_size": 2}, "batch 64 on 2 processes,"),
        ({"world_size": 2, "micro_batch": 8}, "batch 64 = 4 × micro-batch 8 on 2 processes,"),
    ],
)
def test_the_opening(changes: dict[str, Any], batch: str, made: Plan) -> None:
    lines = opening_lines(beginning(made, **changes))
    assert len(lines) == 3
    assert lines[1].startswith(batch)
    assert lines[1].endswith("learning rate 0.1, 1,000 steps")
    assert opening_lines(beginning(made, step=1500))[-1] == "resumed after step 1,500"


def test_events_in_a_sentence() -> None:
    assert describe_event(SHRUNK) == (
        "step 7: out of memory in backward, micro-batch 32 → 16, same samples again"
    )
    assert describe_event(GROWN) == "step 10: memory has sufficed for a while, micro-batch 16 → 32"


def test_an_epoch_in_a_line() -> None:
    line = epoch_line(1200, 3, [0.5, 1.5], FOUND, 2100.4, True)
    assert line == (
        "epoch   3  step  1,200  train loss 1.0000  test loss 0.2500  accuracy 75.00%  "
        "2,100 samples/s  best"
    )
    assert epoch_line(5, 1, [], FOUND, 0, False).endswith("accuracy 75.00%"), "resumed at its end"
    assert epoch_line(5, 1, [0.5], None, 9, False) == (
        "epoch   1  step      5  train loss 0.5000  9 samples/s"
    )


def test_lines(made: Plan) -> None:
    stream = io.StringIO()
    tell(LineReporter(stream), made)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3 + 1 + 1 + 2
    assert lines[3] == "Something to know."
    assert lines[4] == describe_event(SHRUNK)
    assert "train loss 0.7500" in lines[5], "the mean over the epoch"
    assert "train loss 0.2500" in lines[6]


def test_json(made: Plan) -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    tell(reporter, made)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "began", "note", "step", "step", "micro-batch", "evaluation", "checkpoint", "step",
    ]  # fmt: skip
    assert lines[2] == {
        "event": "step", "step": 1, "loss": 0.5, "learning_rate": 0.1, "samples": 64,
        "micro_batch": 32, "reserved_bytes": 1 << 20,
    }  # fmt: skip
    assert lines[5] == {
        "event": "evaluation", "step": 2, "epoch": 1, "split": "test", "loss": 0.25,
        "accuracy": 0.75, "is_best": True,
    }  # fmt: skip


def test_json_knows_no_nan(made: Plan) -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    worst = Evaluation(math.inf, 0.0, FOUND.confusion, FOUND.classes)
    reporter.finished_epoch(1, 1, worst, False)
    assert json.loads(stream.getvalue())["loss"] is None


def bars() -> tuple[BarReporter, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, legacy_windows=False)
    return BarReporter(console), stream


def test_bars(made: Plan) -> None:
    reporter, stream = bars()
    tell(reporter, made)
    text = stream.getvalue()
    assert "epoch 2" in text
    assert "3/1000" in text
    assert "loss 0.250" in text
    assert "samples/s" in text
    assert describe_event(SHRUNK) in text
    assert "accuracy 75.00%" in text
    reporter.ended()  # again, after an error


def test_bars_show_memory_against_the_plan(made: Plan) -> None:
    reporter, stream = bars()
    reporter.began(beginning(made))
    reporter.took_step(StepResult(1, 0.5, 0.1, 64, 32), 1 << 20)
    reporter.ended()
    planned = made.at(32).peak_reserved_bytes / 2**20
    assert f"1.0 MiB of {planned:.1f} MiB planned" in stream.getvalue()


@pytest.mark.parametrize("kind", [LineReporter, JsonReporter])
def test_a_reader_that_went_away(kind: Any, made: Plan) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        tell(kind(stream), made)
