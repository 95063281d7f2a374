"""The tape while it grows: what was allocated and freed so far."""

from __future__ import annotations

from dataclasses import dataclass

from memfit.memory.tape.tape import Allocation, Mark, Part, Phase, SizeRule, Tape

__all__ = ["Ledger", "Record"]


@dataclass(slots=True)
class Record:
    """One allocation while its part is still open; the fields of :class:`Allocation`."""

    size_bytes: int
    part: Part | None
    phase: Phase
    operator: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    step: int
    rule: SizeRule | None = None
    place: str = ""

    def frozen(self) -> Allocation:
        """As the tape has it: what got no part by now was temporary."""
        return Allocation(
            self.size_bytes, self.part or Part.TEMPORARIES, self.phase, self.operator,
            self.module, self.shape, self.dtype, self.step, self.rule, self.place,
        )  # fmt: skip


class Ledger:
    """Where a recorder writes; this one keeps everything.

    Attributes:
        records: by number.
        events: as of a :class:`~memfit.memory.tape.tape.Tape`.
        marks: where each phase of each step begins.
    """

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.events: list[int] = []
        self.marks: list[Mark] = [Mark(0, 0, Phase.DATA)]
        self._made = 0

    def allocate(self, record: Record) -> int:
        """Write an allocation down; returns its number."""
        number = self._made
        self._made += 1
        self.records[number] = record
        self.events.append(number)
        return number

    def free(self, number: int) -> None:
        """Its memory is given back; may be called in the middle of anything."""
        self.events.append(~number)

    def mark(self, step: int, phase: Phase) -> None:
        """A phase begins."""
        self.marks.append(Mark(len(self.events), step, phase))

    def settle(self) -> None:
        """A micro-batch or a step begins: what lives has its part; nothing to do here."""

    def tape(self) -> Tape:
        """What was written so far."""
        records = tuple(record.frozen() for record in self.records.values())
        return Tape(records, tuple(self.events), tuple(self.marks))
