"""Counts, shares and shapes as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from memfit.report.console.terminal import Marks

__all__ = ["count", "largest_remainders", "shape"]


def count(number: int) -> str:
    """A large count with three figures and a letter (decimal).

    >>> count(25_557_032), count(1_290), count(17_563_828_224)
    ('25.6 M', '1,290', '17.6 G')
    """
    for factor, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= factor:
            digits = max(0, 3 - len(str(number // factor)))
            return f"{number / factor:,.{digits}f} {letter}"
    return f"{number:,}"


def shape(sizes: Sequence[int], marks: Marks) -> str:
    """A shape as it is typed, ``3×224×224``."""
    return marks.times.join(str(size) for size in sizes)


def largest_remainders(amounts: Sequence[int], whole: int = 1000) -> list[int]:
    """Shares of ``whole`` that sum to it exactly: the largest fractions are rounded up.

    Args:
        amounts: not negative.
        whole: 1000 for per cent with one digit.

    >>> largest_remainders([1, 1, 1])
    [334, 333, 333]
    """
    total = sum(amounts)
    if total == 0:
        return [0] * len(amounts)
    shares = [amount * whole // total for amount in amounts]
    by_fraction = sorted(range(len(amounts)), key=lambda i: -(amounts[i] * whole % total))
    for i in by_fraction[: whole - sum(shares)]:
        shares[i] += 1
    return shares
