"""The card that a command is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memfit.errors import UsageError

if TYPE_CHECKING:
    from memfit.cards.catalogue import GPU

__all__ = ["card_of", "cards_of"]


def cards_of(gpu: str | None, free: str | None) -> list[GPU]:
    """The cards that were named, with commas between them; none where none was named.

    Raises:
        UnknownName: no such card.
        UsageError: ``free`` is of one card.
    """
    from memfit.cards.catalogue import gpus_named

    cards = [] if gpu is None else gpus_named(gpu)
    if len(cards) > 1 and free is not None:
        raise UsageError(f"--free is of one card; {len(cards)} were named.")
    if len(cards) > 1:
        return cards
    card = card_of(gpu, free)
    return [] if card is None else [card]


def card_of(gpu: str | None, free: str | None) -> GPU | None:
    """The card that was named; with ``free`` also the local one, of which only so much is free."""
    from memfit.cards.catalogue import gpu as find_gpu
    from memfit.cards.catalogue import local_gpu
    from memfit.units import format_bytes, parse_bytes

    if free is None:
        return None if gpu is None else find_gpu(gpu)
    free_bytes = parse_bytes(free, of_card=True)
    local = local_gpu() if gpu is None else None
    if gpu is None and local is None:
        raise UsageError(
            f"--free is {free}, but there is no card: none was named, and none is here.",
            hint="Name it, such as --gpu rtx-3060.",
        )
    card = local[0] if local is not None else find_gpu(str(gpu))
    if free_bytes > card.total_bytes:
        has = format_bytes(card.total_bytes)
        raise UsageError(f"--free is {free}; the {card.name} has only {has}.")
    return card.with_free_bytes(free_bytes)
