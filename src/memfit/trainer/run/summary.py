"""What came of a run, with the plan's memory beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memfit.planner.plan import Plan
from memfit.recipe.tasks import TASKS
from memfit.trainer.recovery.sizes import MicroBatchEvent
from memfit.trainer.run.standing import Standing
from memfit.trainer.step.devices import MemoryPeaks, RunDevice
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import Training

__all__ = ["RunResult", "RunSummary", "summarise"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What ``summary.json`` says of a run, beside its status.

    Args:
        step: optimizer steps that were taken.
        global_batch: samples of one optimizer step, all devices together.
        micro_batch: samples of one forward on one device, at the end.
        largest_micro_batch: that ran or was tried.
        device: in words.
        world_size: number of ranks.
        memory_bytes: a limit that the user set; None for none.
        best_score: of all validations, accuracy of classes, see :data:`memfit.recipe.tasks.TASKS`;
            None where only the last weights are kept.
        evaluation: the last validation; None where there is nothing to validate on.
        skipped_images: that were left out.
        predicted: memory at the largest micro-batch.
        measured: None where nobody counts.
        micro_batch_events: every change of the micro-batch, in order.
        metric: the score's name.
        test: the best weights on the test split, once, at the end; None before it, and without one.
    """

    step: int
    global_batch: int
    micro_batch: int
    largest_micro_batch: int
    device: str
    world_size: int
    memory_bytes: int | None
    best_score: float | None
    evaluation: Evaluation | None
    skipped_images: int
    predicted: MemoryPeaks
    measured: MemoryPeaks | None
    micro_batch_events: tuple[MicroBatchEvent, ...]
    metric: str = "accuracy"
    test: Evaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in ``summary.json``."""
        measured, evaluation = self.measured, self.evaluation
        return {
            "schema_version": 1,
            "step": self.step,
            "global_batch": self.global_batch,
            "micro_batch": self.micro_batch,
            "largest_micro_batch": self.largest_micro_batch,
            "device": self.device,
            "launched": {"world_size": self.world_size, "memory_bytes": self.memory_bytes},
            f"best_{self.metric}": self.best_score,
            "evaluation": None if evaluation is None else evaluation.to_dict(),
            "test": None if self.test is None else self.test.to_dict(),
            "skipped_images": self.skipped_images,
            "memory": {
                "predicted": self.predicted.to_dict(),
                "measured": None if measured is None else measured.to_dict(),
            },
            "micro_batch_events": [
                {"step": e.step, "phase": e.phase, "from": e.from_size, "to": e.to_size,
                 "message": e.message}
                for e in self.micro_batch_events
            ],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run.

    Args:
        path: of its folder.
        status: ``finished``, or ``stopped`` by a signal with a checkpoint.
        summary: what ``summary.json`` says.
    """

    path: Path
    status: Literal["finished", "stopped"]
    summary: RunSummary

    @property
    def step(self) -> int:
        """Optimizer steps that were taken."""
        return self.summary.step

    @property
    def evaluation(self) -> Evaluation | None:
        """The last validation; None where there is nothing to validate on."""
        return self.summary.evaluation

    @property
    def test(self) -> Evaluation | None:
        """The best weights on the test split; None without one that has answers."""
        return self.summary.test


def summarise(
    plan: Plan, training: Training, at: Standing, place: RunDevice, skipped: int
) -> RunSummary:
    """What came of a run that has ended.

    Args:
        plan: what was predicted.
        training: that has ended.
        at: where it stands.
        place: where it ran.
        skipped: images that were left out.
    """
    fitting = training.fitting
    largest = max([fitting.size, *(event.from_size for event in fitting.events)])
    peaks = plan.at(largest)
    return RunSummary(
        step=training.step,
        global_batch=training.loader.batch_size,
        micro_batch=fitting.size,
        largest_micro_batch=largest,
        device=place.name,
        world_size=training.ranks.world_size,
        memory_bytes=place.memory_bytes,
        best_score=at.best,
        metric=TASKS[training.loader.target.task].metric,
        evaluation=at.last,
        skipped_images=skipped,
        predicted=MemoryPeaks(
            peaks.peak_allocated_bytes, peaks.peak_reserved_bytes, parts=peaks.parts
        ),
        measured=place.peaks(),
        micro_batch_events=tuple(fitting.events),
    )
