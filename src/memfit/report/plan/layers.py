"""A model as a table: one row a module, columns that add up to the totals."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.files.names import clean
from memfit.planner.layers import Layer, LayerTable
from memfit.report.console.numbers import count, shape
from memfit.report.console.terminal import Marks, columns, marks_of, shorten
from memfit.units import format_bytes

__all__ = ["render_layers"]


def render_layers(summary: LayerTable, console: Console) -> Group:
    """The modules with what belongs to each, and the totals.

    Args:
        summary: from :func:`memfit.planner.layers.summarise_layers`.
        console: where it will be printed: output shapes and shares from 78 columns on, exact
            counts and trainable parameters from 110 on.
    """
    width, marks = console.width, marks_of(console)
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


def _modules(summary: LayerTable, width: int, marks: Marks) -> Table:
    shaped, exact = width >= 78, width >= 110
    numbers = 8 + 2 + 10 + 2 + 9 + shaped * (15 + 2 + 6 + 2) + exact * (5 + 15)
    module_width = min(48, max(16, width - numbers - 2))
    table = columns()
    table.add_column("module", no_wrap=True, width=module_width)
    if shaped:
        table.add_column("output", no_wrap=True, width=15)
    table.add_column("params", justify="right", no_wrap=True, min_width=8)
    if exact:
        table.add_column("trainable", justify="right", no_wrap=True, min_width=13)
    table.add_column("kept", justify="right", no_wrap=True, min_width=10)
    if shaped:
        table.add_column("% peak", justify="right", no_wrap=True, min_width=6)
    table.add_column("mult-adds", justify="right", no_wrap=True, min_width=9)
    for layer in summary.layers:
        cells = _cells(layer, summary.peak_allocated_bytes, shaped=shaped, exact=exact, marks=marks)
        table.add_row(_module(layer, module_width, marks), *cells)
    _add_total(table, summary, shaped=shaped, exact=exact)
    return table


def _module(layer: Layer, width: int, marks: Marks) -> Text:
    """The last name of the path, indented by its depth, and the class."""
    name = clean(layer.path.rpartition(".")[2])
    text = "  " * max(0, layer.depth - 1) + name
    if not name:
        return Text(shorten(clean(layer.kind), width, marks), style="bold")
    notes = [clean(layer.kind), *([f"{layer.calls}{marks.times}"] if layer.calls > 1 else [])]
    if layer.shares_with:
        notes.insert(0, f"shares {clean(layer.shares_with)}")
    elif layer.parameters and not layer.trainable:
        notes.append("frozen")
    cell = Text(shorten(text, width, marks))
    room = width - len(cell) - 1
    if room >= 3:
        cell.append(f" {shorten(' '.join(notes), room, marks)}", style="dim")
    return cell


def _cells(
    layer: Layer, peak_bytes: int, *, shaped: bool, exact: bool, marks: Marks
) -> list[str | Text]:
    number = _exact if exact else count
    cells: list[str | Text] = []
    if shaped:
        output = shape(layer.output_shape, marks) if layer.output_shape is not None else ""
        cells.append(Text(shorten(output, 15, marks), style="dim"))
    cells.append(number(layer.parameters) if layer.parameters else "")
    if exact:
        cells.append(number(layer.trainable) if layer.parameters else "")
    cells.append(format_bytes(layer.kept_bytes) if layer.kept_bytes else "")
    if shaped:
        cells.append(f"{layer.kept_bytes / peak_bytes:.1%}"[:-1] if layer.kept_bytes else "")
    cells.append(count(layer.multiply_adds) if layer.multiply_adds else "")
    return cells


def _add_total(table: Table, summary: LayerTable, *, shaped: bool, exact: bool) -> None:
    number = _exact if exact else count
    table.add_section()
    table.add_row(
        "total",
        *([""] if shaped else []),
        number(summary.parameters),
        *([number(summary.trainable)] if exact else []),
        format_bytes(summary.kept_bytes),
        *([f"{summary.kept_bytes / summary.peak_allocated_bytes:.1%}"[:-1]] if shaped else []),
        count(summary.multiply_adds),
        style="bold",
    )


def _totals(summary: LayerTable) -> list[Text]:
    """The totals to the last digit: what the columns add up to."""
    frozen = summary.parameters - summary.trainable
    lines = [
        f"Parameters {summary.parameters:,}, of which {summary.trainable:,} train"
        + (f" and {frozen:,} are frozen." if frozen else "."),
        f"Kept for backward at micro-batch {summary.batch_size:,}: {summary.kept_bytes:,} bytes; "
        f"peak of the training step: {summary.peak_allocated_bytes:,}.",
        f"Multiply-adds of one forward pass: {summary.multiply_adds:,}.",
    ]
    if summary.uncounted_operators:
        names = ", ".join(summary.uncounted_operators)
        lines.append(f"Incomplete: multiply-adds are not known for {names}.")
    return [Text(line, style="dim") for line in lines]


def _exact(number: int) -> str:
    return f"{number:,}"
