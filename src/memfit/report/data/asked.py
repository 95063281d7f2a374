"""What is asked of a sample, in a sentence: what was decided, why, and how to decide otherwise."""

from __future__ import annotations

from memfit.data.facts.inspection import Inspection
from memfit.files.names import clean

__all__ = ["task_line"]

_SHOWN = 5


def task_line(inspection: Inspection) -> str:
    """The task and how it was found out."""
    task = inspection.task
    if task.name == "masks":
        values = _list([clean(name) for name in inspection.classes])
        return f"A mask for each image, with the values {values}: {task.reason}. {_else('classes')}"
    if task.name == "values":
        values = _list([f"{clean(v.name)} from {v.least:g} to {v.most:g}" for v in task.values])
        return f"Values to predict, {values}: {clean(task.reason)}. {_else('classes')}"
    if task.name == "labels":
        return f"Several labels for an image: {clean(task.reason)}. {_else('classes')}"
    other = "labels" if " columns" in task.reason else "values"
    return f"Classes: {clean(task.reason)}. {_else(other)}"


def _list(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return f"{', '.join(words[:_SHOWN])}{more}"


def _else(task: str) -> str:
    return f"Otherwise: --task {task}."
