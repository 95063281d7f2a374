"""A model as a table: one row a module, columns that add up to the totals."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.planner.layers import Layer, ModelSummary
from memfit.report.numbers import count, shape
from memfit.report.terminal import Marks, shorten
from memfit.units import format_bytes

__all__ = ["model_report"]


def model_report(summary: ModelSummary, width: int, marks: Marks) -> Group:
    """The modules with what belongs to each, and the totals.

    Args:
        summary: from :func:`memfit.planner.layers.summarize_layers`.
        width: columns of the terminal: output shapes and shares from 78 on, exact counts and
            trainable parameters from 110 on.
        marks: the characters to draw with.
    """
    lines: list[RenderableType] = [
        Text(summary.name, style="bold"),
        Text(
            f"input {shape(summary.input_shape, marks)} {marks.dot} {summary.precision}",
            style="dim",
        ),
        "",
        _modules(summary, width, marks),
        "",
        *_totals(summary),
    ]
    return Group(*lines)


def _modules(summary: ModelSummary, width: int, marks: Marks) -> Table:
    shaped, exact = width >= 78, width >= 110
    numbers = 8 + 2 + 10 + 2 + 8 + shaped * (15 + 2 + 6 + 2) + exact * (5 + 15)
    module_width = min(48, max(16, width - numbers - 2))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("module", no_wrap=True, width=module_width)
    if shaped:
        table.add_column("output", no_wrap=True, width=15)
    table.add_column("params", justify="right", no_wrap=True, min_width=8)
    if exact:
        table.add_column("trainable", justify="right", no_wrap=True, min_width=13)
    table.add_column("kept", justify="right", no_wrap=True, min_width=10)
    if shaped:
        table.add_column("% peak", justify="right", no_wrap=True, min_width=6)
    table.add_column("mult-adds", justify="right", no_wrap=True, min_width=8)
    for layer in summary.layers:
        cells = _cells(layer, summary.total_bytes, shaped=shaped, exact=exact, marks=marks)
        table.add_row(_module(layer, module_width, marks), *cells)
    _add_total(table, summary, shaped=shaped, exact=exact)
    return table


def _module(layer: Layer, width: int, marks: Marks) -> Text:
    """The last name of the path, indented by its depth, and the class."""
    name = layer.path.rpartition(".")[2]
    text = "  " * max(0, layer.depth - 1) + name
    if not name:
        return Text(shorten(layer.kind, width, marks), style="bold")
    notes = [layer.kind, *([f"{layer.calls}{marks.times}"] if layer.calls > 1 else [])]
    if layer.shares_with:
        notes.append(f"shares {layer.shares_with}")
    elif layer.parameter_count and not layer.trainable_count:
        notes.append("frozen")
    cell = Text(shorten(text, width, marks))
    room = width - len(cell) - 1
    if room >= 3:
        cell.append(f" {shorten(' '.join(notes), room, marks)}", style="dim")
    return cell


def _cells(
    layer: Layer, total_bytes: int, *, shaped: bool, exact: bool, marks: Marks
) -> list[str | Text]:
    number = _exact if exact else count
    cells: list[str | Text] = []
    if shaped:
        output = shape(layer.output_shape, marks) if layer.output_shape is not None else ""
        cells.append(Text(shorten(output, 15, marks), style="dim"))
    cells.append(number(layer.parameter_count) if layer.parameter_count else "")
    if exact:
        cells.append(number(layer.trainable_count) if layer.parameter_count else "")
    cells.append(format_bytes(layer.saved_bytes) if layer.saved_bytes else "")
    if shaped:
        cells.append(f"{layer.saved_bytes / total_bytes:.1%}"[:-1] if layer.saved_bytes else "")
    cells.append(count(layer.multiply_adds) if layer.multiply_adds else "")
    return cells


def _add_total(table: Table, summary: ModelSummary, *, shaped: bool, exact: bool) -> None:
    number = _exact if exact else count
    table.add_section()
    table.add_row(
        "total",
        *([""] if shaped else []),
        number(summary.parameter_count),
        *([number(summary.trainable_count)] if exact else []),
        format_bytes(summary.saved_bytes),
        *([f"{summary.saved_bytes / summary.total_bytes:.1%}"[:-1]] if shaped else []),
        count(summary.multiply_adds),
        style="bold",
    )


def _totals(summary: ModelSummary) -> list[Text]:
    """The totals to the last digit: what the columns add up to."""
    frozen = summary.parameter_count - summary.trainable_count
    lines = [
        f"Parameters {summary.parameter_count:,}, of which {summary.trainable_count:,} train"
        + (f" and {frozen:,} are frozen." if frozen else "."),
        f"Kept for backward at micro-batch {summary.batch_size:,}: {summary.saved_bytes:,} bytes, of "
        f"{summary.total_bytes:,} that the process takes at its peak.",
        f"Multiply-adds of one forward pass: {summary.multiply_adds:,}.",
    ]
    if summary.uncounted_operators:
        names = ", ".join(summary.uncounted_operators)
        lines.append(f"Incomplete: multiply-adds are not known for {names}.")
    return [Text(line, style="dim") for line in lines]


def _exact(number: int) -> str:
    return f"{number:,}"
