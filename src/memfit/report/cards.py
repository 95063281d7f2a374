"""Cards as tables: what they are, and what fits them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from memfit.catalogue import GPU
from memfit.planner.verdict import CardFit
from memfit.units import format_bytes

__all__ = ["card_fits_table", "cards_table"]


def card_fits_table(cards: Iterable[CardFit]) -> Table:
    """One row a card: its memory, the largest and the recommended micro-batch."""
    table = _plain_table()
    table.add_column("card", no_wrap=True)
    for title in ("usable", "largest", "recommended"):
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards:
        table.add_row(
            card.gpu.key,
            format_bytes(card.gpu.usable_bytes),
            f"{card.max_batch_size:,}" if card.max_batch_size else "does not fit",
            f"{card.recommended_batch_size:,}" if card.recommended_batch_size else "none",
        )
    return table


def cards_table(cards: Iterable[GPU], width: int) -> Table:
    """The catalogue; narrow terminals get the columns that decide what fits.

    Args:
        cards: in the order to show.
        width: columns of the terminal: names from 120 on, speed and size from 76 on.
    """
    named, sized = width >= 120, width >= 76
    table = _plain_table()
    table.add_column("key", no_wrap=True)
    if named:
        table.add_column("name", no_wrap=True)
    table.add_column("architecture", no_wrap=True)
    for title in ("memory", "usable", "context", *(("SMs", "bandwidth") if sized else ())):
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards:
        table.add_row(
            card.key,
            *([card.name] if named else []),
            card.architecture,
            format_bytes(card.total_bytes),
            format_bytes(card.usable_bytes),
            format_bytes(card.context_bytes),
            *([f"{card.multiprocessors}", _bandwidth(card)] if sized else []),
        )
    return table


def _bandwidth(card: GPU) -> str:
    return f"{card.bandwidth_gb_per_s:,.0f} GB/s"


def _plain_table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
