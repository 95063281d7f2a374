"""What was measured, beside what was predicted: one recipe in full, a suite in a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.files.names import clean
from memfit.measure.compare import Comparison, Difference, Figure
from memfit.measure.records import Limit, Measurement
from memfit.measure.session import Outcome, Tally
from memfit.measure.target import Target
from memfit.memory.tape.parts import PARTS
from memfit.report.console.terminal import Marks, columns, heading, marks_of, shorten
from memfit.units import format_bytes

__all__ = ["outcome_line", "render_outcomes", "render_tally"]

_MOST_DIFFERENCES = 8
_WORDS = {
    "ok": "ran", "out_of_memory": "out of memory", "crashed": "crashed", "timed_out": "timed out",
}  # fmt: skip

_WARNINGS = {
    "virtual": "PyTorch's own allocator and cuDNN's own choices were asked. No kernel ran: there "
    "are no times.",
    "cpu": "This tries the harness. The CPU's kernels are not a GPU's: no figure here is one's.",
}


def render_outcomes(
    target: Target, outcomes: Sequence[Outcome], path: Path, console: Console
) -> Group:
    """One recipe: the totals, the parts and what differs, for each micro-batch.

    Args:
        target: where it was measured.
        outcomes: of the recipe, by micro-batch.
        path: of the record.
        console: where it will be printed.
    """
    marks, width = marks_of(console), console.width
    sections: list[RenderableType] = [_header(outcomes[0].record.name, target, marks)]
    for outcome in outcomes:
        sections += ["", *_outcome(outcome, width, marks)]
    return Group(*sections, "", Text(f"Record: {clean(str(path))}", style="dim"))


def render_tally(target: Target, tally: Tally, folder: Path, console: Console) -> Group:
    """A suite: a line for each measurement, and what is left to do.

    Args:
        target: where it was measured.
        tally: how it went.
        folder: of the records.
        console: where it will be printed.
    """
    marks = marks_of(console)
    sections: list[RenderableType] = [_header("Suite", target, marks)]
    if tally.outcomes:
        sections += ["", _suite_table(tally.outcomes, marks)]
    sections += ["", *_counts(tally, folder, marks)]
    return Group(*sections)


def outcome_line(outcome: Outcome) -> str:
    """A line of progress: what was measured and how far off the plan was.

    >>> from memfit.measure.records import Measurement, Record
    >>> record = Record("resnet", "resnet", {}, {}, {})
    >>> outcome_line(Outcome(record, Measurement(64, "out_of_memory")))
    'resnet, micro-batch 64: out of memory'
    """
    name, m = clean(outcome.record.name), outcome.measurement
    if outcome.limit is not None:
        return f"{name}: the largest micro-batch that ran is {outcome.limit.max_batch_size:,}"
    line = f"{name}, micro-batch {m.batch_size:,}: {_WORDS[m.status]}"
    if m.peak_allocated_bytes is None:
        return line
    line += f", {format_bytes(m.peak_allocated_bytes)} allocated"
    if outcome.comparison is not None:
        line += f" (plan {_percent(outcome.comparison.figures[0].error)})"
    return line


def _header(name: str, target: Target, marks: Marks) -> RenderableType:
    title = Text.assemble((clean(name), "bold"), " on ", clean(target.name))
    steps = "training steps" if target.kind == "virtual" else "real training steps"
    words = f"predicted beside measured {marks.dot} {steps}, each in its own process"
    if target.kind == "cuda":
        return Group(title, Text(words, style="dim"))
    warning = _WARNINGS[target.kind]
    return Group(title, Text(words, style="dim"), Text(warning, style="yellow"))


# -- one recipe ------------------------------------------------------------------------------------


def _outcome(outcome: Outcome, width: int, marks: Marks) -> list[RenderableType]:
    if outcome.limit is not None:
        return [_limit_line(outcome.limit, outcome.predicted_limit, marks)]
    m = outcome.measurement
    lines: list[RenderableType] = [
        Text.assemble(
            heading(f"Micro-batch {m.batch_size:,}"), (f"  {_WORDS[m.status]}", _style_of(m))
        )
    ]
    if outcome.comparison is not None:
        lines += _comparison(outcome.comparison, width, marks)
    lines += [Text(line, style="dim") for line in _facts(m, marks)]
    if m.others:
        lines.append(Text(_beside(m.others, counts=m.counts), style="yellow"))
    if outcome.note:
        lines.append(Text(clean(outcome.note), style="yellow"))
    return lines


def _comparison(found: Comparison, width: int, marks: Marks) -> list[RenderableType]:
    lines: list[RenderableType] = [_figures_table(found.figures)]
    if found.parts:
        lines += [
            "",
            heading("At the peak, by part (requested bytes)"),
            _figures_table([replace(f, name=PARTS[f.name].name) for f in found.parts]),
        ]
    for title, rows in (
        ("Alive at one peak only, largest first", found.at_peak),
        ("Allocated on one side only, in all recorded steps", found.in_steps),
    ):
        if rows:
            lines += ["", heading(title), _differences_table(rows, width, marks)]
    return lines


def _figures_table(figures: Sequence[Figure]) -> Table:
    table = _table(("", "left"), ("predicted", "right"), ("measured", "right"), ("error", "right"))
    for figure in figures:
        table.add_row(
            figure.name,
            format_bytes(figure.predicted_bytes),
            format_bytes(figure.measured_bytes),
            _percent(figure.error) if figure.measured_bytes else "",
        )
    return table


def _differences_table(rows: Sequence[Difference], width: int, marks: Marks) -> RenderableType:
    room = max(16, (width - 40) // 2)
    table = _table(
        ("operator", "left"), ("module", "left"), ("predicted", "right"), ("measured", "right")
    )
    for row in rows[:_MOST_DIFFERENCES]:
        operator = row.operator.removeprefix("aten.").removesuffix(".default")
        table.add_row(
            shorten(clean(operator or "outside of operators"), room, marks),
            shorten(clean(row.module) or row.phase, room, marks),
            _sum(row.predicted_bytes, row.predicted_count, marks),
            _sum(row.measured_bytes, row.measured_count, marks),
        )
    rest = len(rows) - _MOST_DIFFERENCES
    if rest <= 0:
        return table
    return Group(table, Text(f"and {rest:,} smaller ones; --json lists all", style="dim"))


def _sum(size_bytes: int, count: int, marks: Marks) -> str:
    if not count:
        return marks.line
    return format_bytes(size_bytes) if count == 1 else f"{format_bytes(size_bytes)} in {count:,}"


def _facts(m: Measurement, marks: Marks) -> list[str]:
    facts = []
    if m.step_seconds is not None:
        facts.append(f"{m.step_seconds * 1000:,.1f} ms a step")
    if m.steady_allocated_bytes is not None:
        facts.append(f"last step alone {format_bytes(m.steady_allocated_bytes)}")
    if m.bare_context_bytes is not None:
        facts.append(f"context before libraries {format_bytes(m.bare_context_bytes)}")
    if m.retries:
        facts.append(f"cached memory released {m.retries:,} times")
    lines = [f" {marks.dot} ".join(facts)] if facts else []
    if m.workspaces:
        first = m.workspaces[0]
        lines.append(
            f"largest workspace {format_bytes(first['size_bytes'])}, {first['operator']}"
            f"{', held' if first['is_held'] else ''}"
        )
    return lines


def _limit_line(limit: Limit, predicted: int | None, marks: Marks) -> Text:
    words = f"Largest micro-batch that ran: {limit.max_batch_size:,}"
    if not limit.is_complete:
        words += " (the search did not end)"
    if predicted is not None:
        words += f"; predicted {predicted:,}"
    fits = predicted is None or predicted <= limit.max_batch_size
    tries = f"{len(limit.tried)} tried"
    mark, style = (marks.yes, "green") if fits else (marks.no, "red")
    return Text.assemble((mark, style), f" {words} {marks.dot} {tries}")


# -- a suite ---------------------------------------------------------------------------------------


def _suite_table(outcomes: Sequence[Outcome], marks: Marks) -> Table:
    table = _table(
        ("recipe", "left"), ("batch", "right"), ("", "left"), ("allocated", "right"),
        ("error", "right"), ("reserved", "right"), ("error", "right"), ("GPU", "right"),
        ("error", "right"),
    )  # fmt: skip
    for outcome in outcomes:
        table.add_row(*_suite_row(outcome, marks))
    return table


def _suite_row(outcome: Outcome, marks: Marks) -> list[str | Text]:
    m, name = outcome.measurement, clean(outcome.record.name)
    if outcome.limit is not None:
        predicted = (
            marks.line if outcome.predicted_limit is None else f"{outcome.predicted_limit:,}"
        )
        return [name, f"{outcome.limit.max_batch_size:,}", f"largest; predicted {predicted}"]
    cells: list[str | Text] = [name, f"{m.batch_size:,}", Text(_WORDS[m.status], _style_of(m))]
    found = outcome.comparison
    by_name = {f.name: f for f in (found.figures if found is not None else ())}
    for title in ("peak allocated", "peak reserved", "whole GPU"):
        figure = by_name.get(title)
        if figure is None:
            cells += ["", ""]
        else:
            cells += [format_bytes(figure.measured_bytes), _percent(figure.error)]
    return cells


def _counts(tally: Tally, folder: Path, marks: Marks) -> list[RenderableType]:
    beside = sorted({other for o in tally.outcomes for other in o.measurement.others})
    is_spoilt = any(o.measurement.others and not o.measurement.counts for o in tally.outcomes)
    facts = [f"{len(tally.outcomes):,} measured"]
    if tally.kept:
        facts.append(f"{tally.kept:,} kept from before")
    if tally.left:
        facts.append(f"{tally.left:,} left: run the same command again")
    lines: list[RenderableType] = [
        Text(f" {marks.dot} ".join(facts), style="bold"),
        Text(f"Records: {clean(str(folder))}", style="dim"),
    ]
    if beside:
        lines.append(Text(_beside(beside, counts=not is_spoilt), style="yellow"))
    for path, reason in tally.skipped.items():
        words = f"{clean(str(path))}: {reason}; --force measures it again."
        lines.append(Text(words, style="yellow"))
    return lines


def _beside(others: Sequence[str], *, counts: bool) -> str:
    effect = (
        "what PyTorch's allocator counts still holds, times and the whole GPU may not"
        if counts
        else "memory ran short, so these figures count for nothing"
    )
    return f"Not alone on the GPU ({clean(', '.join(others))}): {effect}."


def _style_of(m: Measurement) -> str:
    return "green" if m.status == "ok" else "yellow" if m.status == "out_of_memory" else "red"


def _percent(error: float) -> str:
    """A signed share.

    >>> _percent(-0.0123)
    '-1.23 %'
    """
    return f"{error * 100:+.2f} %"


def _table(*titles: tuple[str, str]) -> Table:
    table = columns()
    for title, side in titles:
        table.add_column(title, justify="right" if side == "right" else "left", no_wrap=True)
    return table
