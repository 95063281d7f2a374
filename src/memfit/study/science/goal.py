"""A goal of training, and when a run reached it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from memfit.errors import UsageError

__all__ = ["Crossing", "Evaluated", "Goal", "at_step", "crossing", "parse_goal"]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model on the validation images, after so many optimizer steps.

    Args:
        step: optimizer steps.
        loss: mean cross-entropy.
        accuracy: share of right answers.
    """

    step: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Goal:
    """What training is to reach on the validation images.

    Args:
        kind: accuracy from below, or loss from above.
        value: the accuracy or the loss.
        is_given: by the user; else chosen so that batch sizes can be compared.
    """

    kind: Literal["accuracy", "loss"]
    value: float
    is_given: bool = True

    def is_met(self, point: Evaluated) -> bool:
        """Whether an evaluation is as good as the goal."""
        if self.kind == "accuracy":
            return point.accuracy >= self.value
        return point.loss <= self.value

    def __str__(self) -> str:
        if self.kind == "accuracy":
            return f"validation accuracy {self.value:.4g}"
        return f"validation loss {self.value:.4g}"


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a run reached the goal: between two evaluations, so in an interval.

    Args:
        steps: interpolated linearly between the two.
        low: the evaluation before.
        high: the evaluation that met the goal.
    """

    steps: float
    low: int
    high: int


def parse_goal(text: str) -> Goal:
    """``"accuracy=0.95"`` or ``"loss=0.3"``.

    Raises:
        UsageError: it is neither.
    """
    kind, _, number = text.partition("=")
    hint = "Write it like accuracy=0.95 or loss=0.3."
    if kind not in ("accuracy", "loss"):
        raise UsageError(f"{text!r} is no goal.", hint=hint)
    try:
        value = float(number)
    except ValueError:
        raise UsageError(f"{text!r} is no goal: {number!r} is no number.", hint=hint) from None
    if kind == "accuracy" and not 0 < value <= 1:
        raise UsageError(f"An accuracy of {number} cannot be reached: it is a share.", hint=hint)
    if not 0 < value < float("inf"):
        raise UsageError(f"A loss of {number} is no goal; it must be positive.", hint=hint)
    return Goal("accuracy" if kind == "accuracy" else "loss", value)


def crossing(points: Sequence[Evaluated], goal: Goal) -> Crossing | None:
    """Where a run first met the goal; None where it never did.

    Args:
        points: evaluations, by step.
        goal: what to reach.

    >>> points = [Evaluated(10, 1.0, 0.5), Evaluated(20, 0.5, 0.7)]
    >>> crossing(points, Goal("accuracy", 0.6)).steps
    15.0
    """
    before: Evaluated | None = None
    for point in points:
        if goal.is_met(point):
            if before is None:
                return Crossing(float(point.step), 0, point.step)
            reached, start = getattr(point, goal.kind), getattr(before, goal.kind)
            share = (goal.value - start) / (reached - start)
            steps = before.step + share * (point.step - before.step)
            return Crossing(steps, before.step, point.step)
        before = point
    return None


def at_step(points: Sequence[Evaluated], step: int) -> Evaluated | None:
    """A run at a step: interpolated between the evaluations around; None outside of them."""
    before: Evaluated | None = None
    for point in points:
        if point.step == step:
            return point
        if point.step > step:
            if before is None:
                return None
            share = (step - before.step) / (point.step - before.step)
            loss = before.loss + share * (point.loss - before.loss)
            return Evaluated(
                step, loss, before.accuracy + share * (point.accuracy - before.accuracy)
            )
        before = point
    return None
