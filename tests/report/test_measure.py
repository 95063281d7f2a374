"""What was measured, as text: every width."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from memfit.cards.catalogue import gpu
from memfit.measure.compare import Comparison, Difference, Figure
from memfit.measure.records import Limit, Measurement, Record
from memfit.measure.session import Outcome, Tally
from memfit.measure.target import Target, choose_target
from memfit.report.console.terminal import as_text
from memfit.report.measure import outcome_line, render_outcomes, render_tally
from memfit.units import GIB, MIB

TARGET = Target("cuda", gpu("rtx-3060"))
RECORD = Record("resnet50", "resnet", TARGET.facts(), {}, {"model": "torchvision:resnet50"})
MEASURED = Measurement(
    64, "ok", "", 5 * GIB, 6 * GIB, 5 * GIB, 6 * GIB, 100 * MIB, 200 * MIB, 6 * GIB + 200 * MIB,
    step_seconds=0.1234, retries=2,
    workspaces=({"operator": "aten.convolution.default", "size_bytes": MIB, "is_held": True},),
)  # fmt: skip
FOUND = Comparison(
    64,
    (Figure("peak allocated", 4 * GIB, 5 * GIB), Figure("whole GPU", 7 * GIB, 6 * GIB)),
    (Figure("activations", 3 * GIB, 3 * GIB), Figure("workspaces", MIB, 0)),
    tuple(
        Difference("aten.convolution.default", f"layer{n}.0.conv1", "forward", 0, 0, MIB, n)
        for n in range(1, 12)
    ),
    (Difference("", "", "optimizer", 2 * MIB, 1, 0, 0),),
)


def text_of(width: int) -> str:
    outcome = Outcome(RECORD, MEASURED, FOUND)
    limit = Outcome(RECORD, MEASURED, None, Limit(70, ((64, "ok"), (71, "out_of_memory"))), 72)
    console = Console(width=width, highlight=False, color_system=None)
    return as_text(console, render_outcomes(TARGET, [outcome, limit], Path("r.json"), console))


def test_totals_parts_and_differences_are_there() -> None:
    text = " ".join(text_of(100).split())
    assert "-20.00 %" in text
    assert "+16.67 %" in text
    assert "123.4 ms a step" in text
    assert "cached memory released 2 times" in text
    assert "and 3 smaller ones" in text
    assert "layer1.0.conv1" in text
    assert "outside of operators" in text
    assert "Largest micro-batch that ran: 70; predicted 72" in text
    assert "harness" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, text_of(width).splitlines())) <= width


def test_the_cpu_is_never_taken_for_a_gpu() -> None:
    target = choose_target("cpu:2GiB")
    console = Console(width=100, color_system=None)
    text = as_text(console, render_tally(target, Tally(), Path("records"), console))
    assert "no GPU" in text
    assert "no figure here is one's" in text


def test_a_suite_says_what_is_left_and_what_counts_for_nothing() -> None:
    beside = replace(MEASURED, others=("game (pid 9)",))
    failed = Measurement(128, "crashed", "exit code -11")
    outcomes = [Outcome(RECORD, beside, FOUND), Outcome(RECORD, failed, note="exit code -11")]
    tally = Tally(outcomes, kept=3, left=5, skipped={Path("a.json"): "measured with torch 2.0"})
    console = Console(width=120, color_system=None)
    text = as_text(console, render_tally(TARGET, tally, Path("records"), console))
    for words in ("crashed", "3 kept", "5 left", "game (pid 9)", "torch 2.0; --force", "-20.00 %"):
        assert words in text


def test_a_line_of_progress() -> None:
    line = outcome_line(Outcome(RECORD, MEASURED, FOUND))
    assert line == "resnet50, micro-batch 64: ran, 5.00 GiB allocated (plan -20.00 %)"
    failed = Outcome(RECORD, Measurement(8, "timed_out"))
    assert outcome_line(failed) == "resnet50, micro-batch 8: timed out"
