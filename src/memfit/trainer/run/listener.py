"""What a run tells while it goes on; reporters override what they want to hear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfit.planner.plan import Plan
from memfit.progress import Progress
from memfit.trainer.recovery.transaction import MicroBatchEvent
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult

__all__ = ["Beginning", "Listener", "Listeners"]


@dataclass(frozen=True)
class Beginning:
    """A run that is about to take its first step.

    Args:
        run: its folder.
        plan: what was predicted.
        device: in words.
        step: steps that were taken before, in a resumed run.
        total_steps: of the whole run.
        steps_per_epoch: optimizer steps.
        global_batch: samples for one optimizer step.
        micro_batch: samples in one forward, on one device.
        world_size: processes.
        learning_rate: at its peak.
        memory_bytes: what the device may give; None where nothing limits it.
    """

    run: Path
    plan: Plan
    device: str
    step: int
    total_steps: int
    steps_per_epoch: int
    global_batch: int
    micro_batch: int
    world_size: int
    learning_rate: float
    memory_bytes: int | None


class Listener(Progress):
    """Hears nothing: a base for reporters."""

    def began(self, beginning: Beginning) -> None:
        """The run is about to take its first step."""

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        """An optimizer step; ``used_bytes`` are reserved on the device, where that is known."""

    def changed_micro_batch(self, event: MicroBatchEvent) -> None:
        """The micro-batch changed."""

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        """An epoch is done, counted from 1; not every one is evaluated."""

    def tested(self, evaluation: Evaluation, step: int) -> None:
        """The run is at its end: its best weights, those after ``step``, on the test split."""

    def saved(self, path: Path) -> None:
        """A checkpoint is on the disk."""


def _to_all(name: str) -> Any:
    def tell(listeners: Listeners, *facts: Any) -> None:
        for each in listeners.each:
            getattr(each, name)(*facts)

    return tell


class Listeners(Listener):
    """Several that hear the same.

    Args:
        each: in the order in which they are told.
    """

    def __init__(self, each: Sequence[Listener]) -> None:
        self.each = each

    began, note, ended = _to_all("began"), _to_all("note"), _to_all("ended")
    took_step, changed_micro_batch = _to_all("took_step"), _to_all("changed_micro_batch")
    finished_epoch, saved = _to_all("finished_epoch"), _to_all("saved")
    tested = _to_all("tested")
