"""What a study tells while it goes on; reporters override what they want to hear."""

from __future__ import annotations

import time
from pathlib import Path

from memfit.study.trials.trial import Trial, TrialRecord

__all__ = ["Pace", "StudyListener"]


class StudyListener:
    """Hears nothing: a base for reporters."""

    def began(self, folder: Path, batch_sizes: tuple[int, ...], device: str) -> None:
        """The study is about to measure."""

    def stage(self, name: str) -> None:
        """The next part of the study, such as ``learning rates``."""

    def note(self, text: str) -> None:
        """Something the user should know, in a sentence."""

    def trial_ended(self, trial: Trial, record: TrialRecord, *, is_known: bool) -> None:
        """A trial came to its end or a pause; ``is_known``: it was there before."""

    def progressed(self, share: float, seconds_left: float | None) -> None:
        """How much of the whole study is done, and how long the rest should take."""

    def ended(self) -> None:
        """Nothing follows."""


class Pace:
    """How long the whole study takes: an estimate, corrected by what it took so far.

    Args:
        listener: is told the share that is done, and the seconds left.
    """

    def __init__(self, listener: StudyListener) -> None:
        self._listener = listener
        self._start = time.perf_counter()
        self._done = 0.0
        self._left: dict[str, float] = {}

    def expect(self, stage: str, seconds: float) -> None:
        """A stage should take so long, from now on."""
        self._left[stage] = max(0.0, seconds)
        self._tell()

    def work(self, stage: str, seconds: float) -> None:
        """So much of what was expected of a stage is done."""
        self._done += seconds
        self._left[stage] = max(0.0, self._left.get(stage, 0.0) - seconds)
        self._tell()

    def skip(self, stage: str, seconds: float) -> None:
        """So much of what was expected of a stage need not be done."""
        self._left[stage] = max(0.0, self._left.get(stage, 0.0) - seconds)

    def _tell(self) -> None:
        left = sum(self._left.values())
        total = self._done + left
        taken = time.perf_counter() - self._start
        seconds_left = left * taken / self._done if self._done > 0.5 else None
        self._listener.progressed(self._done / total if total else 0.0, seconds_left)
