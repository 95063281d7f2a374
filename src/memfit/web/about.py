"""What the page can ask for, and what it begins with."""

from __future__ import annotations

from typing import Any

from memfit.page.documents.card import card_document
from memfit.recipe.fields import Offer, offered
from memfit.recipe.kinds import Choice
from memfit.version import __version__
from memfit.web.asking.cards import offered_cards
from memfit.web.asking.names import KnownNames

__all__ = ["about_document"]

_FIRST_MODEL = "torchvision:resnet50"


def about_document(
    names: KnownNames, gpu: str | None, studies: list[str], runs: list[str]
) -> dict[str, Any]:
    """The answer of ``GET /api/about``, as plain values.

    Args:
        names: what may be asked for.
        gpu: the key of the card to begin with.
        studies: names of those on the disk.
        runs: names of those on the disk.
    """
    return {
        "version": __version__,
        "torch_version": names.torch_version,
        "models": [
            {"name": name, "kind": kind} for kind, listed in names.models.items() for name in listed
        ],
        "cards": [card_document(card) for card in offered_cards()],
        "choices": _choices() | {"optimizer": names.optimizers},
        "recipe": _first_recipe(names),
        "gpu": gpu,
        "datasets": names.datasets,
        "studies": studies,
        "runs": runs,
    }


def _choices() -> dict[str, Any]:
    rows = offered(Offer.REQUEST)
    return {row.name: row.kind.words for row in rows if isinstance(row.kind, Choice)}


def _first_recipe(names: KnownNames) -> dict[str, Any]:
    named = names.models["named"]
    defaults = {row.name: row.default for row in offered(Offer.REQUEST)}
    return defaults | {"model": named[0] if named else _FIRST_MODEL}
