"""A small chart for the terminal: memory against the micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from rich.text import Text

from memfit.planner.result import CurvePoint
from memfit.report.console.terminal import Marks
from memfit.units import GIB, KIB, MIB

__all__ = ["ChartMark", "memory_chart"]

_ROWS, _ROWS_TO_LIMIT = 9, 7
_AXIS_WIDTH = 11


@dataclass(frozen=True, slots=True)
class ChartMark:
    """A micro-batch that the chart points at."""

    batch_size: int
    name: str


def memory_chart(
    points: Sequence[CurvePoint],
    limit_bytes: int | None,
    pointers: Sequence[ChartMark],
    width: int,
    marks: Marks,
) -> Text:
    """Columns of what is needed, topped by the allocator's cache, and the card's line.

    Args:
        points: of the curve, by micro-batch.
        limit_bytes: what the card has; no line when None.
        pointers: micro-batches to point at below the axis.
        width: columns of the terminal.
        marks: the characters to draw with.
    """
    columns = max(20, min(72, width - _AXIS_WIDTH - 2))
    curve = _resample(points, columns)
    # The line is the upper edge of its row: a column through it needs more than the card has.
    top = max(p.total_bytes for p in points)
    limit_row = None
    if limit_bytes is not None:
        top, limit_row = limit_bytes * _ROWS // _ROWS_TO_LIMIT, _ROWS_TO_LIMIT - 1
    chart = Text(no_wrap=True)
    for row in reversed(range(_ROWS)):
        chart.append(_axis_label(row, limit_row, limit_bytes, top), style="dim")
        chart.append(f" {marks.axis}", style="dim")
        cells = [_cell(row, n / top, t / top, row == limit_row, marks) for n, t in curve]
        for colour, run in groupby(cells, key=itemgetter(1)):
            chart.append("".join(character for character, _ in run), style=colour)
        chart.append("\n")
    chart.append(" " * (_AXIS_WIDTH - 1) + f" {marks.corner}{marks.line * columns}\n", style="dim")
    _draw_pointers(chart, pointers, points, columns, marks)
    return chart


def _resample(points: Sequence[CurvePoint], columns: int) -> list[tuple[float, float]]:
    """Needed and total bytes at each column, on straight lines between the points."""
    first, last = points[0].batch_size, points[-1].batch_size
    result, right = [], 1
    for column in range(columns):
        batch = first + (last - first) * column / (columns - 1)
        while right < len(points) - 1 and points[right].batch_size < batch:
            right += 1
        a, b = points[max(0, right - 1)], points[min(right, len(points) - 1)]
        span = b.batch_size - a.batch_size
        share = (batch - a.batch_size) / span if span else 0.0
        result.append(
            (
                a.needed_bytes + (b.needed_bytes - a.needed_bytes) * share,
                a.total_bytes + (b.total_bytes - a.total_bytes) * share,
            )
        )
    return result


def _cell(row: int, needed: float, total: float, is_limit: bool, marks: Marks) -> tuple[str, str]:
    """One character and its colour: what is needed, cache, the card's line, or nothing."""
    steps = len(marks.column)
    filled = round((needed * _ROWS - row) * steps)
    if is_limit and needed * _ROWS - row < 1:
        return marks.line, "red"
    if filled >= steps:
        return marks.column[-1], "green"
    if total * _ROWS - row >= 0.5:
        return marks.cached, "bright_black"
    return (marks.column[filled - 1], "green") if filled > 0 else (" ", "")


def _axis_label(row: int, limit_row: int | None, limit_bytes: int | None, top: int) -> str:
    """The card's memory at its line, and the scale at the top and the bottom."""
    label = ""
    if row == limit_row and limit_bytes is not None:
        label = _short_bytes(limit_bytes)
    elif row == _ROWS - 1:
        label = _short_bytes(top)
    elif row == 0:
        label = "0"
    return label.rjust(_AXIS_WIDTH - 1)


def _short_bytes(size_bytes: int) -> str:
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes / KIB:.1f} KiB"


def _draw_pointers(
    chart: Text,
    pointers: Sequence[ChartMark],
    points: Sequence[CurvePoint],
    columns: int,
    marks: Marks,
) -> None:
    """The ends of the axis and the pointers, on as few lines as they need without touching."""
    first, last = points[0].batch_size, points[-1].batch_size
    indent = " " * (_AXIS_WIDTH + 1)
    ends = [(0, str(first)), (columns - len(f"{last:,}"), f"{last:,}")]
    lines: list[list[tuple[int, str]]] = [ends]
    for pointer in pointers:
        column = round((pointer.batch_size - first) * (columns - 1) / max(1, last - first))
        label = f"{marks.pointer} {pointer.name} {pointer.batch_size:,}"
        if column + len(label) > columns:
            label = f"{pointer.name} {pointer.batch_size:,} {marks.pointer}"
            column = max(0, column - len(label) + 1)
        _place(lines, (column, label))
    for line in lines:
        text = ""
        for column, label in sorted(line):
            text = text.ljust(column) + label
        chart.append(f"{indent}{text}\n")
    chart.rstrip()


def _place(lines: list[list[tuple[int, str]]], item: tuple[int, str]) -> None:
    """Put a label on the first line on which it touches no other."""
    start, end = item[0] - 2, item[0] + len(item[1]) + 2
    for line in lines:
        if all(end <= column or column + len(label) <= start for column, label in line):
            line.append(item)
            return
    lines.append([item])
