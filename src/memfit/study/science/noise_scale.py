"""The simple noise scale from squared gradient norms at two batch sizes.

``B_simple = tr Σ / |G|²`` of McCandlish et al. 2018 (arXiv 1812.06162), where ``G`` is the true
gradient and ``Σ`` the covariance of one sample's gradient: up to about which batch size larger
batches save steps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memfit.errors import UsageError
from memfit.study.science.intervals import student_t

__all__ = ["NoiseScale", "noise_scale"]

_Values = NDArray[np.float64]
#: Numbers that are drawn at once in the bootstrap: 16 MB.
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """``B_simple`` with its interval, and the two terms that it is the ratio of.

    Args:
        value: ``tr Σ / |G|²`` in samples; None where ``|G|²`` cannot be told from zero.
        low: end of the interval; all that is known where ``value`` is None ("at least").
        high: end of the interval; None where there is none.
        grad_norm_squared: ``|G|²``, unbiased, so it may come out negative.
        trace: ``tr Σ``, unbiased.
        small_batch: samples behind each small squared norm.
        large_batch: samples behind each large one.
        samples: pairs that were averaged.
        reason: why ``value`` is None.
    """

    value: float | None
    low: float | None
    high: float | None
    grad_norm_squared: float
    trace: float
    small_batch: int
    large_batch: int
    samples: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def noise_scale(
    small_squares: ArrayLike,
    large_squares: ArrayLike,
    small_batch: int,
    large_batch: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> NoiseScale:
    """The simple noise scale from squared gradient norms at two batch sizes.

    ``|G|² = (B·|g_B|² − b·|g_b|²) / (B − b)`` and ``tr Σ = (|g_b|² − |g_B|²) / (1/b − 1/B)``, both
    unbiased, are averaged over the steps and then divided (McCandlish et al. 2018, appendix A.1).
    The 95 % interval is a bootstrap over steps: percentiles of the ratio of means, at levels
    widened for few steps (Hesterberg 2015, arXiv 1411.5279).

    Args:
        small_squares: for each step the squared norm of a small batch's gradient, or its mean over
            the step's micro-batches.
        large_squares: for each step the squared norm of the large batch's gradient.
        small_batch: b, samples.
        large_batch: B, samples.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UsageError: fewer than three steps, unequal numbers of them, or B not above b.

    >>> found = noise_scale([30.0, 34.0, 32.0, 33.0], [6.0, 7.0, 5.0, 6.5], 8, 64)
    >>> round(found.value), round(found.grad_norm_squared, 2), round(found.trace)
    (100, 2.39, 239)
    """
    if not 1 <= small_batch < large_batch:
        raise UsageError(
            f"Gradients at batch sizes {small_batch} and {large_batch} do not make a noise scale.",
            hint="The large batch must be larger than the small one: 2 micro-batches at least.",
        )
    small, large = (
        np.asarray(values, dtype=np.float64) for values in (small_squares, large_squares)
    )
    if small.ndim != 1 or small.shape != large.shape or len(small) < 3:
        raise UsageError(
            f"{small.size} small and {large.size} large squared norms: pairs of at least 3 steps "
            "are needed.",
            hint="Measure more steps.",
        )
    squares = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    traces = (small - large) / (1 / small_batch - 1 / large_batch)
    drawn = _means_of_resamples(np.stack((squares, traces), axis=1), resamples, seed)
    terms = float(squares.mean()), float(traces.mean())
    value, low, high = _ratio(terms, drawn, _tail(len(small)))
    reason = _NO_GRADIENT if value is None else None
    return NoiseScale(
        value, low, high, *terms, small_batch, large_batch, len(small), reason
    )  # fmt: skip


_NO_GRADIENT = (
    "The gradient cannot be told from zero against its noise: measure more steps, or larger "
    "batches."
)


def _tail(count: int) -> float:
    """The lower quantile to read from a bootstrap of ``count`` values."""
    wide = student_t(0.975, count - 1) * math.sqrt(count / (count - 1))
    return 0.5 * math.erfc(wide / math.sqrt(2))


def _means_of_resamples(terms: _Values, resamples: int, seed: int) -> _Values:
    """Means ``(resamples, 2)`` of as many steps, drawn with replacement."""
    random, count = np.random.default_rng(seed), len(terms)
    chunk = max(1, _DRAWN_AT_ONCE // count)
    shares = np.full(count, 1 / count)
    return np.concatenate(
        [
            random.multinomial(count, shares, size=min(chunk, resamples - start)) @ terms / count
            for start in range(0, resamples, chunk)
        ]
    )


def _ratio(
    terms: tuple[float, float], drawn: _Values, share: float
) -> tuple[float | None, float | None, float | None]:
    """Value and interval of ``tr Σ / |G|²``, as far as they are known; none of them negative."""
    squares, traces = drawn[:, 0], np.maximum(0.0, drawn[:, 1])
    ratios = np.full(len(drawn), np.inf)
    np.divide(traces, squares, out=ratios, where=squares > 0)
    low, high = np.quantile(ratios, (share, 1 - share), method="lower").tolist()
    if terms[0] <= 0 or not math.isfinite(high):
        return None, low if math.isfinite(low) else None, None
    return max(0.0, terms[1]) / terms[0], low, high
