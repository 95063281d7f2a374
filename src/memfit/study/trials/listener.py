"""What a study tells while it goes on; reporters override what they want to hear."""

from __future__ import annotations

from pathlib import Path

from memfit.progress import Progress
from memfit.study.trials.trial import Trial, TrialRecord

__all__ = ["StudyListener"]


class StudyListener(Progress):
    """Hears nothing: a base for reporters. The study's progress is the share of all its work."""

    def began(self, folder: Path, batch_sizes: tuple[int, ...], device: str) -> None:
        """The study is about to measure."""

    def trial_ended(self, trial: Trial, record: TrialRecord, *, is_known: bool) -> None:
        """A trial came to its end or a pause; ``is_known``: it was there before."""
