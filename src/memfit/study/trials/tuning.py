"""The learning rate tuned for each batch size: a grid, short trials, the best ones go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from memfit.study.science.goal import Goal, crossing
from memfit.study.science.rate_rule import TunedRate
from memfit.study.trials.trial import TrialRecord

__all__ = ["early_loss", "first_rates", "further_rates", "most_promising", "tuned_rate", "winner"]

#: All batch sizes share one grid of rates, each twice the one before.
FACTOR = 2.0
#: Rates tried first on each side of the guess, and added at most beyond an end of the grid.
_AROUND, _BEYOND = 2, 4


def first_rates(base_rate: float, base_batch: int, batch_size: int) -> list[float]:
    """The grid around the square root rule's guess, which lies between linear and none.

    Args:
        base_rate: of the recipe.
        base_batch: the global batch that it is for.
        batch_size: to tune.

    >>> first_rates(0.1, 64, 256)
    [0.05, 0.1, 0.2, 0.4, 0.8]
    """
    middle = round(math.log(batch_size / base_batch, FACTOR) / 2)
    return [_away(base_rate, middle + k) for k in range(-_AROUND, _AROUND + 1)]


def _away(rate: float, power: int) -> float:
    """So many places of the grid further."""
    return float(f"{rate * FACTOR**power:.4g}")


def further_rates(records: Mapping[float, TrialRecord], until: int) -> list[float]:
    """What to try next when the best rate lies at an end of the grid; empty when it does not.

    Args:
        records: of one batch size, by learning rate.
        until: the steps of the short trials.
    """
    rates = sorted(records)
    if len(rates) >= 2 * _AROUND + 1 + _BEYOND:
        return []
    usable = [rate for rate in rates if records[rate].is_usable]
    if not usable:
        return [_away(rates[0], power) for power in (-1, -2)]
    best = min(usable, key=lambda rate: early_loss(records[rate], until))
    if best == rates[0]:
        return [_away(best, -1)]
    return [_away(best, 1)] if best == rates[-1] else []


def early_loss(record: TrialRecord, until: int | None = None) -> float:
    """The lowest validation loss of a trial, in its first steps; infinite if not usable."""
    if not record.is_usable:
        return math.inf
    seen = [p.loss for p in record.evaluations if until is None or p.step <= until]
    return min(seen, default=math.inf)


def most_promising(records: Mapping[float, TrialRecord], until: int, count: int = 2) -> list[float]:
    """The rates whose trials go on: those with the lowest validation loss so far."""
    usable = [rate for rate in sorted(records) if records[rate].is_usable]
    return sorted(usable, key=lambda rate: early_loss(records[rate], until))[:count]


def winner(records: Mapping[float, TrialRecord], goal: Goal | None) -> float | None:
    """The best rate among whole trials: first at the goal, else the lowest loss.

    Args:
        records: of one batch size, by learning rate.
        goal: None: the lowest loss decides.

    Returns:
        None when no trial came to its end.
    """
    whole = {r: record for r, record in records.items() if record.outcome == "finished"}

    def order(rate: float) -> tuple[float, float]:
        reached = None if goal is None else crossing(whole[rate].evaluations, goal)
        return (math.inf if reached is None else reached.steps, early_loss(whole[rate]))

    return min(sorted(whole), key=order, default=None)


def tuned_rate(
    records: Mapping[float, TrialRecord], best: float, seeds: Sequence[TrialRecord], until: int
) -> TunedRate:
    """The best rate, with the range of rates that cannot be told from it.

    A rate cannot be told from the best when its loss in the short trial lies within two standard
    deviations (of a difference of two seeds) of the lowest; half a step of the grid is added.

    Args:
        records: of one batch size, by learning rate, the first seed.
        best: the chosen rate.
        seeds: whole trials at the best rate.
        until: the steps of the short trials.
    """
    losses = {rate: early_loss(record, until) for rate, record in records.items()}
    among_seeds = [early_loss(record, until) for record in seeds if record.is_usable]
    spread = float(np.std(among_seeds, ddof=1)) if len(among_seeds) > 1 else 0.0
    limit = min(losses.values()) + 2 * math.sqrt(2) * spread
    alike = [best, *(rate for rate, loss in losses.items() if loss <= limit)]
    half = math.sqrt(FACTOR)
    batch = records[best].trial.batch_size
    return TunedRate(batch, best, min(alike) / half, max(alike) * half)
