"""Small terminal charts: bars in a table cell, and memory against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["ChartMarks", "bar", "line_chart"]


@dataclass(frozen=True, slots=True)
class ChartMarks:
    """The characters of a chart; ASCII where the terminal's encoding has no others."""

    block: str
    point: str
    limit: str
    corner: str
    side: str
    floor: str

    @classmethod
    def for_encoding(cls, encoding: str | None) -> ChartMarks:
        """Unicode when the output can carry it.

        >>> ChartMarks.for_encoding("ascii").block
        '#'
        """
        marks = cls("█", "●", "─", "└", "│", "─")
        try:
            "█●─└│".encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls("#", "*", "-", "+", "|", "-")
        return marks


def bar(share: float, width: int, marks: ChartMarks) -> str:
    """A horizontal bar for a share of 1.

    >>> bar(0.5, 10, ChartMarks.for_encoding("ascii"))
    '#####'
    """
    filled = round(share * width)
    return marks.block * (max(filled, 1) if share > 0 else 0)


def line_chart(
    points: Sequence[tuple[int, float]],
    limit: float | None,
    *,
    width: int,
    height: int,
    marks: ChartMarks,
    unit: str,
    limit_label: str = "",
) -> list[str]:
    """A line through points over a floor, with one horizontal line for the limit.

    Args:
        points: (x, y), ascending in x.
        limit: where the line lies; none when omitted.
        width: of the plot in characters.
        height: of the plot in lines.
        marks: what to draw with.
        unit: of y.
        limit_label: written at the end of the line.
    """
    top = max([y for _, y in points] + ([limit] if limit else [])) * 1.05 or 1.0
    rows = [[" "] * width for _ in range(height)]

    def row_of(y: float) -> int:
        return min(height - 1, max(0, height - 1 - int(y / top * height)))

    if limit is not None:
        line = row_of(limit)
        rows[line] = [marks.limit] * width
        if len(limit_label) + 2 < width:
            start = 1
            rows[line][start : start + len(limit_label) + 2] = list(f" {limit_label} ")
    first, last = points[0][0], points[-1][0]
    span = max(1, last - first)
    for column in range(0, width, 2):
        x = first + span * column / (width - 1)
        rows[row_of(_between(points, x))][column] = marks.point
    lines = []
    for number, row in enumerate(rows):
        value = top * (height - number - 0.5) / height
        label = f"{value:6.1f} {unit}" if number % 3 == 0 else ""
        lines.append(f"{label:>11s} {marks.side}{''.join(row)}".rstrip())
    lines.append(" " * 12 + marks.corner + marks.floor * width)
    middle = f"{(first + last) // 2:,}"
    axis = f"{first:<{width // 2 - len(middle) // 2}}{middle}"
    lines.append(" " * 13 + axis + f"{last:,}".rjust(width - len(axis)))
    return lines


def _between(points: Sequence[tuple[int, float]], x: float) -> float:
    """The value at x on the straight lines that join the points."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
