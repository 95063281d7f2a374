"""A card as the page needs it; without torch."""

from __future__ import annotations

from typing import Any

from memfit.cards.catalogue import GPU

__all__ = ["card_document"]


def card_document(card: GPU) -> dict[str, Any]:
    """A card as plain values for JSON; sizes in bytes."""
    return card.to_dict(
        "key", "name", "architecture", "compute_capability", "total_bytes", "usable_bytes",
        "context_bytes",
    )  # fmt: skip
