"""What came of a run, with the plan's memory beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memfit.data.loading.loader import Loader
from memfit.planner.plan import Plan
from memfit.trainer.step.devices import RunDevice
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import Training

__all__ = ["RunResult", "summarise"]


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Args:
        path: of its folder.
        status: ``finished``, or ``stopped`` by a signal with a checkpoint.
        step: optimizer steps that were taken.
        evaluation: the last one; None where there is nothing to evaluate on.
        summary: as in ``summary.json``.
    """

    path: Path
    status: Literal["finished", "stopped"]
    step: int
    evaluation: Evaluation | None
    summary: dict[str, Any]


def summarise(
    plan: Plan,
    training: Training,
    evaluation: Evaluation | None,
    best: float | None,
    place: RunDevice,
    loader: Loader,
    skipped: int,
) -> dict[str, Any]:
    """Plain values for ``summary.json``.

    Args:
        plan: what was predicted.
        training: that has ended.
        evaluation: the last one.
        best: the best accuracy.
        place: where it ran.
        loader: of the training data.
        skipped: images that were left out.
    """
    largest = max([training.fitting.size, *(e.from_size for e in training.fitting.events)])
    predicted = plan.at(largest)
    return {
        "schema_version": 1,
        "step": training.step,
        "global_batch": loader.batch_size,
        "micro_batch": training.fitting.size,
        "largest_micro_batch": largest,
        "device": place.name,
        "launched": {
            "world_size": training.ranks.world_size,
            "memory_bytes": place.memory_bytes,
        },
        "best_accuracy": best,
        "evaluation": None if evaluation is None else evaluation.to_dict(),
        "skipped_images": skipped,
        "memory": {
            "predicted": {
                "allocated_bytes": predicted.peak_allocated_bytes,
                "reserved_bytes": predicted.peak_reserved_bytes,
                "parts": predicted.parts,
            },
            "measured": place.peaks(),
        },
        "micro_batch_events": [
            {
                "step": event.step,
                "phase": event.phase,
                "from": event.from_size,
                "to": event.to_size,
                "message": event.message,
            }
            for event in training.fitting.events
        ],
    }
