"""The largest batch for which something holds."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["largest_batch"]


def largest_batch(holds: Callable[[int], bool], bound: int, *, near_bound: bool = False) -> int:
    """The largest number from 1 to ``bound`` that holds; 0 when not even 1 does.

    Args:
        holds: true up to some number and false after it.
        bound: never asked beyond it.
        near_bound: look downward from ``bound``, where the answer is close to it.

    >>> largest_batch(lambda batch: batch * 7 <= 100, bound=1000)
    14
    """
    if bound < 1 or not holds(1):
        return 0
    low, high = (_from_above if near_bound else _from_below)(holds, bound)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _from_below(holds: Callable[[int], bool], bound: int) -> tuple[int, int]:
    low = 1
    while low * 2 <= bound and holds(low * 2):
        low *= 2
    return low, min(low * 2, bound + 1)


def _from_above(holds: Callable[[int], bool], bound: int) -> tuple[int, int]:
    high, width = bound + 1, max(1, bound // 64)
    while high - width > 1 and not holds(high - width):
        high -= width
        width *= 2
    return max(1, high - width), high
