"""What is asked of a sample, in a sentence: what was decided, why, and how to decide otherwise."""

from __future__ import annotations

from memfit.data.facts.inspection import Inspection
from memfit.files.names import clean

__all__ = ["task_line"]

_SHOWN = 5


def task_line(inspection: Inspection) -> str:
    """The task and, where that was decided by looking, why, and how to decide otherwise."""
    task = inspection.task
    if not task.reason:
        return f"{_asked(inspection)}."
    other = "classes"
    if task.name == "classes":
        other = "labels" if " columns" in task.reason else "values"
    return f"{_asked(inspection)}: {clean(task.reason)}. Otherwise: --task {other}."


def _asked(inspection: Inspection) -> str:
    task = inspection.task
    if task.name == "masks":
        values = _list([clean(name) for name in inspection.classes])
        return f"A mask for each image, with the values {values}"
    if task.name == "values":
        values = _list([f"{clean(v.name)} from {v.least:g} to {v.most:g}" for v in task.values])
        return f"Values to predict, {values}"
    return "Several labels for an image" if task.name == "labels" else "Classes"


def _list(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return f"{', '.join(words[:_SHOWN])}{more}"
