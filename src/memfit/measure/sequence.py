"""A tape in a few kilobytes of text: tables, then numbers, packed."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from memfit.errors import UsageError
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape

__all__ = ["pack_tape", "unpack_tape"]

_PARTS, _PHASES = tuple(Part), tuple(Phase)
_MOST_BYTES = 256 * 1024 * 1024  # of unpacked text: a record comes from somebody else


def pack_tape(tape: Tape) -> str:
    """A tape without addresses, shapes and rules as text.

    JSON ``{"operators": [...], "modules": [...], "allocations": [[bytes, part, phase, operator,
    module, step], ...], "events": [...]}`` with the numbers of the tables, through zlib and base64.
    """
    operators: dict[str, int] = {}
    modules: dict[str, int] = {}
    allocations = [
        [
            a.size_bytes,
            _PARTS.index(a.part),
            _PHASES.index(a.phase),
            operators.setdefault(a.operator, len(operators)),
            modules.setdefault(a.module, len(modules)),
            a.step,
        ]
        for a in tape.allocations
    ]
    content = {
        "operators": list(operators),
        "modules": list(modules),
        "allocations": allocations,
        "events": list(tape.events),
    }
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return base64.b64encode(packed).decode("ascii")


def unpack_tape(text: str) -> Tape:
    """The tape that :func:`pack_tape` wrote.

    Raises:
        UsageError: the text is none.
    """
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
        if not unpacker.eof:
            raise ValueError("it is cut off or too long")
        content = json.loads(plain)
        allocations = tuple(_allocation(row, content) for row in content["allocations"])
        events = tuple(int(event) for event in content["events"])
        _check(events, len(allocations))
        return Tape(allocations, events)
    except (ValueError, KeyError, IndexError, TypeError, zlib.error) as error:
        raise UsageError(f"The sequence in a record cannot be read: {error}.") from None


def _allocation(row: list[int], content: dict[str, Any]) -> Allocation:
    size_bytes, part, phase, operator, module, step = row
    return Allocation(
        int(size_bytes),
        _PARTS[part],
        _PHASES[phase],
        str(content["operators"][operator]),
        str(content["modules"][module]),
        step=int(step),
    )


def _check(events: tuple[int, ...], count: int) -> None:
    """Each allocation once, each free after it and once."""
    live: set[int] = set()
    made = 0
    for event in events:
        if event >= 0:
            if event != made:
                raise ValueError("allocations are out of order")
            made += 1
            live.add(event)
        else:
            live.remove(~event)
    if made != count:
        raise ValueError(f"{made} of {count} allocations happen")
