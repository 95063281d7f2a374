"""Cards that the page may ask about: the catalogue, a size, or the one in this machine."""

from __future__ import annotations

from functools import cache

from memfit.cards.catalogue import GPU, gpus, local_gpu
from memfit.cards.catalogue import gpu as find_gpu

__all__ = ["card_of", "local_card", "offered_cards"]


@cache
def local_card() -> tuple[GPU, int] | None:
    """The card of this machine and the bytes that were free on it; None without one."""
    return local_gpu()


def offered_cards() -> list[GPU]:
    """The catalogue, after this machine's own card where the catalogue does not have it."""
    cards = list(gpus().values())
    local = local_card()
    if local is not None and local[0].key not in gpus():
        cards.insert(0, local[0])
    return cards


def card_of(name: str | None, free_bytes: int | None) -> GPU | None:
    """A card by what the page calls it.

    Args:
        name: a key, an alias or a size such as ``"11GiB"``.
        free_bytes: what of it may be used; all that is usable when omitted.

    Raises:
        UsageError: no such card, or no such size.
    """
    if name is None:
        return None
    local = local_card()
    card = local[0] if local is not None and local[0].key == name else find_gpu(name)
    return card if free_bytes is None else card.with_free_bytes(free_bytes)
