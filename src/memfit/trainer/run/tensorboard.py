"""The curves of a run as TensorBoard events, in the run's own folder."""

from __future__ import annotations

from typing import Any

from memfit.errors import UsageError
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult

__all__ = ["TensorBoardWriter"]


class TensorBoardWriter(Listener):
    """Writes loss, learning rate, micro-batch, memory and evaluations to ``RUN/tensorboard``.

    A resumed run goes on in a new file; TensorBoard leaves out what it did twice.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "--tensorboard needs TensorBoard.", hint="pip install 'memfit[tensorboard]'"
            ) from None
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def began(self, beginning: Beginning) -> None:
        """Open the file; steps after the resumed one are void."""
        folder = str(beginning.run / "tensorboard")
        self._writer = self._make(folder, purge_step=beginning.step + 1 if beginning.step else None)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        """The step's scalars."""
        scalars = {
            "train/loss": result.loss,
            "train/learning_rate": result.learning_rate,
            "train/micro_batch": result.micro_batch,
        }
        if used_bytes is not None:
            scalars["memory/reserved_bytes"] = used_bytes
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, result.step)

    def finished_epoch(
        self,
        step: int,
        epoch: int,  # noqa: ARG002
        evaluation: Evaluation | None,
        is_best: bool,  # noqa: ARG002
    ) -> None:
        """The evaluation's scalars."""
        if evaluation is not None:
            self._add(evaluation, step)
        self._writer.flush()

    def tested(self, evaluation: Evaluation, step: int) -> None:
        """The test's scalars, at the step of the weights that were tested."""
        self._add(evaluation, step)
        self._writer.flush()

    def _add(self, evaluation: Evaluation, step: int) -> None:
        for name, value in evaluation.record.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{evaluation.split}/{name}", value, step)

    def ended(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
