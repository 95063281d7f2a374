"""Cards as tables: what they are, and what fits them."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from memfit.cards.catalogue import GPU
from memfit.cards.services import Service
from memfit.report.console.terminal import PROSE_WIDTH, Marks, columns, marks_of, shorten
from memfit.units import format_bytes

if TYPE_CHECKING:  # `memfit gpus` waits for no torch
    from memfit.planner.result import CardFit, PlanResult

__all__ = ["card_fits_table", "on_cards_table", "render_gpus"]


def card_fits_table(cards: Iterable[CardFit]) -> Table:
    """One row a card: its memory, the largest and the recommended micro-batch."""
    table = columns()
    table.add_column("card", no_wrap=True)
    for title in ("usable", "largest", "recommended"):
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards:
        most, recommended = card.limits.max_batch_size, card.limits.recommended_batch_size
        table.add_row(
            card.gpu.key,
            format_bytes(card.gpu.usable_bytes),
            f"{most:,}" if most else "does not fit",
            f"{recommended:,}" if recommended else "none",
        )
    return table


def on_cards_table(plans: Iterable[PlanResult], marks: Marks) -> Table:
    """One row a plan: its card, whether the asked batch (else one sample) fits, and what does.

    Args:
        plans: of the same training, each on a card.
        marks: the characters to draw with.
    """
    table = columns()
    table.add_column("", no_wrap=True)
    table.add_column("card", no_wrap=True)
    for title in ("usable", "micro-batch", "takes", "largest", "recommended"):
        table.add_column(title, justify="right", no_wrap=True)
    for plan in plans:
        assert plan.gpu is not None
        limits = plan.limits
        found = [limits.max_batch_size, limits.recommended_batch_size] if limits else [0, 0]
        table.add_row(
            Text(marks.yes, style="bold green") if plan.fits else Text(marks.no, style="bold red"),
            plan.gpu.key,
            format_bytes(plan.gpu.usable_bytes),
            f"{plan.at.batch_size:,}",
            format_bytes(plan.at.total_bytes),
            *(f"{batch:,}" if batch else "none" for batch in found),
        )
    return table


def render_gpus(cards: Iterable[GPU], services: Iterable[Service], console: Console) -> Group:
    """The catalogue; narrow terminals get the columns that decide what fits.

    Args:
        cards: in the order to show.
        services: whose names stand for cards.
        console: where it will be printed: speed and size from 78 columns on, the memory that CUDA
            reports from 92, names from 112.
    """
    width, marks = console.width, marks_of(console)
    fast, total, named = width >= 78, width >= 92, width >= 112
    table = columns()
    table.add_column("key", no_wrap=True)
    if named:
        table.add_column("name", no_wrap=True)
    table.add_column("architecture", no_wrap=True)
    titles = [*(["memory"] if total else []), "usable", "context"]
    for title in (*titles, *(("SMs", "bandwidth") if fast else ())):
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards:
        table.add_row(
            card.key,
            *([shorten(card.name.removeprefix("NVIDIA "), width - 88, marks)] if named else []),
            card.architecture,
            *([format_bytes(card.total_bytes)] if total else []),
            format_bytes(card.usable_bytes),
            format_bytes(card.context_bytes),
            *([f"{card.multiprocessors}", f"{card.bandwidth_gb_per_s:,.0f} GB/s"] if fast else []),
        )
    notes = (f"{s.name} is {s.offers} ({s.date})." for s in services)
    return Group(table, *(Text(fill(note, min(width, PROSE_WIDTH)), style="dim") for note in notes))
