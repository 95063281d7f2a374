"""The largest micro-batch that really runs."""

from __future__ import annotations

from collections.abc import Callable

from memfit.measure.records import Limit
from memfit.measure.search import largest_batch
from memfit.recipe.fields import MAX_BATCH

__all__ = ["find_limit"]


class _Stopped(Exception):
    """A process neither ran nor ran out of memory, so the search knows nothing more."""


def find_limit(run: Callable[[int], str], predicted: int) -> Limit:
    """Try micro-batches, each in a fresh process, around the predicted largest.

    Args:
        run: measures a micro-batch and gives its status.
        predicted: where to look first.

    Returns:
        The largest that ran; incomplete when a process crashed or took too long on the way.
    """
    tried: dict[int, str] = {}

    def holds(batch_size: int) -> bool:
        if batch_size not in tried:
            tried[batch_size] = run(batch_size)
        if tried[batch_size] not in ("ok", "out_of_memory"):
            raise _Stopped
        return tried[batch_size] == "ok"

    bound = min(MAX_BATCH, max(4 * predicted, 16))
    try:
        largest = largest_batch(holds, bound, max(predicted, 1))
    except _Stopped:
        ran = [batch for batch, status in tried.items() if status == "ok"]
        return Limit(max(ran, default=0), tuple(tried.items()), is_complete=False)
    return Limit(largest, tuple(tried.items()), is_complete=largest < bound)
