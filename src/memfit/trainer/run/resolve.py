"""From the recipe that was given to the one that is trained: every open question answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memfit.cards.catalogue import GPU
from memfit.data.loading.loader import DEFAULT_BATCH, Loader, loader, with_data
from memfit.errors import DataError, UsageError
from memfit.planner.plan import Plan
from memfit.planner.planning import plan_recipe
from memfit.recipe.recipe import Recipe

__all__ = ["absolute", "resolved"]


def resolved(
    recipe: Recipe, card: GPU | None, *, keeps_gradients: bool = False
) -> tuple[Plan, Recipe]:
    """Plan a recipe and fill in what its data and its model decide.

    Args:
        recipe: names data.
        card: with its free memory; None on the CPU.
        keeps_gradients: they stay in buckets from step to step, as on several ranks.

    Returns:
        The plan, and the recipe with data opened and shape, classes, normalisation and global
        batch set.

    Raises:
        DataError: the labels do not fit the classes.
        UsageError: the recipe's parts do not go together.
    """
    global_batch = recipe.global_batch
    if global_batch is None:
        global_batch = (recipe.batch_size or DEFAULT_BATCH) * recipe.accumulation
    recipe = with_data(recipe.but(global_batch=global_batch))
    _check_labels(recipe)
    # the plan is of one micro-batch; how many of them make the global batch is found later
    kept = "zero" if keeps_gradients else recipe.zero_grad
    asked = recipe.but(global_batch=None, accumulation=1, zero_grad=kept)
    plan = plan_recipe(asked, card, verify=False)
    batch = plan.step.batch
    made: Loader = batch.loader if batch.loader is not None else loader(recipe)
    classes = _classes(plan, recipe)
    return plan, recipe.but(
        input_shape=made.shape, mean=made.mean, std=made.std, num_classes=classes
    )


def _classes(plan: Plan, recipe: Recipe) -> int | None:
    """Scores that the model gives: as many as there are classes, or more.

    Raises:
        UsageError: there are fewer.
    """
    width, classes = plan.step.output_classes(), recipe.num_classes
    if width is None or classes is None:
        return classes
    if width < classes:
        raise UsageError(
            f"{plan.model_name} gives {width} scores, the data has {classes} classes.",
            hint="Let the model take num_classes, or give its last layer as many outputs.",
        )
    return width


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with the paths in it made absolute, so that it works from any folder."""
    changes: dict[str, str] = {}
    for name in ("data", "root", "weights"):
        value = getattr(recipe, name)
        if isinstance(value, (str, Path)) and Path(value).exists():
            changes[name] = str(Path(value).resolve())
    for name in ("model", "transform"):
        value = getattr(recipe, name)
        file, _, attribute = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if file.endswith(".py") and Path(file).exists():
            changes[name] = f"{Path(file).resolve()}:{attribute}"
    return recipe.but(**changes)


def _check_labels(recipe: Recipe) -> None:
    for split in recipe.data.splits.values():
        if split.labels is None or recipe.num_classes is None or not len(split):
            continue
        bad = np.flatnonzero((split.labels < 0) | (split.labels >= recipe.num_classes))
        if len(bad):
            raise DataError(
                f"{len(bad):,} labels of {split.name} lie outside of 0 to "
                f"{recipe.num_classes - 1}; the first is {int(split.labels[bad[0]])} of "
                f"{split.sample_name(int(bad[0]))}.",
                hint=f"Leave out --num-classes, or give at least {int(split.labels.max()) + 1}.",
            )
