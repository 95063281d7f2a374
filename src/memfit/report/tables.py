"""The tables of ``memfit model`` and ``memfit gpus``."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.catalogue import GPU
from memfit.planner.layers import LayerTable
from memfit.units import format_bytes

__all__ = ["render_gpus", "render_layers"]


def render_layers(table: LayerTable, name: str, console: Console) -> RenderableType:
    """One row a module, indented by depth; the total row is the sum of each column."""
    wide, medium = console.width >= 110, console.width >= 80
    grid = Table(box=None, pad_edge=False)
    grid.add_column("module", overflow="ellipsis", no_wrap=True)
    if wide:
        grid.add_column("type", no_wrap=True, style="dim")
    grid.add_column("output", no_wrap=True)
    grid.add_column("parameters", justify="right", no_wrap=True)
    if wide:
        grid.add_column("trainable", justify="right", no_wrap=True)
    grid.add_column("kept for backward", justify="right", no_wrap=medium)
    if medium:
        grid.add_column("of peak", justify="right", no_wrap=True)
        grid.add_column("multiply-adds", justify="right", no_wrap=True)
    for layer in table.layers:
        label = layer.path.rpartition(".")[2] or name
        cells: list[RenderableType] = [Text("  " * layer.depth + label)]
        cells += [layer.kind] if wide else []
        cells += ["x".join(map(str, layer.output_shape)) or "-", f"{layer.parameters:,}"]
        cells += [f"{layer.trainable:,}"] if wide else []
        cells.append(format_bytes(layer.kept_bytes))
        if medium:
            cells += [
                f"{layer.kept_bytes / table.peak_allocated_bytes:.1%}",
                f"{layer.multiply_adds:,}",
            ]
        grid.add_row(*cells)
    total: list[RenderableType] = [Text("total", "bold")]
    total += [""] if wide else []
    total += ["", f"{table.parameters:,}"]
    total += [f"{table.trainable:,}"] if wide else []
    total.append(format_bytes(table.kept_bytes))
    if medium:
        share = table.kept_bytes / table.peak_allocated_bytes
        total += [f"{share:.1%}", f"{table.multiply_adds:,}"]
    grid.add_section()
    grid.add_row(*total, style="bold")
    note = (
        f"Micro-batch {table.batch_size}; a row holds its own and what hidden, deeper modules do. "
        f"Peak of the training step: {format_bytes(table.peak_allocated_bytes)}."
    )
    return Group(grid, Text(""), Text(note, "dim"))


def render_gpus(cards: Mapping[str, GPU], console: Console) -> RenderableType:
    """The catalogue, one row a card."""
    wide = console.width >= 90
    table = Table(box=None, pad_edge=False)
    table.add_column("card", no_wrap=True, style="bold")
    for heading in ("memory", "usable", "context"):
        table.add_column(heading, justify="right", no_wrap=True)
    if wide:
        table.add_column("SMs", justify="right", no_wrap=True)
        table.add_column("architecture", no_wrap=True)
        table.add_column("compute", justify="right", no_wrap=True)
        table.add_column("GB/s", justify="right", no_wrap=True)
    for card in cards.values():
        cells = [
            card.key,
            *map(format_bytes, (card.total_bytes, card.usable_bytes, card.context_bytes)),
        ]
        if wide:
            capability = ".".join(map(str, card.compute_capability))
            cells += [str(card.multiprocessors), card.architecture, capability]
            cells.append(f"{card.bandwidth_gb_per_s:,.0f}")
        table.add_row(*cells)
    return table
