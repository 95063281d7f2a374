"""The opcodes of a pickle of plain values; all others are refused.

Read are those of ``Lib/pickletools.py`` (Python 3.14) that a pickler writes for dicts, lists,
tuples, strings, numbers, True, False and None in protocols 2 to 5, which is also all that
``torch/csrc/jit/serialization/pickler.cpp`` writes for a snapshot taken from C++. Everything that
names, calls or builds an object is refused with its name and its place in the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from memfit.errors import DataError
from memfit.memory.snapshot.pickle_machine import (
    LOOK_AHEAD_BYTES,
    MAX_MARKS,
    UINT4,
    PickleDict,
    PickleList,
    PickleMachine,
)

__all__ = ["run_pickle"]

_Operation = Callable[[PickleMachine], object]

_STOP = ord(".")
_UINT2, _UINT8 = struct.Struct("<H"), struct.Struct("<Q")
_INT4, _FLOAT8 = struct.Struct("<i"), struct.Struct(">d")


def run_pickle(machine: PickleMachine) -> object:
    """The value of the pickle.

    Raises:
        DataError: it asks for more than plain values, is damaged, or no pickle.
    """
    operations = _OPERATIONS
    try:
        while True:
            if machine.at >= machine.safe:
                machine.refill(LOOK_AHEAD_BYTES)
            code = machine.data[machine.at]
            machine.at += 1
            if code == _STOP:
                return machine.result()
            operations[code](machine)
    except (IndexError, struct.error):
        raise machine.damaged_or_truncated() from None


def _proto(machine: PickleMachine) -> None:
    version = machine.byte()
    if not 2 <= version <= 5:
        raise machine.bad(f"pickle protocol {version}; 2 to 5 are read")


def _mark(machine: PickleMachine) -> None:
    machine.marks.append(len(machine.stack))
    if len(machine.marks) > MAX_MARKS:
        raise machine.bad("it nests deeper than any snapshot")


def _set_item(machine: PickleMachine) -> None:
    value, name = machine.stack.pop(), machine.stack.pop()
    machine.put_items([name, value])


def _long1(machine: PickleMachine) -> None:
    size = machine.byte()
    if size > 9:  # an address needs 8 bytes and one for the sign
        raise machine.bad(f"it holds a number of {size} bytes")
    machine.push(int.from_bytes(machine.take_bytes(size), "little", signed=True))


def _put(machine: PickleMachine, index: int) -> None:
    if index != len(machine.memo):
        raise machine.bad(f"it remembers value {index:,} out of order")
    machine.remember()


def _constant(value: object) -> _Operation:
    return lambda machine: machine.push(value)


def _short_tuple(count: int) -> _Operation:
    def operation(machine: PickleMachine) -> None:
        values = [machine.stack.pop() for _ in range(count)]
        machine.put_tuple(values[::-1])

    return operation


# -- what is refused ---------------------------------------------------------------------------


def _global(machine: PickleMachine) -> None:
    names = re.match(rb"([^\n]{0,200})\n([^\n]{0,200})\n", machine.data[machine.at :][:500])
    words = b".".join(names.groups()).decode("ascii", "replace") if names else "an object"
    raise _unsafe(machine, words)


def _stack_global(machine: PickleMachine) -> None:
    words = [str(value)[:200] for value in machine.stack[-2:] if isinstance(value, str)]
    raise _unsafe(machine, ".".join(words) or "an object")


def _unsafe(machine: PickleMachine, what: str) -> DataError:
    machine.at -= 1
    return machine.bad(
        f"it asks for {what!r}, and a snapshot is made of plain values only",
        hint="Nothing was run. A file that asks for code is not a snapshot: do not open it.",
    )


def _refused(name: str) -> _Operation:
    def operation(machine: PickleMachine) -> None:
        raise _unsafe(machine, name)

    return operation


def _unknown(machine: PickleMachine) -> None:
    code = machine.data[machine.at - 1]
    machine.at -= 1
    raise machine.bad(f"0x{code:02x} is no part of a snapshot", hint=(
        "Was it written by torch.cuda.memory._dump_snapshot?"))  # fmt: skip


#: Opcodes that would name, call, build or fetch an object, and what to call them.
_UNSAFE = {
    "R": "REDUCE (a call)", "b": "BUILD (an object's state)", "i": "INST (an object)",
    "o": "OBJ (an object)", "\x81": "NEWOBJ (an object)", "\x92": "NEWOBJ_EX (an object)",
    "\x82": "EXT1 (a registered object)", "\x83": "EXT2 (a registered object)",
    "\x84": "EXT4 (a registered object)", "P": "PERSID (a persistent object)",
    "Q": "BINPERSID (a persistent object)", "\x97": "NEXT_BUFFER (an outside buffer)",
    "\x98": "READONLY_BUFFER (an outside buffer)", "B": "BINBYTES (raw bytes)",
    "C": "SHORT_BINBYTES (raw bytes)", "\x8e": "BINBYTES8 (raw bytes)",
    "\x96": "BYTEARRAY8 (raw bytes)", "\x8f": "EMPTY_SET (a set)", "\x90": "ADDITEMS (a set)",
    "\x91": "FROZENSET (a set)",
}  # fmt: skip

#: What is read.
_SAFE: dict[str, _Operation] = {
    "\x80": _proto, "(": _mark,
    "\x95": lambda m: m.fixed(_UINT8),  # how the writer cut its output
    "}": lambda m: m.hold(PickleDict()), "]": lambda m: m.hold(PickleList()),
    ")": _constant(()),
    "u": lambda m: m.put_items(m.marked()), "s": _set_item,
    "e": lambda m: m.extend(m.marked()), "a": lambda m: m.extend([m.stack.pop()]),
    "t": lambda m: m.put_tuple(m.marked()),
    "\x85": _short_tuple(1), "\x86": _short_tuple(2), "\x87": _short_tuple(3),
    "\x8c": lambda m: m.text(m.byte()), "X": lambda m: m.text(m.fixed(UINT4)),
    "\x8d": lambda m: m.text(m.fixed(_UINT8)),
    "K": lambda m: m.push(m.byte()), "M": lambda m: m.push(m.fixed(_UINT2)),
    "J": lambda m: m.push(m.fixed(_INT4)), "\x8a": _long1,
    "G": lambda m: m.push(m.fixed(_FLOAT8)),
    "N": _constant(None), "\x88": _constant(True), "\x89": _constant(False),
    "\x94": lambda m: m.remember(), "q": lambda m: _put(m, m.byte()),
    "r": lambda m: _put(m, m.fixed(UINT4)),
    "h": lambda m: m.push(m.recall(m.byte())), "j": lambda m: m.long_gets(),
    "c": _global, "\x93": _stack_global,
}  # fmt: skip

_OPERATIONS: list[_Operation] = [
    _SAFE.get(chr(code)) or (_refused(_UNSAFE[chr(code)]) if chr(code) in _UNSAFE else _unknown)
    for code in range(256)
]
