"""The largest batch for which something holds."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["largest_batch"]


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
