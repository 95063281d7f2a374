"""``pace.jsonl``: how fast a run went and how much memory it held, for whoever looks.

Time and memory differ between two runs of one recipe, so they stay out of ``metrics.jsonl``, whose
lines a resumed run makes again to the bit. Nothing here is read back by training.
"""

from __future__ import annotations

import time
from contextlib import suppress

from memfit.errors import MemfitError, RunError
from memfit.files.metrics_file import MetricsFile
from memfit.planner.plan import Plan
from memfit.trainer.step.devices import RunDevice
from memfit.trainer.step.training import StepResult

__all__ = ["PaceLog"]


class PaceLog:
    """Adds a line when a process takes up a run, and one with each step that is written.

    A file that cannot be written never ends a run: it then lacks lines.

    Args:
        file: only grows; steps that are made again stand in it twice, the later line counts.
        plan: says how much memory a micro-batch should take.
        place: where the run computes.
    """

    def __init__(self, file: MetricsFile, plan: Plan, place: RunDevice) -> None:
        self._file, self._plan, self._place = file, plan, place
        self._began = time.monotonic()
        self._samples = 0

    def start(self, step: int, total_steps: int) -> None:
        """Begin to count: seconds and samples are those of this process.

        Args:
            step: that was taken last, by whichever process.
            total_steps: of the whole run.
        """
        self._began, self._samples = time.monotonic(), 0
        place = self._place
        limit = place.memory_bytes
        if limit is None and place.card is not None:
            limit = place.card.capacity_bytes
        with suppress(RunError):
            self._file.repair()  # a kill may have torn the last line
            self._file.append(
                {
                    "step": step,
                    "event": "start",
                    "total_steps": total_steps,
                    "device": place.name,
                    "limit_bytes": limit,  # what PyTorch may reserve; None where nothing limits it
                }
            )

    def count(self, result: StepResult) -> None:
        """Count the samples of a step."""
        self._samples += result.samples

    def write(self, result: StepResult) -> None:
        """Add the line of a step that was counted.

        ``reserved_bytes`` is what this process holds now, cache included and the CUDA context
        not; ``planned_bytes`` is the plan's peak of the same for the micro-batch of the step.
        """
        seconds = time.monotonic() - self._began
        with suppress(MemfitError):
            self._file.append(
                {
                    "step": result.step,
                    "event": "step",
                    "seconds": round(seconds, 3),
                    "samples": self._samples,
                    "reserved_bytes": self._place.reserved_bytes,
                    "planned_bytes": self._plan.at(result.micro_batch).peak_reserved_bytes,
                }
            )
