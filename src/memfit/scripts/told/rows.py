"""A tape as plain values: tables of words and of kernels, then rows of numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from memfit.memory.kernels.sizes import KernelSize, KernelSizes
from memfit.memory.tape.tape import Allocation, Mark, Part, Phase, SizeRule, Tape

__all__ = ["rows_of", "tape_of"]


def rows_of(tape: Tape) -> dict[str, Any]:
    """The tape for JSON.

    Args:
        tape: of a run; its rules are those of kernels.
    """
    words: dict[Hashable, int] = {}
    kernels: dict[Hashable, int] = {}

    def number(value: Hashable, table: dict[Hashable, int] = words) -> int:
        return table.setdefault(value, len(table))

    def ruled(rule: SizeRule | None) -> list[int]:
        return [number(rule.kernel, kernels), rule.block] if isinstance(rule, KernelSize) else []

    rows = [
        [
            a.size_bytes, *map(number, (a.part, a.phase, a.operator, a.module, a.dtype, a.place)),
            a.step, list(a.shape), ruled(a.rule),
        ]
        for a in tape.allocations
    ]  # fmt: skip
    marks = [[mark.position, mark.step, number(mark.phase)] for mark in tape.marks]
    known = [kernel.to_dict() for kernel in kernels if isinstance(kernel, KernelSizes)]
    return {
        "words": list(words), "kernels": known, "rows": rows, "events": list(tape.events),
        "marks": marks,
    }  # fmt: skip


def tape_of(values: dict[str, Any]) -> Tape:
    """What :func:`rows_of` wrote."""
    words: Sequence[str] = values["words"]
    kernels = [KernelSizes.of(kernel) for kernel in values["kernels"]]

    def allocation(
        size_bytes: int, *numbers: int, step: int, shape: list[int], rule: list[int]
    ) -> Allocation:
        part, phase, operator, module, dtype, place = (words[number] for number in numbers)
        kernel = KernelSize(kernels[rule[0]], rule[1]) if rule else None
        return Allocation(
            size_bytes, Part(part), Phase(phase), operator, module, tuple(shape), dtype, step,
            kernel, place,
        )  # fmt: skip

    allocations = [
        allocation(*row, step=step, shape=shape, rule=rule)
        for *row, step, shape, rule in values["rows"]
    ]
    marks = [Mark(position, step, Phase(words[phase])) for position, step, phase in values["marks"]]
    return Tape(tuple(allocations), tuple(values["events"]), tuple(marks))
