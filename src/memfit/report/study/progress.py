"""A study as it goes on: a bar with the time that is left, or lines in a pipe."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from memfit.report.console.progress import Bar, Lines
from memfit.study.trials.listener import StudyListener
from memfit.study.trials.trial import Trial, TrialRecord

__all__ = ["StudyBar", "StudyLines", "trial_words"]


class _Told(StudyListener):
    """What a study says in sentences."""

    def began(self, folder: Path, batch_sizes: tuple[int, ...], device: str) -> None:
        """What is studied and where."""
        sizes = ", ".join(f"{size:,}" for size in batch_sizes)
        self.note(f"study {folder}: batch sizes {sizes} on {device}")

    def trial_ended(self, trial: Trial, record: TrialRecord, *, is_known: bool) -> None:
        """What it reached."""
        self.note(f"  {trial_words(trial, record)}{', known' if is_known else ''}")


class StudyLines(_Told, Lines):
    """A line for every stage, trial and note, for a pipe or a log."""


class StudyBar(_Told, Bar):
    """A bar for the whole study; lines above it.

    Args:
        console: a terminal, on stderr.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "speed", counts=False)


def trial_words(trial: Trial, record: TrialRecord) -> str:
    """A trial in a line."""
    words = f"batch {trial.batch_size:>5,}  rate {trial.learning_rate:<8g} seed {trial.seed}"
    if not record.is_usable:
        return f"{words}  {record.outcome} after step {record.step:,}"
    best = max(record.evaluations, key=lambda point: point.accuracy)
    state = "short" if record.outcome == "paused" else "whole"
    return f"{words}  {state:<6} {record.step:>6,} steps  best accuracy {best.accuracy:.1%}"
