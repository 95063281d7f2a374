"""Progress as people see it: a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from memfit.progress import Progress

__all__ = ["Bar", "Lines", "duration", "print_line"]

#: Seconds between two lines that only tell the time left.
_QUIET = 15.0


class Lines(Progress):
    """A line for every stage and note, and the time left now and then; for a pipe or a log.

    Args:
        stream: where lines go; the process's stderr when omitted.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._told = time.perf_counter()

    def stage(self, name: str) -> None:
        """Its name."""
        self.note(f"{name} ...")

    def at(
        self,
        done: float,
        total: float,
        *,
        seconds_left: float | None = None,
        facts: str = "",  # noqa: ARG002
    ) -> None:
        """The time left, where it is known, now and then."""
        now = time.perf_counter()
        if seconds_left is not None and now - self._told > _QUIET:
            self._told = now
            self.note(f"  {done / total:.0%} done, about {duration(seconds_left)} left")

    def note(self, text: str) -> None:
        """A line."""
        print_line(text, self._stream or sys.stderr)


class Bar(Progress):
    """A bar that moves; notes are lines above it.

    Args:
        console: a terminal, on stderr.
        title: left of the bar, until a stage is named.
        counts: whether what is counted is shown, and not its share.
        stays: whether the bar is left there at the end.
    """

    def __init__(
        self, console: Console, title: str = "", *, counts: bool = True, stays: bool = False
    ) -> None:
        share: ProgressColumn = MofNCompleteColumn() if counts else TaskProgressColumn()
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            share,
            TextColumn("{task.fields[facts]}"),
            *([TimeRemainingColumn()] if counts else []),
            console=console,
            transient=not stays,
        )
        self._task = self._rich.add_task(title, total=None, facts="")

    def stage(self, name: str) -> None:
        """Named at the bar."""
        self._rich.start()  # does nothing the second time
        self._rich.update(self._task, description=name)

    def at(
        self, done: float, total: float, *, seconds_left: float | None = None, facts: str = ""
    ) -> None:
        """Move the bar."""
        if seconds_left is not None:
            facts = f"about {duration(seconds_left)} left"
        self._rich.start()
        self._rich.update(self._task, completed=done, total=total, facts=facts)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._rich.console.print(text, highlight=False, markup=False)

    def ended(self) -> None:
        """Stop the bar."""
        self._rich.stop()

    @property
    def speed(self) -> float | None:
        """What was counted for each second of late; None before that is known."""
        return self._rich.tasks[0].speed


def duration(seconds: float) -> str:
    """A time that people can wait for.

    >>> duration(4.2), duration(75), duration(7300)
    ('5 s', '1 min 15 s', '2 h 1 min')
    """
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def print_line(text: str, stream: TextIO) -> None:
    """A reader that went away (``| head``) does not end the work."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
