"""A job: a recipe with everything that it names found once, for plan, train, study and measure."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from memfit.cards.catalogue import GPU
from memfit.data.loading.source import Source
from memfit.errors import UnknownName, UsageError
from memfit.recipe.fields import FIELDS, Task
from memfit.recipe.own import Own
from memfit.recipe.recipe import Recipe
from memfit.recipe.tasks import TASKS
from memfit.recipe.words import LOSS_NAMES, parse_terms

if TYPE_CHECKING:
    from memfit.data.loading.loader import Loader

__all__ = ["Job", "absolute", "resolve"]

#: What decides how data is opened.
_READING = ("data", "root", "task", "window", "frame", "val_share")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, resolved; made by :func:`resolve`.

    Args:
        asked: the recipe as it was given.
        recipe: the same with the shape and the classes that its data decides.
        own: what the user gave as Python objects; the recipe holds their names.
        source: the data, opened at most once; jobs that are made of this one share it.
        card: with its free memory; None where none is named, and on the CPU.
    """

    asked: Recipe
    recipe: Recipe
    own: Own
    source: Source | None
    card: GPU | None = None

    @property
    def model(self) -> Any:
        """What is built: the user's object, else the recipe's word."""
        return self.recipe.model if self.own.model is None else self.own.model

    @property
    def optimizer(self) -> Any:
        """The user's factory, else the recipe's name and options."""
        return self.recipe.optimizer if self.own.optimizer is None else self.own.optimizer

    @property
    def data(self) -> Source:
        """What is trained on.

        Raises:
            UsageError: the recipe names none.
        """
        if self.source is None:
            raise UsageError("The recipe names no data.", hint='Add: data = "mnist", or a folder.')
        return self.source

    def loader(
        self,
        split: str | None = None,
        *,
        batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Loader:
        """Delivers the data, as :func:`memfit.data.loader` does.

        Raises:
            DataError: the data cannot be opened or has no labels.
            UsageError: shapes or channels disagree.
        """
        from memfit.data.loading.loader import Loader

        return Loader(
            self.recipe, self.data, split, batch_size=batch_size, rank=rank,
            world_size=world_size, transform=self.own.transform,
        )  # fmt: skip

    def but(self, **changes: Any) -> Job:
        """The job of the same recipe with some values changed; its data is not opened again."""
        plain, own = Own.split(changes)
        return self.of(self.asked.but(**plain), own)

    def of(self, recipe: Recipe, own: Own | None = None) -> Job:
        """The job of another recipe, with what this one has found as far as the names agree.

        Args:
            recipe: such as one that a run has written down, or one of a study's trials.
            own: further objects, which win.
        """
        old, new = absolute(self.asked), absolute(recipe)

        def is_same(name: str) -> bool:
            return bool(getattr(old, name) == getattr(new, name))

        kept = {name: value for name, value in self.own.given().items() if is_same(name)}
        added = {} if own is None else own.given()
        is_same_data = "data" not in added and all(map(is_same, _READING))
        source = self.source if is_same_data else None
        return _made(recipe, Own(**kept | added), source, self.card)

    def on(self, card: GPU | None) -> Job:
        """The same job on another card, or on none."""
        return replace(self, card=card)

    def absolute(self) -> Job:
        """The same job with the paths in its recipe made absolute."""
        return replace(self, asked=absolute(self.asked), recipe=absolute(self.recipe))


def resolve(recipe: Any = None, *, card: GPU | None = None, **options: Any) -> Job:
    """Find what a recipe names: open its data, and see which shape and classes follow.

    Args:
        recipe: a :class:`~memfit.Recipe`, or a job; or only the model, as ``model`` in the options.
        card: with its free memory.
        **options: fields of the recipe; here they may be objects, see
            :class:`~memfit.recipe.own.Own`.

    Raises:
        UnknownName: no recipe has such a field.
        UsageError: a value is impossible, or the recipe names code that is not there.
        DataError: the data cannot be opened.
    """
    for name in options:
        if name not in FIELDS:
            raise UnknownName("option", name, FIELDS)
    if isinstance(recipe, Job):
        job = recipe.but(**options) if options else recipe
        return job if card is None else job.on(card)
    if not isinstance(recipe, (Recipe, NoneType)):
        recipe, options = None, {"model": recipe, **options}
    if recipe is None and "model" not in options:
        raise UsageError("Which model?", hint='Such as: model="torchvision:resnet50".')
    plain, own = Own.split(options)
    return _made(Recipe(**plain) if recipe is None else recipe.but(**plain), own, None, card)


def _made(asked: Recipe, own: Own, source: Source | None, card: GPU | None) -> Job:
    for name in ("loss", "step"):
        word = getattr(asked, name)
        if word is None or getattr(own, name) is not None:
            continue
        is_code = name == "step" or (word.isidentifier() and word not in LOSS_NAMES)
        if is_code or "<" in word:
            named = f" Known by name: {', '.join(LOSS_NAMES)}." if name == "loss" else ""
            raise UsageError(
                f"The recipe's {name} is {word}, which only your own code has.",
                hint=f"Give it in Python, beside the recipe: {name}={word}.{named}",
            )
        if ":" not in word:
            parse_terms(word)
    if source is None and asked.data is not None:
        source = Source(asked.data if own.data is None else own.data, asked)
    recipe = asked
    if source is not None:
        recipe = source.answer(asked, asked.model if own.model is None else own.model)
        recipe = _with_loss(recipe, own, source.dataset.task or "classes")
    return Job(asked=asked, recipe=recipe, own=own, source=source, card=card)


def _with_loss(recipe: Recipe, own: Own, task: Task) -> Recipe:
    """The recipe with the loss that its data asks for, where it names none.

    Raises:
        UsageError: it names one that does not fit what the data asks for.
    """
    fits, loss = TASKS[task].losses, recipe.loss
    if own.loss is not None or own.step is not None:
        return recipe
    if loss is None:  # cross-entropy knows the heads of libraries' models
        return recipe if task in ("classes", "masks") else recipe.but(loss=fits[0])
    strange = [] if ":" in loss else [name for _, name, _ in parse_terms(loss) if name not in fits]
    if strange:
        raise UsageError(
            f"The loss {strange[0]} is not of {task}, which {recipe.data} asks for.",
            hint=f"It takes {', '.join(fits)}, or your own: --loss file.py:name.",
        )
    return recipe


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with the paths in it made absolute, so that it works from any folder."""
    changes: dict[str, str] = {}
    for name in ("data", "root", "weights"):
        value = getattr(recipe, name)
        if value is not None and os.path.exists(value):  # noqa: PTH110 (too long a text is no path)
            changes[name] = str(Path(value).resolve())
    for name in ("model", "data", "transform"):
        file, _, attribute = (getattr(recipe, name) or "").rpartition(":")
        if file.endswith(".py") and os.path.exists(file):  # noqa: PTH110
            changes[name] = f"{Path(file).resolve()}:{attribute}"
    return recipe.but(**changes) if changes else recipe
