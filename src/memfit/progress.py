"""How work that takes a while tells what it has done: one protocol for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["SILENT", "Progress", "Tell", "TimeLeft"]

#: What work that only counts asks for: ``tell(done, total)``. :meth:`Progress.at` is one.
Tell = Callable[[int, int], None]


class Progress:
    """Hears nothing: the base of everything that shows, sends or writes progress."""

    def stage(self, name: str) -> None:
        """The next part of the work begins, such as ``learning rates``."""

    def at(
        self, done: float, total: float, *, seconds_left: float | None = None, facts: str = ""
    ) -> None:
        """So much is done of what there is to do: images, steps, MiB, or shares of one.

        Args:
            done: at least 0.
            total: above 0.
            seconds_left: until all is done, where the worker knows better than its pace tells.
            facts: a few words on how it goes.
        """

    def note(self, text: str) -> None:
        """Something the user should know, in a sentence."""

    def ended(self) -> None:
        """Nothing follows."""


#: Tells nobody.
SILENT: Tell = Progress().at


class TimeLeft:
    """How long work of several stages takes: an estimate, corrected by what it took so far.

    Args:
        progress: is told the share that is done, and the seconds left.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
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
        self.skip(stage, seconds)
        self._tell()

    def skip(self, stage: str, seconds: float) -> None:
        """So much of what was expected of a stage need not be done."""
        self._left[stage] = max(0.0, self._left.get(stage, 0.0) - seconds)

    def _tell(self) -> None:
        left = sum(self._left.values())
        total = self._done + left
        taken = time.perf_counter() - self._start
        seconds_left = left * taken / self._done if self._done > 0.5 else None
        self._progress.at(self._done / total if total else 0.0, 1.0, seconds_left=seconds_left)
