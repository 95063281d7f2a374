"""The largest micro-batch that really runs."""

from __future__ import annotations

from collections.abc import Callable

from memfit.measure.records import Limit
from memfit.recipe.fields import MAX_BATCH

__all__ = ["find_limit", "largest_batch"]


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


def largest_batch(holds: Callable[[int], bool], bound: int, guess: int = 1) -> int:
    """The largest number from 1 to ``bound`` that holds; 0 when not even 1 does.

    Args:
        holds: true up to some number and false after it; each question may be dear.
        bound: never asked beyond it.
        guess: where to look first; the better, the fewer questions.

    >>> largest_batch(lambda batch: batch * 7 <= 100, bound=1000)
    14
    """
    if bound < 1:
        return 0
    low, high = _bracket(holds, bound, min(max(guess, 1), bound))
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _bracket(holds: Callable[[int], bool], bound: int, guess: int) -> tuple[int, int]:
    """A number that holds (or 0) and a larger one that does not (or ``bound + 1``)."""
    width = max(1, guess // 32)
    if holds(guess):
        low = guess
        while low < bound:
            above = min(low + width, bound)
            if not holds(above):
                return low, above
            low, width = above, width * 2
        return bound, bound + 1
    high = guess
    while high > 1:
        below = max(high - width, 1)
        if holds(below):
            return below, high
        high, width = below, width * 2
    return 0, high
