"""``pace.jsonl`` of a run as two curves for the page: memory against the plan, and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from memfit.errors import RunError
from memfit.files.metrics_file import MetricsFile

__all__ = ["pace_of"]

_MEMORY_POINTS, _SPEED_POINTS = 400, 100


@dataclass
class _Stretch:
    """What one process of a run wrote.

    Args:
        start: its first line; ``total_steps``, ``device`` and ``limit_bytes``.
        rows: of steps, in order.
    """

    start: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)


def pace_of(file: MetricsFile) -> dict[str, Any] | None:
    """How fast a run went and how much memory it held.

    Args:
        file: a run's ``pace.jsonl``.

    Returns:
        ``total_steps`` of the run; ``device`` and ``limit_bytes`` (what PyTorch may reserve there,
        or None) of the process that came last; ``memory``, ``[step, reserved_bytes,
        planned_bytes]`` of at most 400 steps that hold every peak, reserved None where nobody
        counts; ``speed``, ``[step, samples per second]`` over about 100 spans that end at
        ``step``, with evaluations and checkpoints between its steps. None where there is no file,
        or none that can be read: the rest of the run does not need it.
    """
    try:
        stretches = _stretches(file.read())
        if not stretches:
            return None
        start = stretches[-1].start
        rows = [row for stretch in stretches for row in stretch.rows]
        span = -(-len(rows) // _SPEED_POINTS)
        return {
            "total_steps": start["total_steps"],
            "device": start["device"],
            "limit_bytes": start["limit_bytes"],
            "memory": _memory(rows),
            "speed": [point for each in stretches for point in _speed(each.rows, span)],
        }
    except (RunError, LookupError, TypeError):
        return None


def _stretches(lines: Sequence[dict[str, Any]]) -> list[_Stretch]:
    """The lines by process, without steps that were made again."""
    stretches: list[_Stretch] = []
    for line in lines:
        is_start = line["event"] == "start"
        for stretch in stretches:
            while stretch.rows and stretch.rows[-1]["step"] >= line["step"] + is_start:
                stretch.rows.pop()
        if is_start:
            stretches.append(_Stretch(line))
        elif stretches:
            stretches[-1].rows.append(line)
    return stretches


def _memory(rows: Sequence[dict[str, Any]]) -> list[list[int | None]]:
    """Of each span of steps the one that held most."""
    span = -(-len(rows) // _MEMORY_POINTS) or 1
    spans = (rows[place : place + span] for place in range(0, len(rows), span))
    most = (max(each, key=lambda row: row["reserved_bytes"] or 0) for each in spans)
    return [[row["step"], row["reserved_bytes"], row["planned_bytes"]] for row in most]


def _speed(rows: Sequence[dict[str, Any]], span: int) -> list[list[float]]:
    """Samples per second of each span of rows; a process begins at nothing."""
    points, seconds, samples = [], 0.0, 0
    for row in rows[span - 1 :: span] if rows else ():
        taken = row["seconds"] - seconds
        if taken > 0:
            points.append([row["step"], round((row["samples"] - samples) / taken, 1)])
        seconds, samples = row["seconds"], row["samples"]
    return points
