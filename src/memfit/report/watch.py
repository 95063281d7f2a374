"""Live GPU memory in the terminal: each process against the plan and the safe line."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.text import Text

from memfit.cards.readings import GPUReading, ProcessReading
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, columns, marks_of, shorten
from memfit.units import format_bytes

__all__ = ["UsedSoFar", "WatchGoal", "reading_line", "render_readings"]

_HISTORY = 60


@dataclass(frozen=True, slots=True)
class WatchGoal:
    """What processes are held against.

    Args:
        safety: share of the card that is safe to use.
        name: of the plan; empty without one.
        batch_size: of the plan.
        total_bytes: what the plan says the process takes, CUDA context included; None without one.
    """

    safety: float
    name: str = ""
    batch_size: int = 0
    total_bytes: int | None = None


@dataclass(slots=True)
class UsedSoFar:
    """What one GPU held until now.

    Attributes:
        highest_bytes: of all looks.
        recent_bytes: of the last looks, the newest last.
    """

    highest_bytes: int = 0
    recent_bytes: deque[int] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def add(self, used_bytes: int) -> None:
        """Take in another look."""
        self.highest_bytes = max(self.highest_bytes, used_bytes)
        self.recent_bytes.append(used_bytes)


def render_readings(
    readings: Sequence[GPUReading],
    goal: WatchGoal,
    history: Mapping[int, UsedSoFar],
    console: Console,
) -> RenderableType:
    """Every GPU as a bar with its lines, its processes below.

    Args:
        readings: of this moment.
        goal: the plan and the safe share.
        history: by GPU, this moment included.
        console: decides width and characters.
    """
    marks = marks_of(console)
    width = min(console.width, 100)
    blocks: list[RenderableType] = []
    for reading in readings:
        used = history[reading.index]
        blocks += [
            _title(reading, width, marks),
            _bar(reading, goal, width, marks),
            _facts(reading, goal, used, marks, width),
            _process_table(reading, goal, width, marks),
            Text(""),
        ]
    return Group(*blocks[:-1])


def reading_line(reading: GPUReading, goal: WatchGoal) -> str:
    """One GPU at one moment on one line, for a pipe or a log."""
    words = [
        f"GPU {reading.index}",
        f"{format_bytes(reading.used_bytes)} of {format_bytes(reading.total_bytes)}",
        f"{reading.used_bytes / reading.total_bytes:.0%}",
        _state(reading.used_bytes, reading.total_bytes, goal),
    ]
    for process in reading.processes:
        words.append(f"pid {process.pid} {_size(process)}{_against_plan(process, goal)}")
    return ", ".join(words)


def _title(reading: GPUReading, width: int, marks: Marks) -> Text:
    name = shorten(clean(reading.name), max(12, width - 40), marks)
    used, total = format_bytes(reading.used_bytes), format_bytes(reading.total_bytes)
    return Text.assemble((f"GPU {reading.index}  {name}", "bold"), f"  {used} of {total}")


def _bar(reading: GPUReading, goal: WatchGoal, width: int, marks: Marks) -> Text:
    """Used memory as a bar; where the safe line and the plan lie is marked below it."""
    cells = max(16, width - 2)
    filled = min(cells, round(cells * reading.used_bytes / reading.total_bytes))
    colour = "red" if _is_above(reading.used_bytes, reading.total_bytes, goal) else "green"
    bar = Text(no_wrap=True)
    bar.append(marks.bar[-1] * filled, style=colour)
    bar.append(marks.cached * (cells - filled) + "\n", style="bright_black")
    for column, label in _pointers(reading, goal, cells):
        text, start = f"{marks.pointer} {label}", column
        if column + len(text) > cells:
            text, start = f"{label} {marks.pointer}", max(0, column - len(label) - 1)
        bar.append(" " * start + text + "\n", style="dim")
    bar.rstrip()
    return bar


def _pointers(reading: GPUReading, goal: WatchGoal, cells: int) -> list[tuple[int, str]]:
    safe = f"{goal.safety:.0%} of the card"
    pointers = [(min(cells - 1, round(cells * goal.safety)), safe)]
    if goal.total_bytes is not None:
        column = min(cells - 1, round(cells * goal.total_bytes / reading.total_bytes))
        pointers.append((column, f"plan {format_bytes(goal.total_bytes)}"))
    return pointers


def _facts(reading: GPUReading, goal: WatchGoal, used: UsedSoFar, marks: Marks, width: int) -> Text:
    state = _state(reading.used_bytes, reading.total_bytes, goal)
    style = "red" if _is_above(reading.used_bytes, reading.total_bytes, goal) else ""
    line = Text.assemble(
        (state, style), f" {marks.dot} highest seen {format_bytes(used.highest_bytes)}"
    )
    if len(used.recent_bytes) > 1 and width >= 60:
        steps, room = marks.column, min(_HISTORY, width - 50)
        recent = list(used.recent_bytes)[-room:]
        scale = (min(len(steps) - 1, len(steps) * n // reading.total_bytes) for n in recent)
        line.append(f" {marks.dot} " + "".join(steps[n] for n in scale))
    return line


def _process_table(
    reading: GPUReading, goal: WatchGoal, width: int, marks: Marks
) -> RenderableType:
    if not reading.processes and not reading.unattributed_bytes:
        return Text("no process", style="dim")
    table = columns()
    table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    if goal.total_bytes is not None:
        table.add_column("against the plan", no_wrap=True)
    table.add_column("command", no_wrap=True)
    room = max(8, width - (44 if goal.total_bytes is not None else 24))
    for process in reading.processes:
        against = [_against_plan(process, goal).strip()] if goal.total_bytes is not None else []
        command = shorten(clean(process.command) or "not readable", room, marks)
        table.add_row(str(process.pid), _size(process), *against, command)
    if reading.unattributed_bytes and any(p.used_bytes is None for p in reading.processes):
        return table  # their memory is what nobody is named for
    if reading.unattributed_bytes:
        rest = format_bytes(reading.unattributed_bytes)
        empty = [""] if goal.total_bytes is not None else []
        table.add_row("", rest, *empty, Text("the driver and processes it does not name", "dim"))
    return table


def _is_above(used_bytes: int, total_bytes: int, goal: WatchGoal) -> bool:
    return used_bytes > goal.safety * total_bytes


def _state(used_bytes: int, total_bytes: int, goal: WatchGoal) -> str:
    left_bytes = int(goal.safety * total_bytes) - used_bytes
    line = f"the {goal.safety:.0%} line"
    if left_bytes < 0:
        return f"{format_bytes(-left_bytes)} above {line}"
    return f"{format_bytes(left_bytes)} below {line}"


def _size(process: ProcessReading) -> str:
    return "not told" if process.used_bytes is None else format_bytes(process.used_bytes)


def _against_plan(process: ProcessReading, goal: WatchGoal) -> str:
    if goal.total_bytes is None or process.used_bytes is None:
        return ""
    return f" {process.used_bytes / goal.total_bytes:.0%} of {format_bytes(goal.total_bytes)}"
