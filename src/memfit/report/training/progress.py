"""A run as it goes on: bars on a terminal, a line for each epoch in a pipe, or JSON lines."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from memfit.files.metrics_file import to_json
from memfit.report.console.progress import Bar, Lines, print_line
from memfit.report.training.words import split_word
from memfit.trainer.recovery.transaction import MicroBatchEvent
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult
from memfit.units import format_bytes

__all__ = [
    "BarReporter", "JsonReporter", "LineReporter", "describe_event", "epoch_line", "opening_lines",
]  # fmt: skip


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


class _Speed:
    """Samples for each second, since it was made."""

    def __init__(self) -> None:
        self.now = 0.0
        self._start = time.perf_counter()
        self._samples = 0

    def count(self, samples: int) -> None:
        self._samples += samples
        self.now = self._samples / max(1e-9, time.perf_counter() - self._start)


class _Told(Listener):
    """What a run says in sentences."""

    def __init__(self) -> None:
        self._speed = _Speed()
        self._losses: list[float] = []
        self._beginning: Beginning | None = None

    def began(self, beginning: Beginning) -> None:
        """What is trained, where, and with which micro-batch."""
        self._beginning = beginning
        for line in opening_lines(beginning):
            self.note(line)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:  # noqa: ARG002
        """Counted; a line comes with the evaluation."""
        self._speed.count(result.samples)
        self._losses.append(result.loss)

    def changed_micro_batch(self, event: MicroBatchEvent) -> None:
        """A sentence."""
        self.note(describe_event(event))

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        """The epoch in a line."""
        self.note(epoch_line(step, epoch, self._losses, evaluation, self._speed.now, is_best))
        self._losses.clear()
        self._speed = _Speed()


class LineReporter(_Told, Lines):
    """A line for each epoch and each event, for a pipe or a log.

    Args:
        stream: where lines go; the process's stderr when omitted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        _Told.__init__(self)
        Lines.__init__(self, stream)


class JsonReporter(Listener):
    """One JSON object a line for everything that happens; what is not finite becomes null.

    Args:
        stream: where lines go; what is stdout now when omitted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def _say(self, event: str, **values: Any) -> None:
        print_line(to_json({"event": event, **values}), self._stream)

    def began(self, beginning: Beginning) -> None:
        """The run's numbers."""
        self._say(
            "began", schema_version=1, run=str(beginning.run), device=beginning.device,
            step=beginning.step, total_steps=beginning.total_steps,
            global_batch=beginning.global_batch, micro_batch=beginning.micro_batch,
            learning_rate=beginning.learning_rate,
        )  # fmt: skip

    def note(self, text: str) -> None:
        """A sentence."""
        self._say("note", text=text)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        """One optimizer step."""
        self._say("step", **asdict(result), reserved_bytes=used_bytes)

    def changed_micro_batch(self, event: MicroBatchEvent) -> None:
        """The event's fields."""
        self._say("micro-batch", **asdict(event))

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        """Loss and accuracy."""
        if evaluation is not None:
            found = evaluation.record
            self._say("evaluation", step=step, epoch=epoch, **found, is_best=is_best)

    def tested(self, evaluation: Evaluation, step: int) -> None:
        """The test split, once, at the end."""
        self._say("test", step=step, **evaluation.record)

    def saved(self, path: Path) -> None:
        """Where the checkpoint is."""
        self._say("checkpoint", path=str(path))


class BarReporter(_Told, Bar):
    """A bar with samples/s, memory against the plan and the time that is left; lines above it.

    Args:
        console: a terminal, on stderr.
    """

    def __init__(self, console: Console) -> None:
        _Told.__init__(self)
        Bar.__init__(self, console, "epoch 1", stays=True)

    def began(self, beginning: Beginning) -> None:
        """Start the bar."""
        super().began(beginning)
        self.at(beginning.step, beginning.total_steps)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        """Move the bar."""
        super().took_step(result, used_bytes)
        beginning = self._beginning
        assert beginning is not None
        facts = f"loss {result.loss:.3f}  {self._speed.now:,.0f} samples/s"
        if used_bytes is not None:
            planned = beginning.plan.at(result.micro_batch).peak_reserved_bytes
            facts += f"  {format_bytes(used_bytes)} of {format_bytes(planned)} planned"
        self.stage(f"epoch {1 + (result.step - 1) // beginning.steps_per_epoch}")
        self.at(result.step, beginning.total_steps, facts=facts)


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
        word = split_word(evaluation.split)
        facts += [f"{word} loss {evaluation.loss:.4f}", evaluation.facts.shown(evaluation.score)]
    if losses:
        facts.append(f"{rate:,.0f} samples/s")
    return "  ".join(facts + ["best"] * is_best)
