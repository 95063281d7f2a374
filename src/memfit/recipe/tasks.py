"""What data asks for, in one table: the loss that learns it and the figure that judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memfit.recipe.fields import Task

__all__ = ["TASKS", "TaskFacts"]


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task.

    Args:
        losses: names of losses that fit its targets; the first is meant where none is named.
        metric: decides which weights are best; its name in files.
        words: how it is told.
        is_share: it goes from 0 to 1, and more is better; else it is an error in the unit of the
            values, and less is better.
        parts: what it is a mean over, and what it is of each of them.
    """

    losses: tuple[str, ...]
    metric: str
    words: str
    is_share: bool
    parts: str

    def is_better(self, score: float, than: float) -> bool:
        """Whether one score beats another."""
        return score > than if self.is_share else score < than

    def shown(self, score: float) -> str:
        """The score with its name.

        >>> TASKS["masks"].shown(0.5), TASKS["values"].shown(3.25)
        ('mIoU 50.00%', 'MAE 3.25')
        """
        return f"{self.words} {self.shown_alone(score)}"

    def shown_alone(self, score: float) -> str:
        """The score: per cent, or in the unit of the values."""
        return f"{score:.2%}" if self.is_share else f"{score:.4g}"


TASKS: Mapping[Task, TaskFacts] = {
    "classes": TaskFacts(
        ("cross-entropy", "triplet", "contrastive", "none"), "accuracy", "accuracy", True,
        "Accuracy by class",
    ),
    # Jaccard's index, a mean over classes: Everingham et al. 2015, "The PASCAL VOC challenge"
    "masks": TaskFacts(
        ("cross-entropy",), "mean_iou", "mIoU", True, "Intersection over union by class"
    ),
    "values": TaskFacts(
        ("mse", "l1", "smooth-l1"), "mean_absolute_error", "MAE", False,
        "Mean absolute error by column",
    ),
    "labels": TaskFacts(
        ("bce",), "mean_average_precision", "mAP", True, "Average precision by label"
    ),
}  # fmt: skip
