"""From the plan to the sizes that a run's micro-batch may take."""

from __future__ import annotations

import math

from memfit.memory.allocator.settings import AllocatorSettings
from memfit.memory.allocator.timeline import fits
from memfit.planner.plan import Plan

__all__ = ["even_sizes", "sizes_that_fit"]


def even_sizes(count: int, largest: int | None = None) -> list[int]:
    """Sizes that split ``count`` samples evenly into 1, 2, 3, 4, 6, 8, 12, ... parts.

    Args:
        count: samples on this device for one optimizer step.
        largest: no size above this one.

    >>> even_sizes(64)
    [64, 32, 22, 16, 11, 8, 6, 4, 3, 2, 1]
    """
    parts = [1]
    while parts[-1] < count:
        power = 1 << (parts[-1].bit_length() - 1)
        parts.append(power * 3 // 2 if parts[-1] == power and power > 1 else 2 * power)
    sizes = sorted({math.ceil(count / number) for number in parts}, reverse=True)
    return [size for size in sizes if largest is None or size <= largest]


def sizes_that_fit(plan: Plan, count: int, memory_bytes: int | None) -> list[int]:
    """The sizes that the plan says fit, largest first; the smallest one if it says none does.

    Args:
        plan: of the recipe, for the card where there is one.
        count: samples on this device for one optimizer step.
        memory_bytes: what a device that is no card may give; None where nothing limits it.
    """
    asked = plan.recipe.batch_size
    sizes = even_sizes(count, asked)
    if asked is not None and asked <= count and asked not in sizes:
        sizes.insert(0, asked)
    if plan.gpu is not None:
        limit = plan.max_batch_size if asked is not None else plan.recommended_batch_size
        chosen = [size for size in sizes if size <= (limit or 0)]
    elif memory_bytes is not None:
        settings = AllocatorSettings.parse(plan.recipe.allocator)
        chosen = [s for s in sizes if fits(*plan.tape_at(s), memory_bytes, settings)]
    else:
        chosen = sizes
    return chosen or sizes[-1:]
