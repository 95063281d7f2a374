"""A run as it goes on: bars on a terminal, a line for each epoch in a pipe, or JSON lines."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memfit.files.metrics_file import to_json
from memfit.trainer.recovery.transaction import MicroBatchEvent
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult
from memfit.units import format_bytes

__all__ = ["BarReporter", "JsonReporter", "LineReporter", "describe_event"]


def describe_event(event: MicroBatchEvent) -> str:
    """A change of the micro-batch, in a sentence."""
    if event.phase == "growth":
        return (
            f"step {event.step + 1}: memory has sufficed for a while, micro-batch "
            f"{event.from_size} → {event.to_size}"
        )
    return (
        f"step {event.step + 1}: out of memory in {event.phase}, micro-batch "
        f"{event.from_size} → {event.to_size}, same samples again"
    )


class _Pace:
    """Samples for each second, over the last epoch so far."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()
        self._samples = 0

    def count(self, samples: int) -> float:
        self._samples += samples
        return self._samples / max(1e-9, time.perf_counter() - self._start)


class LineReporter(Listener):
    """A line for each epoch and each event, for a pipe or a log.

    Args:
        stream: where lines go; the process's stderr when omitted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._pace = _Pace()
        self._rate = 0.0
        self._losses: list[float] = []
        self._beginning: Beginning | None = None

    def _say(self, text: str) -> None:
        _print(text, self._stream or sys.stderr)

    def began(self, beginning: Beginning) -> None:
        """What is trained, where, and with which micro-batch."""
        self._beginning = beginning
        for line in opening_lines(beginning):
            self._say(line)

    def note(self, text: str) -> None:
        """A sentence."""
        self._say(text)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:  # noqa: ARG002
        """Counted; a line comes with the evaluation."""
        self._rate = self._pace.count(result.samples)
        self._losses.append(result.loss)

    def changed_micro_batch(self, event: MicroBatchEvent) -> None:
        """A sentence."""
        self._say(describe_event(event))

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        """The epoch in a line."""
        self._say(epoch_line(step, epoch, self._losses, evaluation, self._rate, is_best))
        self._losses.clear()
        self._pace.restart()


class JsonReporter(Listener):
    """One JSON object a line for everything that happens; what is not finite becomes null.

    Args:
        stream: where lines go; what is stdout now when omitted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def _say(self, event: str, **values: Any) -> None:
        _print(to_json({"event": event, **values}), self._stream)

    def began(self, beginning: Beginning) -> None:
        """The run's numbers."""
        self._say(
            "began",
            schema_version=1,
            run=str(beginning.run),
            device=beginning.device,
            step=beginning.step,
            total_steps=beginning.total_steps,
            global_batch=beginning.global_batch,
            micro_batch=beginning.micro_batch,
            learning_rate=beginning.learning_rate,
        )

    def note(self, text: str) -> None:
        """A sentence."""
        self._say("note", text=text)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        """One optimizer step."""
        self._say(
            "step",
            step=result.step,
            loss=result.loss,
            learning_rate=result.learning_rate,
            samples=result.samples,
            micro_batch=result.micro_batch,
            reserved_bytes=used_bytes,
        )

    def changed_micro_batch(self, event: MicroBatchEvent) -> None:
        """The event's fields."""
        self._say(
            "micro-batch",
            step=event.step,
            phase=event.phase,
            from_size=event.from_size,
            to_size=event.to_size,
            message=event.message,
        )

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        """Loss and accuracy."""
        if evaluation is not None:
            found = {"loss": evaluation.loss, "accuracy": evaluation.accuracy, "is_best": is_best}
            self._say("evaluation", step=step, epoch=epoch, **found)

    def saved(self, path: Path) -> None:
        """Where the checkpoint is."""
        self._say("checkpoint", path=str(path))


class BarReporter(LineReporter):
    """A bar with samples/s, memory against the plan and the time that is left; lines above it.

    Args:
        console: a terminal, on stderr.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("epoch 1", total=None, facts="")

    def _say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def began(self, beginning: Beginning) -> None:
        """Start the bar."""
        super().began(beginning)
        self._progress.update(self._task, total=beginning.total_steps, completed=beginning.step)
        self._progress.start()

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        """Move the bar."""
        super().took_step(result, used_bytes)
        beginning = self._beginning
        assert beginning is not None
        facts = f"loss {result.loss:.3f}  {self._rate:,.0f} samples/s"
        if used_bytes is not None:
            planned = beginning.plan.at(result.micro_batch).peak_reserved_bytes
            facts += f"  {format_bytes(used_bytes)} of {format_bytes(planned)} planned"
        epoch = 1 + (result.step - 1) // beginning.steps_per_epoch
        self._progress.update(
            self._task, completed=result.step, description=f"epoch {epoch}", facts=facts
        )

    def ended(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def opening_lines(beginning: Beginning) -> list[str]:
    """What a run is about to do, in two or three lines."""
    recipe = beginning.plan.recipe
    accumulation = -(-beginning.global_batch // (beginning.micro_batch * beginning.world_size))
    parts = f"{accumulation} × micro-batch {beginning.micro_batch}" if accumulation > 1 else ""
    ranks = f" on {beginning.world_size} processes" if beginning.world_size > 1 else ""
    batch = f"batch {beginning.global_batch}{f' = {parts}' if parts else ''}{ranks}"
    data = getattr(recipe.data, "name", recipe.data)
    lines = [
        f"{beginning.plan.model_name} on {data}, {beginning.device}",
        f"{batch}, learning rate {beginning.learning_rate:g}, {beginning.total_steps:,} steps",
        f"run folder {beginning.run}",
    ]
    if beginning.step:
        lines.append(f"resumed after step {beginning.step:,}")
    return lines


def epoch_line(
    step: int,
    epoch: int,
    losses: list[float],
    evaluation: Evaluation | None,
    rate: float,
    is_best: bool,
) -> str:
    """An epoch in a line."""
    facts = [f"epoch {epoch:>3}", f"step {step:>6,}"]
    if losses:
        facts.append(f"train loss {sum(losses) / len(losses):.4f}")
    if evaluation is not None:
        facts += [f"test loss {evaluation.loss:.4f}", f"accuracy {evaluation.accuracy:.2%}"]
    if losses:
        facts.append(f"{rate:,.0f} samples/s")
    return "  ".join(facts + ["best"] * is_best)


def _print(text: str, stream: TextIO) -> None:
    """A reader that went away (``| head``) does not end the run."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
