"""``memfit.plan``: from a model and a few words to a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from memfit.cards.catalogue import GPU, local_gpu
from memfit.cards.catalogue import gpu as find_gpu
from memfit.data.loading.loader import with_data
from memfit.errors import UnknownName
from memfit.memory.recording.recorder import Recorder
from memfit.models import build
from memfit.planner.plan import Plan
from memfit.planner.tracing import TrainingStep
from memfit.recipe.recipe import Recipe

__all__ = ["DEFAULT_CARD", "plan", "plan_recipe"]

#: The card whose rules hold when no card is named: the most common architecture.
DEFAULT_CARD = "rtx-3060"


def plan(model: Any, *, gpu: str | GPU | None = None, verify: bool = True, **options: Any) -> Plan:
    """Where every byte of GPU memory goes, and the batch that fits.

    Args:
        model: a spec such as ``"torchvision:resnet50"``, an ``nn.Module`` or a callable that
            makes one; or a :class:`~memfit.Recipe`.
        gpu: a name in the catalogue, a size such as ``"11GiB"``, or a :class:`~memfit.GPU`; the
            local GPU with its free memory when there is one and none is named.
        verify: hold the arithmetic against a third trace at the recommended batch.
        **options: fields of :class:`~memfit.Recipe`: ``input_shape``, ``num_classes``,
            ``batch_size``, ``optimizer``, ``precision``, and so on.

    Returns:
        The plan: ``plan.max_batch_size``, ``plan.at(64).parts``, ``plan.to_dict()``.

    Raises:
        MemfitError: see :mod:`memfit.errors`.

    Example:
        >>> import memfit
        >>> plan = memfit.plan("mlp", input_shape=(1, 28, 28), gpu="11GiB")
        >>> plan.at(64).parts["batch"]
        201216
    """
    known = {field.name for field in fields(Recipe)}
    for name in options:
        if name not in known:
            raise UnknownName("option", name, known)
    recipe = model.but(**options) if isinstance(model, Recipe) else Recipe(model=model, **options)
    return plan_recipe(recipe, _card(gpu), verify=verify)


def plan_recipe(
    recipe: Recipe,
    gpu: GPU | None,
    *,
    verify: bool = True,
    watch: Callable[[int, Recorder], None] | None = None,
) -> Plan:
    """Plan a recipe for a card, or for none.

    Args:
        recipe: what decides memory.
        gpu: the card.
        verify: hold the arithmetic at the recommended batch against a third trace.
        watch: told of every trace that begins: its micro-batch, and the recorder at work.
    """
    recipe = with_data(recipe)
    built = build(recipe.model, input_shape=recipe.input_shape, num_classes=recipe.num_classes)
    step = TrainingStep(recipe, built, gpu or find_gpu(DEFAULT_CARD), watch=watch)
    plan = Plan(recipe, step, built.name, gpu)
    if verify:
        plan.verify(plan.micro_batch)
    return plan


def _card(gpu: str | GPU | None) -> GPU | None:
    if isinstance(gpu, str):
        return find_gpu(gpu)
    if gpu is None and (local := local_gpu()) is not None:
        card, free_bytes = local
        return card.with_free_bytes(free_bytes)
    return gpu
