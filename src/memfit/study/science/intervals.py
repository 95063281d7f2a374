"""How sure a mean of a few measurements is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

__all__ = ["mean_interval", "student_t"]


def student_t(share: float, degrees_of_freedom: int) -> float:
    """The quantile of Student's t distribution, within 1 % from four degrees of freedom on.

    The expansion around the normal quantile of Abramowitz and Stegun, 26.7.5.

    Args:
        share: of the distribution below it, between 0 and 1.
        degrees_of_freedom: at least 1.

    >>> round(student_t(0.975, 4), 2), round(student_t(0.975, 30), 3)
    (2.77, 2.042)
    """
    z, n = NormalDist().inv_cdf(share), degrees_of_freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its 95 % interval by Student's t.

    Args:
        values: at least two, independent.

    >>> mean_interval([2.0, 2.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    mean = fmean(values)
    half = student_t(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
