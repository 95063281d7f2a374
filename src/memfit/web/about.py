"""What the page can ask for, and what it begins with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from memfit.page.documents.card import card_document
from memfit.recipe.recipe import Attention, Checkpointing, MemoryFormat, Precision, Recipe, ZeroGrad
from memfit.version import __version__
from memfit.web.asking.cards import offered_cards
from memfit.web.asking.names import KnownNames
from memfit.web.asking.requests import RECIPE_FIELDS

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
        "choices": {
            "precision": get_args(Precision),
            "optimizer": names.optimizers,
            "memory_format": get_args(MemoryFormat),
            "attention": get_args(Attention),
            "zero_grad": get_args(ZeroGrad),
            "gradient_checkpointing": get_args(Checkpointing),
        },
        "recipe": _first_recipe(names),
        "gpu": gpu,
        "datasets": names.datasets,
        "studies": studies,
        "runs": runs,
    }


def _first_recipe(names: KnownNames) -> dict[str, Any]:
    named = names.models["named"]
    defaults = {field.name: field.default for field in fields(Recipe)}
    return {name: defaults[name] for name in RECIPE_FIELDS} | {
        "model": named[0] if named else _FIRST_MODEL
    }
