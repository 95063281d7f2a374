"""A tape as plain values: tables of words, then rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memfit.memory.tape.tape import Allocation, Mark, Part, Phase, Tape

__all__ = ["rows_of", "tape_of"]


def rows_of(tape: Tape) -> dict[str, Any]:
    """The tape for JSON, without its rules.

    Args:
        tape: of a run.
    """
    words: dict[str, int] = {}

    def number(word: str) -> int:
        return words.setdefault(word, len(words))

    rows = [
        [
            a.size_bytes, *map(number, (a.part, a.phase, a.operator, a.module, a.dtype, a.place)),
            a.step, list(a.shape),
        ]
        for a in tape.allocations
    ]  # fmt: skip
    marks = [[mark.position, mark.step, number(mark.phase)] for mark in tape.marks]
    return {"words": list(words), "rows": rows, "events": list(tape.events), "marks": marks}


def tape_of(values: dict[str, Any]) -> Tape:
    """What :func:`rows_of` wrote."""
    words: Sequence[str] = values["words"]
    allocations = [
        Allocation(
            size_bytes, Part(words[part]), Phase(words[phase]), words[operator], words[module],
            tuple(shape), words[dtype], step, place=words[place],
        )
        for size_bytes, part, phase, operator, module, dtype, place, step, shape in values["rows"]
    ]  # fmt: skip
    marks = [Mark(position, step, Phase(words[phase])) for position, step, phase in values["marks"]]
    return Tape(tuple(allocations), tuple(values["events"]), tuple(marks))
