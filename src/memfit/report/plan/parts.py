"""The table of the parts: what every byte is used for, adding up to the total."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memfit.memory.tape.tape import Part
from memfit.planner.plan import BatchPlan
from memfit.report.console.numbers import largest_remainders
from memfit.report.console.terminal import Marks
from memfit.units import format_bytes

__all__ = ["parts_table"]

#: Number, name, explanation and colour of each part, in the order in which people are taught them.
_ROWS: dict[Part, tuple[str, str, str, str]] = {
    Part.PARAMETERS: ("1", "parameters", "with buffers", "blue"),
    Part.GRADIENTS: ("", "+ gradients", "", "blue"),
    Part.OPTIMIZER: ("2", "optimizer state", "", "magenta"),
    Part.BATCH: ("3", "data batch", "inputs and labels", "cyan"),
    Part.ACTIVATIONS: ("4", "activations", "kept for backward", "green"),
    Part.TEMPORARIES: ("", "temporaries", "of the running operator", "yellow"),
    Part.WORKSPACES: ("", "workspaces", "cuBLAS, cuDNN", "yellow"),
    Part.CACHE: ("", "allocator cache", "reserved, holds nothing", "bright_black"),
    Part.CONTEXT: ("", "CUDA context", "outside the allocator", "bright_black"),
}
_TAUGHT = (Part.PARAMETERS, Part.GRADIENTS, Part.OPTIMIZER, Part.BATCH, Part.ACTIVATIONS)


def parts_table(at: BatchPlan, width: int, marks: Marks) -> Table:
    """Every part with its bytes, its share and a bar; the last row is their sum.

    Args:
        at: the plan at one micro-batch.
        width: columns of the terminal: from 76 on with explanations, from 100 on with exact bytes.
        marks: the characters to draw with.
    """
    sizes = [at.parts[part] for part in Part]
    shares = largest_remainders(sizes)
    notes, exact = width >= 76, width >= 100
    bar_width = 0 if width < 50 else max(6, min(24, width - 46 - 24 * notes - 16 * exact))
    table = _empty_table(notes=notes, exact=exact)
    for part, size, share in zip(Part, sizes, shares, strict=True):
        number, name, note, colour = _ROWS[part]
        bar = Text(_bar(share, max(shares), bar_width, marks), style=colour)
        cells: list[RenderableType] = [number, name, *([Text(note, style="dim")] if notes else [])]
        cells += [format_bytes(size), *([f"{size:,}"] if exact else []), _percent(share), bar]
        table.add_row(*cells)
        if part is _TAUGHT[-1] or part is Part.CONTEXT:
            _rule(table, bar_width, marks, notes=notes, exact=exact, faint=part is not Part.CONTEXT)
    total = [f"{sum(sizes):,}"] if exact else []
    note_cell = [Text("as nvidia-smi shows it", style="dim")] if notes else []
    table.add_row(
        "", "total", *note_cell, format_bytes(sum(sizes)), *total, _percent(sum(shares)), "",
        style="bold",
    )  # fmt: skip
    return table


def _empty_table(*, notes: bool, exact: bool) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, width=1, style="bold")
    table.add_column(no_wrap=True, width=15)
    if notes:
        table.add_column(no_wrap=True, width=23)
    table.add_column(no_wrap=True, justify="right", width=10)
    if exact:
        table.add_column(no_wrap=True, justify="right", min_width=14)
    table.add_column(no_wrap=True, justify="right", width=7)
    table.add_column(no_wrap=True)
    return table


def _rule(
    table: Table, bar_width: int, marks: Marks, *, notes: bool, exact: bool, faint: bool
) -> None:
    """A line under the four parts that everyone is taught, and one above the total."""
    size = marks.line * 10
    cells = ["", marks.line * 15, *([marks.line * 23] if notes else []), size]
    cells += [*([marks.line * 14] if exact else []), marks.line * 7, marks.line * bar_width]
    table.add_row(*cells, style="dim" if faint else "")


def _percent(share: int) -> str:
    return f"{share // 10}.{share % 10} %"


def _bar(share: int, largest: int, width: int, marks: Marks) -> str:
    """A bar whose full width is the largest share; what is not nothing shows at least a little."""
    if share <= 0:
        return ""
    steps = len(marks.bar)
    full, rest = divmod(max(1, round(share * width * steps / largest)), steps)
    return marks.bar[-1] * full + (marks.bar[rest - 1] if rest else "")
