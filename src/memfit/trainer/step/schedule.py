"""The learning rate at every step, a function of the step alone: a resumed run needs no state."""

from __future__ import annotations

import math
from collections.abc import Mapping

from memfit.planner.learning_rate import scale_learning_rate
from memfit.recipe.recipe import Recipe
from memfit.step.job import Job
from memfit.step.optimizers import is_adaptive, optimizer_name

__all__ = ["has_own_rate", "peak_learning_rate", "rate_at"]

#: What people start from: 0.1 for SGD (He et al. 2015, arXiv 1512.03385, section 4.2), 0.001 for
#: Adam (Kingma and Ba 2014, arXiv 1412.6980, section 2); Lion a fifth of it (Chen et al. 2023,
#: arXiv 2302.06675, section 5: 3 to 10 times smaller).
_USUAL = {"sgd": 0.1, "lion": 2e-4, "adagrad": 0.01, "adadelta": 1.0, "rprop": 0.01}
_USUAL_OTHERS = 1e-3


def peak_learning_rate(recipe: Recipe, global_batch: int) -> float:
    """The learning rate after warm-up: given, carried over from ``base_lr``, or the usual one.

    Args:
        recipe: says which.
        global_batch: samples for one optimizer step.
    """
    if recipe.lr is not None:
        return recipe.lr
    if recipe.base_lr is not None:
        adaptive = is_adaptive(recipe.optimizer)
        base = recipe.base_batch_size
        return scale_learning_rate(recipe.base_lr, base, global_batch, adaptive=adaptive).value
    return _USUAL.get(optimizer_name(recipe.optimizer), _USUAL_OTHERS)


def has_own_rate(job: Job) -> bool:
    """Whether the optimizer was given its learning rate itself, and the recipe gives no other."""
    if job.recipe.lr is not None or job.recipe.base_lr is not None:
        return False
    options = job.recipe.optimizer
    return job.own.optimizer is not None or (isinstance(options, Mapping) and "lr" in options)


def rate_at(step: int, total_steps: int, recipe: Recipe) -> float:
    """The share of the peak learning rate that an optimizer step uses.

    A linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2016, arXiv 1608.03983), a
    division by ten at each milestone, or no change.

    Args:
        step: from 0.
        total_steps: of the whole run.
        recipe: ``schedule``, ``warmup``, ``milestones``.

    >>> recipe = Recipe(model="mlp", schedule="cosine", warmup=0.1)
    >>> [round(rate_at(step, 20, recipe), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    warmup_steps = round(recipe.warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if recipe.schedule == "step":
        passed = sum(step >= share * total_steps for share in recipe.milestones)
        return float(10.0**-passed)
    if recipe.schedule == "cosine":
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
