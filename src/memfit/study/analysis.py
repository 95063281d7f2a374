"""From the trials to results: what each batch size reached, and at what price."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from memfit.study.results import GoalReached, Measured, RateTried, SizeResult, StudySettings
from memfit.study.science.goal import Evaluated, Goal, at_step, crossing
from memfit.study.science.rate_rule import TunedRate
from memfit.study.search import SizeRecords
from memfit.study.trials.trial import TrialRecord
from memfit.study.trials.tuning import early_loss, tuned_rate

__all__ = ["size_result"]


def size_result(
    records: SizeRecords,
    settings: StudySettings,
    goal: Goal | None,
    step_seconds: Mapping[int, float],
) -> SizeResult:
    """What one batch size reached.

    Args:
        records: its trials.
        settings: what they have in common.
        goal: to reach.
        step_seconds: measured, by batch size.
    """
    batch, whole = records.batch_size, [r for r in records.seeds if r.outcome == "finished"]
    rung = settings.rung_steps(batch)
    rate: TunedRate | None = None
    if records.best is not None and whole:
        rate = tuned_rate(records.by_rate, records.best, whole, rung)
    evaluated = [r for r in whole if r.train_accuracy is not None and r.evaluations]
    return SizeResult(
        batch_size=batch,
        tried=tuple(_tried(records.by_rate[r], rung) for r in sorted(records.by_rate)),
        rate=rate,
        goal=_goal_reached(whole, goal, batch, step_seconds.get(batch)),
        equal_epochs=_accuracy_at(whole, settings.epoch_steps(batch)),
        equal_steps=_accuracy_at(whole, settings.steps),
        train_accuracy=_measured(evaluated, lambda r: r.train_accuracy),
        val_accuracy=_measured(evaluated, lambda r: r.evaluations[-1].accuracy),
        train_loss=_measured(evaluated, lambda r: r.train_loss),
        val_loss=_measured(evaluated, lambda r: r.evaluations[-1].loss),
        problem=_problem(records, whole),
    )


def _tried(record: TrialRecord, rung: int) -> RateTried:
    loss = early_loss(record, rung)
    early = loss if math.isfinite(loss) else None
    return RateTried(record.trial.learning_rate, record.outcome, record.step, early)


def _goal_reached(
    whole: Sequence[TrialRecord], goal: Goal | None, batch: int, step_seconds: float | None
) -> GoalReached | None:
    if goal is None or not whole:
        return None
    found = [crossing(record.evaluations, goal) for record in whole]
    resolution = max((_between(record.evaluations) for record in whole), default=0)
    steps = tuple(None if each is None else each.steps for each in found)
    return GoalReached(steps, step_seconds, batch, resolution)


def _between(points: Sequence[Evaluated]) -> int:
    """Steps between the first two evaluations."""
    return points[1].step - points[0].step if len(points) > 1 else points[0].step if points else 0


def _accuracy_at(whole: Sequence[TrialRecord], step: int) -> Measured | None:
    points = [at_step(record.evaluations, step) for record in whole]
    values = tuple(point.accuracy for point in points if point is not None)
    return Measured(values) if values and len(values) == len(points) else None


def _measured(
    records: Sequence[TrialRecord], value: Callable[[TrialRecord], float | None]
) -> Measured | None:
    values = tuple(found for record in records if (found := value(record)) is not None)
    return Measured(values) if values else None


def _problem(records: SizeRecords, whole: Sequence[TrialRecord]) -> str | None:
    rates = sorted(records.by_rate)
    span = f"learning rates {rates[0]:g} to {rates[-1]:g}" if rates else "no learning rate"
    outcomes = {record.outcome for record in records.by_rate.values()}
    if outcomes == {"diverged"}:
        return f"All {len(rates)} trials diverged ({span})."
    if outcomes == {"does not fit"}:
        return "No trial fits the memory of the device."
    if records.best is None:
        return f"No trial came to its end ({span})."
    if not whole:
        return f"At learning rate {records.best:g} every seed diverged."
    return None
