"""What a set asks of a model, and how that was found out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.dataset import Dataset, Problem, Split
from memfit.data.samples.masks import Masks
from memfit.errors import BadImage
from memfit.recipe.fields import Task

__all__ = ["TaskFacts", "ValueFacts", "mask_problems", "task_facts"]


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


def mask_problems(
    splits: Sequence[Split], sizes: Sequence[NDArray[np.uint32]]
) -> Iterator[Problem]:
    """Masks that cannot be read, or have another size than their image.

    Args:
        splits: with masks or without.
        sizes: of each split, ``(N, 2)`` width and height of its images; ``(0, 0)`` where one cannot
            be read.
    """
    for split, known in zip(splits, sizes, strict=True):
        if not isinstance(split.masks, Masks):
            continue
        for index, (width, height) in enumerate(known.tolist()):
            try:
                other = split.masks.size(index)
            except BadImage as error:
                yield Problem(error.name, f"the mask cannot be read: {error.reason}")
                continue
            if width and other != (width, height):
                reason = f"its mask is {other[0]} x {other[1]} pixels, not {width} x {height}"
                yield Problem(split.sample_name(index), reason)
