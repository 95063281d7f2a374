"""A recipe: everything that decides what a training step needs in memory.

``plan`` and all later commands take the same recipe, as a Python object, a TOML file or flags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from memfit.errors import UsageError
from memfit.recipe.fields import FIELDS, RecipeFields
from memfit.recipe.words import plain_options

__all__ = ["EXAMPLE", "Recipe", "example_recipe"]

#: What is trained when neither a model nor data is named: a minute on a laptop.
EXAMPLE: Mapping[str, Any] = {
    "model": "cnn", "data": "shapes", "optimizer": "adamw", "lr": 0.002,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(RecipeFields):
    """What decides memory: the model, its input, and how it is trained.

    Its fields are the rows of :mod:`memfit.recipe.fields`: plain values, so that it can be written
    as TOML and read back equal. Objects (an ``nn.Module``, a loss, an opened data set) are given
    beside it: ``memfit.plan(recipe, model=net)``.

    Raises:
        UsageError: a value is impossible.
        UnknownName: a value is none of the known words.
    """

    def __post_init__(self) -> None:
        for field in FIELDS.values():
            value = getattr(self, field.name)
            if field.takes_code and not isinstance(value, (str, os.PathLike, Mapping, NoneType)):
                raise UsageError(
                    f"{field.name} is a Python object ({type(value).__qualname__}); a recipe "
                    "holds plain values.",
                    hint=f"Give it beside the recipe: memfit.plan(recipe, {field.name}=...), or "
                    f"memfit.train(recipe, {field.name}=...).",
                )
            object.__setattr__(self, field.name, field.checked(value))
        self._check_mode()
        inputs = [name for name in ("input", "input_shape", "input_ids") if getattr(self, name)]
        if len(inputs) > 1:
            raise UsageError(f"{' and '.join(inputs)} exclude each other.")
        if self.global_batch and self.batch_size and self.global_batch % self.batch_size:
            raise UsageError(
                f"global_batch {self.global_batch} is no multiple of batch_size {self.batch_size}."
            )

    def _check_mode(self) -> None:
        """Refuse what only training has, where nothing is trained."""
        of_training = ("accumulation", "global_batch", "eval_batch_size", "gradient_checkpointing")
        for name in of_training:
            if self.mode != "train" and getattr(self, name) != FIELDS[name].default:
                raise UsageError(f"{name} is of training; mode {self.mode} has none.")

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and TOML."""
        return {name: _plain(name, getattr(self, name)) for name in FIELDS}


def example_recipe(**changes: Any) -> Recipe:
    """The built-in example with some values changed; another optimizer brings its own rate."""
    example = dict(EXAMPLE)
    if changes.keys() & {"model", "data", "optimizer", "base_lr"}:
        del example["optimizer"], example["lr"]
    return Recipe(**{**example, **changes})


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_options(name, value)
    return list(value) if isinstance(value, tuple) else value


Recipe.__doc__ = f"{Recipe.__doc__}\nArgs:\n" + "".join(
    f"    {field.name}: {field.help}\n" for field in FIELDS.values()
)
