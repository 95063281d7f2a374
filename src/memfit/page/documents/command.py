"""The command that gives a plan again."""

from __future__ import annotations

from memfit.recipe.fields import Offer, offered
from memfit.recipe.recipe import Recipe

__all__ = ["plan_words"]


def plan_words(recipe: Recipe) -> list[str]:
    """``memfit plan …`` with every flag that is not as it would be anyway.

    Args:
        recipe: code given as an object is named, and cannot be typed.

    Returns:
        The words, not quoted; without ``--batch-size`` and ``--gpu``, which are the page's to add.
    """
    values = recipe.to_dict()
    words = ["memfit", "plan", str(values["model"])]
    for row in offered(Offer.PLAN):
        if row.name != "batch_size" and getattr(recipe, row.name) != row.default:
            words += row.kind.written(row.flag, values[row.name])
    return words
