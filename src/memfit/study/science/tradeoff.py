"""The trade-off between optimizer steps and examples, and the critical batch size.

McCandlish et al. 2018 (arXiv 1812.06162), equation 5.1: ``S/S_min - 1 = (E/E_min - 1)^-1``, with
``B_crit = E_min / S_min``. As a run at batch ``B`` sees ``E = B S`` examples, it is the same as
``S = S_min (1 + B_crit/B)``: two numbers, fitted to the logarithm of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CriticalBatch", "TradeOff", "fit_tradeoff"]

Vector = NDArray[np.float64]

#: How far beyond the measured batch sizes a critical batch is looked for.
_BEYOND = 100.0
_GRID = 400


@dataclass(frozen=True, slots=True)
class CriticalBatch:
    """``B_crit`` with its interval; an open end is None.

    Args:
        value: samples.
        low: None when every smaller value is as likely.
        high: None when every larger value is as likely.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def is_bounded(self) -> bool:
        """Whether the measurements bound it on both sides."""
        return self.low is not None and self.high is not None


@dataclass(frozen=True, slots=True)
class TradeOff:
    """The fitted curve.

    Args:
        min_steps: ``S_min``, with batches of any size.
        min_examples: ``E_min``, with batches of one.
        critical: ``E_min / S_min``, with its 95 % interval.
        spread: standard deviation of the logarithm of the steps around the curve.
        batch_sizes: that reached the goal.
    """

    min_steps: float
    min_examples: float
    critical: CriticalBatch
    spread: float
    batch_sizes: tuple[int, ...]

    def steps(self, batch_size: float) -> float:
        """Optimizer steps to the goal."""
        return self.min_steps * (1 + self.critical.value / batch_size)

    def examples(self, batch_size: float) -> float:
        """Examples to the goal."""
        return self.min_examples * (1 + batch_size / self.critical.value)


def fit_tradeoff(
    batch_sizes: Sequence[int], steps: Sequence[Sequence[float]], *, resamples: int = 1000
) -> TradeOff | None:
    """Fit the curve by least squares of logarithms; its interval by a bootstrap.

    The bootstrap draws the mean of every batch size again around the curve, with the larger of
    two spreads: among seeds, and of the means around the curve; both have Student's tails.

    Args:
        batch_sizes: samples for one optimizer step.
        steps: to the goal, for each seed of each batch size; without those that never reached it.
        resamples: of the bootstrap.

    Returns:
        None with fewer than three batch sizes that reached the goal: two points fit any curve.
    """
    rows = [(b, s) for b, s in zip(batch_sizes, steps, strict=True) if len(s)]
    if len(rows) < 3:
        return None
    sizes = np.array([b for b, _ in rows], dtype=float)
    logs = [np.log(np.asarray(s, dtype=float)) for _, s in rows]
    means = np.array([values.mean() for values in logs])
    grid = np.geomspace(sizes.min() / _BEYOND, sizes.max() * _BEYOND, _GRID)
    critical, least = (float(values[0]) for values in _fits(means[None], sizes, grid))
    curve = np.log(least) + np.log1p(critical / sizes)
    noise, freedom = _noise(logs, means - curve)
    random = np.random.default_rng(0)
    scale = np.sqrt(freedom / random.chisquare(freedom, size=(resamples, 1)))
    drawn = curve + random.standard_normal((resamples, len(sizes))) * noise * scale
    found = _fits(drawn, sizes, grid)[0]
    low, high = np.quantile(found, [0.025, 0.975])
    return TradeOff(
        least,
        critical * least,
        CriticalBatch(
            critical,
            None if low <= grid[1] else float(low),
            None if high >= grid[-2] else float(high),
        ),
        float(np.sqrt(np.mean((means - curve) ** 2))),
        tuple(b for b, _ in rows),
    )


def _fits(logs: Vector, sizes: Vector, grid: Vector) -> tuple[Vector, Vector]:
    """Critical batch and fewest steps for each row of logarithms ``(R, sizes)``.

    For a given critical batch the best ``log S_min`` is a mean, so one number is searched: on a
    logarithmic grid, then between its neighbours by a parabola.
    """
    shape = np.log1p(grid[:, None] / sizes)  # (grid, sizes)
    centred = shape - shape.mean(1, keepdims=True)
    targets = logs - logs.mean(1, keepdims=True)
    errors = (
        (targets**2).sum(1)[:, None] - 2 * targets @ centred.T + (centred**2).sum(1)[None]
    )  # (R, grid)
    best = errors.argmin(1)
    inner = best.clip(1, len(grid) - 2)
    rows = np.arange(len(logs))
    left, middle, right = (errors[rows, inner + k] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    place = np.where(best == inner, inner + shift.clip(-1, 1), best)
    critical = np.exp(np.interp(place, np.arange(len(grid)), np.log(grid)))
    least = np.exp((logs - np.log1p(critical[:, None] / sizes)).mean(1))
    return critical, least


def _noise(logs: Sequence[Vector], misfit: Vector) -> tuple[Vector, int]:
    """Standard deviation of the mean of every batch size, and its degrees of freedom."""
    counts = np.array([len(values) for values in logs])
    around_curve = float(np.sqrt((misfit**2).sum() / max(1, len(misfit) - 2)))
    freedom = int((counts - 1).sum())
    if freedom:
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
        among_seeds = np.sqrt(squares / freedom) / np.sqrt(counts)
        if float(np.sqrt((among_seeds**2).mean())) > around_curve:
            return among_seeds, freedom
    return np.full(len(logs), around_curve), max(1, len(misfit) - 2)
