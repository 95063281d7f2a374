"""The table of the parts: what every byte is used for, adding up to the total."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memfit.memory.tape.parts import PARTS
from memfit.memory.tape.tape import Part
from memfit.planner.result import BatchPlan
from memfit.report.console.numbers import largest_remainders
from memfit.report.console.terminal import Marks, bar, columns
from memfit.units import format_bytes

__all__ = ["parts_table"]


def parts_table(at: BatchPlan, width: int, marks: Marks) -> Table:
    """Every part at the peak, with its share and a bar, and at its own most.

    The peak's column adds up to the last row; the other holds bytes of different instants.

    Args:
        at: the plan at one micro-batch.
        width: columns of the terminal: from 78 on with explanations, from 100 on with exact bytes;
            bars where 6 columns are left.
        marks: the characters to draw with.
    """
    sizes = [at.parts[part] for part in Part]
    shares = largest_remainders(sizes)
    notes, exact = width >= 78, width >= 100
    left = width - 53 - 25 * notes - 16 * exact
    bar_width = min(24, left) if left >= 6 else 0
    table = _empty_table(notes=notes, exact=exact)
    for part, size, share in zip(Part, sizes, shares, strict=True):
        look = PARTS[part]
        drawn = Text(bar(share / max(shares), bar_width, marks), style=look.terminal_colour)
        note = [Text(look.note, style="dim")] if notes else []
        most = format_bytes(at.parts_most[part])
        cells: list[RenderableType] = [*look.row_head, *note]
        cells += [
            format_bytes(size),
            *([f"{size:,}"] if exact else []),
            _percent(share),
            most,
            drawn,
        ]
        table.add_row(*cells)
        if part in (Part.ACTIVATIONS, Part.CONTEXT):
            _rule(table, bar_width, marks, notes=notes, exact=exact, faint=part is not Part.CONTEXT)
    total = [f"{sum(sizes):,}"] if exact else []
    is_shown = at.gpu is None or at.total_bytes <= at.gpu.usable_bytes
    words = "as nvidia-smi shows it" if is_shown else "if the card had no end"
    note_cell = [Text(words, style="dim")] if notes else []
    table.add_row(
        "", "total", *note_cell, format_bytes(sum(sizes)), *total, _percent(sum(shares)), "", "",
        style="bold",
    )  # fmt: skip
    return table


def _empty_table(*, notes: bool, exact: bool) -> Table:
    table = columns()
    table.add_column(no_wrap=True, width=1, style="bold")
    table.add_column(no_wrap=True, width=15)
    if notes:
        table.add_column(no_wrap=True, width=23)
    table.add_column("at the\npeak", no_wrap=True, justify="right", width=10)
    if exact:
        table.add_column(no_wrap=True, justify="right", min_width=14)
    table.add_column(no_wrap=True, justify="right", width=7)
    table.add_column("at its\nown most", no_wrap=True, justify="right", width=10)
    table.add_column(no_wrap=True)
    return table


def _rule(
    table: Table, bar_width: int, marks: Marks, *, notes: bool, exact: bool, faint: bool
) -> None:
    """A line under the four parts that everyone is taught, and one above the total."""
    size = marks.line * 10
    cells = ["", marks.line * 15, *([marks.line * 23] if notes else []), size]
    cells += [*([marks.line * 14] if exact else []), marks.line * 7, size, marks.line * bar_width]
    table.add_row(*cells, style="dim" if faint else "")


def _percent(share: int) -> str:
    return f"{share // 10}.{share % 10} %"
