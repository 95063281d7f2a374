"""What a set asks of a model, and how that was found out."""

from __future__ import annotations

from dataclasses import dataclass

from memfit.data.samples.dataset import Dataset
from memfit.recipe.fields import Task

__all__ = ["TaskFacts", "ValueFacts", "task_facts"]


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """A value to predict, in the training split.

    Args:
        name: of the column.
        least: the smallest.
        mean: of all.
        most: the largest.
    """

    name: str
    least: float
    mean: float
    most: float


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is asked of a sample.

    Args:
        name: classes, masks, values or labels; None where nothing is known of the samples.
        reason: why it is that, in a few words; empty where the source leaves no choice.
        values: to predict; empty for other tasks.
    """

    name: Task | None
    reason: str
    values: tuple[ValueFacts, ...] = ()


def task_facts(dataset: Dataset) -> TaskFacts:
    """What a set asks for."""
    targets = dataset.train.targets if dataset.splits else None
    values: tuple[ValueFacts, ...] = ()
    if targets is not None and dataset.value_names:
        columns = targets.reshape(len(targets), -1).T
        values = tuple(
            ValueFacts(name, float(column.min()), float(column.mean()), float(column.max()))
            for name, column in zip(dataset.value_names, columns, strict=True)
        )
    return TaskFacts(dataset.task, dataset.task_reason, values)
