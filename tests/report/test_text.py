"""Plans as text: golden outputs, column sums, and every terminal one meets."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sample_plan
from rich.console import Console
from sample_plan import CARDS, OPTIONS, PARTS, fitting, sample, too_large

from memfit.planner.largest import BatchLimits
from memfit.planner.result import PlanResult
from memfit.report.console.terminal import ASCII, as_text
from memfit.report.plan.charts import ChartMark, memory_chart
from memfit.report.plan.text import render_plan
from memfit.units import GIB

CASES: dict[str, tuple[PlanResult, dict[str, Any]]] = {
    "fits": (sample(batch_size=64, accumulation=4, base_lr=0.1), {"verdict": fitting()}),
    "largest": (sample(), {"verdict": replace(fitting(1), is_asked=False), "options": None}),
    "too_large": (sample(batch_size=512), {"verdict": too_large()}),
    "no_card": (sample(None, batch_size=64), {"verdict": None, "cards": CARDS, "options": None}),
}


def reported(plan: PlanResult, **findings: Any) -> PlanResult:
    found: dict[str, Any] = {"curve": sample_plan.curve(), "options": OPTIONS}
    return replace(plan, **(found | findings))


def printed(plan: PlanResult, *, width: int = 80, encoding: str = "utf-8", **findings: Any) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, highlight=False, markup=False)
    return as_text(console, render_plan(reported(plan, **findings), console))


def columns(output: str) -> list[int]:
    """Exact bytes of the table's rows, the total last; shown from 100 columns on."""
    return [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) +[\d.]+ %", output)]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("case", CASES)
def test_golden(check_golden: Callable[[str, str], None], case: str, width: int) -> None:
    plan, findings = CASES[case]
    check_golden(f"plan_{case}_{width}", printed(plan, width=width, **findings))


@pytest.mark.parametrize("width", [40, 60, 79, 80, 99, 100, 120, 200])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_terminal(case: str, width: int) -> None:
    plan, findings = CASES[case]
    for line in printed(plan, width=width, **findings).splitlines():
        assert len(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize("case", CASES)
def test_ascii_marks_only_where_the_encoding_has_no_others(case: str) -> None:
    plan, findings = CASES[case]
    assert printed(plan, encoding="ascii", **findings).isascii()


def test_the_rows_add_up_to_the_total() -> None:
    *sizes, total = columns(printed(sample(batch_size=64), width=120, verdict=fitting()))
    assert sizes == list(PARTS.values())
    assert sum(sizes) == total


def test_the_shares_add_up_to_one_hundred() -> None:
    output = printed(sample(batch_size=64), verdict=fitting())
    *shares, total = (float(share) for share in re.findall(r"iB +([\d.]+) %", output))
    assert total == 100.0
    assert round(sum(shares), 1) == 100.0
    assert len(shares) == len(PARTS)


def test_the_verdict_comes_first() -> None:
    output = printed(sample(batch_size=512), verdict=too_large())
    order = ("does not fit", "Where the bytes go", "Peak", "Memory against", "Ways to", "Assum")
    places = [output.index(words) for words in order]
    assert places == sorted(places)


def test_what_would_make_it_fit_is_named() -> None:
    output = " ".join(printed(sample(batch_size=512), verdict=too_large()).split())
    assert "14.01 GiB more than the card has" in output
    assert (
        "--gradient-checkpointing, or --batch-size 32 --accumulation 2, or --gpu rtx-9900" in output
    )


def test_nothing_helps() -> None:
    verdict = replace(too_large(), remedies=(), larger_card=None, is_asked=False)
    output = " ".join(printed(sample(), verdict=verdict).split())
    assert "not even a micro-batch of 1" in output
    assert "No single change makes it fit" in output


def test_fragments_are_told_from_a_lack_of_memory() -> None:
    verdict = replace(too_large(), missing_bytes=0)
    assert "pieces that are too small" in printed(
        sample(batch_size=512), verdict=verdict, width=120
    )


def test_a_tight_fit_is_said() -> None:
    output = printed(sample(batch_size=64), verdict=fitting(missing_bytes=GIB))
    assert "fits, barely" in output


def test_what_needs_releases_but_runs_with_less_is_not_tight() -> None:
    verdict = replace(fitting(missing_bytes=GIB), is_tight=False)
    output = " ".join(printed(sample(batch_size=64), verdict=verdict).split())
    assert "Micro-batch 64 fits: without a limit it would take" in output


def test_operators_that_were_not_counted_are_listed() -> None:
    plan = sample(batch_size=64, unsupported={"mylib.mystery.default": "has no rule"})
    output = printed(plan, verdict=fitting())
    assert "Incomplete" in output
    assert "mylib.mystery.default: has no rule" in output


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    plan, findings = CASES["fits"]
    found = reported(plan, **findings)

    def codes(**settings: Any) -> set[str]:
        console = Console(file=io.StringIO(), width=80, **settings)
        return set(re.findall(r"\x1b\[[\d;]*m", as_text(console, render_plan(found, console))))

    assert codes() == set()
    assert any("3" in code for code in codes(force_terminal=True, color_system="standard"))
    monkeypatch.setenv("TERM", "dumb")
    assert codes(force_terminal=True) == set()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any(re.search(r"[\[;](3|9)[0-7]", code) for code in codes(force_terminal=True))


def test_the_chart_crosses_the_line_where_the_card_is_full() -> None:
    points = sample_plan.curve(300)
    limit = points[5].needed_bytes
    chart = memory_chart(points, limit, [ChartMark(151, "here")], 85, ASCII).plain.splitlines()
    line = next(row for row in chart if "----" in row and "|" in row)
    pointer = next(row for row in chart if "here" in row)
    where = pointer.index("^")
    assert abs(line.index("#") - where) <= 1
    assert len(chart) <= 12


def test_gradients_are_as_large_as_the_parameters_at_their_own_most() -> None:
    output = printed(sample(batch_size=64), verdict=fitting())
    row = next(line for line in output.splitlines() if "+ gradients" in line)
    assert re.findall(r"[\d.]+ [MG]iB", row) == ["7.8 MiB", "97.5 MiB"]
    assert sample(batch_size=64).most_sentence in " ".join(output.split())


def test_single_larger_batches_are_told_from_the_promise() -> None:
    limits = BatchLimits(113, 116, 88)
    output = printed(replace(sample(batch_size=64), limits=limits), verdict=fitting(), width=120)
    assert "Every micro-batch up to 113 fits, single larger ones up to 116 do;" in output
