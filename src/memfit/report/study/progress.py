"""A study as it goes on: a bar with the time that is left, or lines in a pipe."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from memfit.study.trials.listener import StudyListener
from memfit.study.trials.trial import Trial, TrialRecord

__all__ = ["StudyBar", "StudyLines", "duration"]

#: Seconds between two lines that only tell the time left.
_QUIET = 15.0


def duration(seconds: float) -> str:
    """A time that people can wait for.

    >>> duration(4.2), duration(75), duration(7300)
    ('5 s', '1 min 15 s', '2 h 2 min')
    """
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class StudyLines(StudyListener):
    """A line for every stage, trial and note, for a pipe or a log.

    Args:
        stream: where lines go; the process's stderr when omitted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._told = time.perf_counter()

    def _say(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    def began(self, folder: Path, batch_sizes: tuple[int, ...], device: str) -> None:
        """What is studied and where."""
        sizes = ", ".join(f"{size:,}" for size in batch_sizes)
        self._say(f"study {folder}: batch sizes {sizes} on {device}")

    def stage(self, name: str) -> None:
        """Its name."""
        self._say(f"{name} ...")

    def note(self, text: str) -> None:
        """A sentence."""
        self._say(text)

    def trial_ended(self, trial: Trial, record: TrialRecord, *, is_known: bool) -> None:
        """What it reached."""
        self._say(f"  {trial_words(trial, record)}{', known' if is_known else ''}")

    def progressed(self, share: float, seconds_left: float | None) -> None:
        """The time left, now and then."""
        now = time.perf_counter()
        if seconds_left is not None and now - self._told > _QUIET:
            self._told = now
            self._say(f"  {share:.0%} of the study, about {duration(seconds_left)} left")


class StudyBar(StudyLines):
    """A bar for the whole study; lines above it.

    Args:
        console: a terminal, on stderr.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("speed", total=1.0, left="")
        self._progress.start()

    def _say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def stage(self, name: str) -> None:
        """Named at the bar."""
        self._progress.update(self._task, description=name)

    def progressed(self, share: float, seconds_left: float | None) -> None:
        """Move the bar."""
        left = "" if seconds_left is None else f"about {duration(seconds_left)} left"
        self._progress.update(self._task, completed=share, left=left)

    def ended(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def trial_words(trial: Trial, record: TrialRecord) -> str:
    """A trial in a line."""
    words = f"batch {trial.batch_size:>5,}  rate {trial.learning_rate:<8g} seed {trial.seed}"
    if not record.is_usable:
        return f"{words}  {record.outcome} after step {record.step:,}"
    best = max(record.evaluations, key=lambda point: point.accuracy)
    state = "short" if record.outcome == "paused" else "whole"
    return f"{words}  {state:<6} {record.step:>6,} steps  best accuracy {best.accuracy:.1%}"
