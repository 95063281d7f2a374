"""A recipe as command-line flags, shared by every command that takes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from cyclopts import Group, Parameter

from memfit.errors import UsageError
from memfit.recipe import kinds
from memfit.recipe.fields import Field, Offer, Section, offered
from memfit.recipe.recipe import Recipe, example_recipe
from memfit.recipe.toml import load_recipe

__all__ = [
    "DataFlags", "Flag", "JsonFlag", "MemoryFlags", "ModelFlags", "OnOff", "RecipeFlags", "Switch",
    "TrainingFlags", "Whole", "own_flags", "recipe_of", "training_recipe",
]  # fmt: skip


def _whole(_kind: object, tokens: Sequence[Any]) -> int:
    """An integer as written: 3.5 is none, and is not rounded to one."""
    text: str = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number.") from None


Whole = Annotated[int | None, Parameter(converter=_whole)]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
Switch = Annotated[bool, Parameter(negative=())]
OnOff = Annotated[bool, Parameter(negative_bool=("no-",))]
Flag = Annotated[bool | None, Parameter(negative_bool=("no-",))]

_GROUPS = {section: Group(section.value, sort_key=i) for i, section in enumerate(Section, 1)}
#: What cyclopts reads behind the flag of a kind; of all others, one text.
_READ_AS: dict[type[kinds.Kind], Any] = {kinds.Whole: Whole, kinds.Number: float | None}


class RecipeFlags:
    """Fields of :class:`~memfit.Recipe` as flags; None when not given."""

    rows: ClassVar[Sequence[Field]]

    def given(self) -> dict[str, Any]:
        """The fields that were given, as the recipe wants them."""
        values = {}
        for row in self.rows:
            value = getattr(self, row.name)
            if value is not None:
                values[row.name] = row.kind.read(value)
            for word in own_flags(row):
                if getattr(self, word):
                    values[row.name] = word
        return values


F = TypeVar("F", bound=RecipeFlags)


def _of(rows: Sequence[Field]) -> Callable[[type[F]], type[F]]:
    """Gives a class a flag for every row, and for every word that has its own."""

    def with_flags(cls: type[F]) -> type[F]:
        flags: list[tuple[str, Any, Any]] = []
        for row in rows:
            place = Parameter(
                group=_GROUPS[row.section], help=row.help,
                allow_leading_hyphen=isinstance(row.kind, kinds.Range),
            )  # fmt: skip
            flags.append((row.name, Annotated[_read_as(row.kind), place], field(default=None)))
            for word, words in own_flags(row).items():
                alone = Parameter(negative=(), group=_GROUPS[row.section], help=words)
                flags.append((word, Annotated[bool, alone], field(default=False)))
        made = make_dataclass(
            cls.__name__, flags, bases=(cls,), frozen=True, kw_only=True,
            namespace={"rows": rows, "__doc__": cls.__doc__, "__module__": cls.__module__},
        )  # fmt: skip
        return Parameter(name="*")(made)

    return with_flags


def _read_as(kind: kinds.Kind) -> Any:
    if isinstance(kind, kinds.Choice) and kind.is_switch:
        return Flag
    if isinstance(kind, kinds.Tensors):
        return Annotated[list[str] | None, Parameter(negative=())]
    if isinstance(kind, kinds.Many):
        each = float if isinstance(kind.each, kinds.Number) else str
        return Annotated[list[each] | None, Parameter(negative=())]  # type: ignore[valid-type]
    return _READ_AS.get(type(kind), str | None)


def own_flags(row: Field) -> dict[str, str]:
    """Words of a choice that have a flag of their own, each with its help."""
    return dict(row.kind.own_flags) if isinstance(row.kind, kinds.Choice) else {}


@_of(offered(Offer.MODEL))
class ModelFlags(RecipeFlags):
    """What the layers of a model depend on."""


@_of(offered(Offer.DATA))
class DataFlags(RecipeFlags):
    """What decides how data is read."""


@_of(offered(Offer.PLAN))
class MemoryFlags(RecipeFlags):
    """What decides memory."""


@_of(offered(Offer.TRAIN))
class TrainingFlags(RecipeFlags):
    """What decides training beyond memory."""


def recipe_of(model: str | None, changes: dict[str, Any]) -> Recipe:
    """The recipe of a file with flags over it, or of a model and flags.

    Args:
        model: a recipe file ending in ``.toml``, or a model.
        changes: fields of the recipe.

    Raises:
        UsageError: no model is named.
    """
    if model is not None and Path(model).suffix == ".toml":
        return load_recipe(model, **changes)
    if model is None:
        raise UsageError("Which model?", hint="Such as: memfit plan torchvision:resnet50")
    return Recipe(model=model, **changes)


def training_recipe(model: str | None, changes: dict[str, Any]) -> Recipe:
    """The recipe to train; what is not said at all is the built-in example."""
    if model is None:
        return example_recipe(**changes)
    recipe = recipe_of(model, changes)
    return recipe if recipe.data is not None else recipe.but(data="shapes")
