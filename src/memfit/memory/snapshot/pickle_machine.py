"""A pickle machine that builds plain values only and holds little of them.

What each opcode does is in :mod:`memfit.memory.snapshot.opcodes`. The file is read in pieces, and
whoever reads is handed each dict as soon as it is complete and says what to keep of it, so a long
trace never exists as Python objects. What is shared may only be a stack (see
:meth:`PickleReceiver.share`): a file cannot grow by naming its own lists again.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from memfit.errors import DataError
from memfit.units import MIB

__all__ = [
    "LOOK_AHEAD_BYTES",
    "MAX_MARKS",
    "UINT4",
    "PickleDict",
    "PickleList",
    "PickleMachine",
    "PickleReceiver",
    "Shareable",
]

_PIECE_BYTES = 4 * MIB
LOOK_AHEAD_BYTES = 32  # more than any opcode with its fixed argument

# What a file may make the machine hold. A snapshot of 10 million events stays below each.
MAX_HELD_CONTAINERS = 2_000_000  # dicts and lists that nobody has taken over yet
MAX_HELD_ITEMS = 40_000_000
MAX_STACK = 12_000_000
MAX_MARKS = 64  # a snapshot nests 6 deep
MAX_MEMO = 60_000_000
MAX_TEXT_BYTES = 600 * MIB  # of different strings
MAX_STRING_BYTES = 16 * MIB
_STRING_OVERHEAD_BYTES = 100  # of a Python string and its place in a table

_LONG_GETS = re.compile(rb"(?:j[\x00-\xff]{4}){2,}")
_KNOWN_RUNS = 20_000


UINT4 = struct.Struct("<I")


class Shareable:
    """What a pickle may name again as often as it likes."""

    __slots__ = ()


class PickleDict(dict[str, object]):
    """A dict under construction; ``memo`` is its number there, or -1."""

    __slots__ = ("memo",)
    memo: int


class PickleList(list[object]):
    """A list under construction; ``memo`` is its number there, or -1."""

    __slots__ = ("memo",)
    memo: int


class PickleReceiver(Protocol):
    """Who takes over what the machine reads."""

    def take(self, value: PickleDict) -> object:
        """What to keep in place of a dict that is complete; the dict itself to keep all."""

    def share(self, value: PickleList) -> Shareable | None:
        """What to keep in place of a list that is named again; None to refuse the file."""


#: Stands in the memo for what the receiver has taken over.
_TAKEN = object()


class PickleMachine:
    """Reads one pickle.

    Args:
        source: of bytes, at the pickle's start.
        size_bytes: of the whole file.
        name: of the file, for messages.
        receiver: who takes over what is complete.
        progress: called now and then with the bytes read.
    """

    def __init__(
        self,
        source: BinaryIO,
        size_bytes: int,
        name: str,
        receiver: PickleReceiver,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.receiver = receiver
        self.stack: list[object] = []
        self.memo: list[object] = []
        self._source = source
        self._size_bytes = size_bytes
        self._name = name
        self._progress = progress
        self.data = b""
        self.at = 0  # next byte of data
        self._before = 0  # bytes of the file in front of data
        self.safe = 0  # up to here an opcode has its arguments in data
        self.marks: list[int] = []
        self._containers = 0
        self._items = 0
        self._text_bytes = 0
        self._texts: dict[bytes, str] = {}
        self._runs: dict[bytes, list[object]] = {}

    # -- the file ------------------------------------------------------------------------------

    def result(self) -> object:
        """The one value that is left when the pickle ends."""
        if len(self.stack) != 1 or self.marks:
            raise self.bad("it ends in the middle of a value")
        return self.stack[0]

    def refill(self, need_bytes: int) -> None:
        """Have at least ``need_bytes`` from here on in memory, or the rest of the file."""
        if len(self.data) - self.at >= need_bytes:
            return
        piece = self._source.read(max(_PIECE_BYTES, need_bytes))
        self._before += self.at
        self.data = self.data[self.at :] + piece
        self.at = 0
        self.safe = len(self.data) - LOOK_AHEAD_BYTES if piece else len(self.data)
        if self._progress is not None:
            self._progress(self._before)

    def damaged_or_truncated(self) -> DataError:
        """The error for an opcode whose arguments are not there."""
        if self.at >= len(self.data) - LOOK_AHEAD_BYTES:
            return self.bad("it ends too early", hint="Copy it again: it is truncated.")
        return self.bad("its parts do not match")

    def bad(self, reason: str, *, hint: str | None = None) -> DataError:
        """The error for a file that cannot be read on."""
        place = self._before + self.at
        return DataError(f"{self._name} is no readable snapshot: {reason} (byte {place:,}).",
                         hint=hint)  # fmt: skip

    # -- what is held --------------------------------------------------------------------------

    def settle(self, container: PickleDict | PickleList, value: object = _TAKEN) -> None:
        """Forget a container that was taken over; in the memo ``value`` stands for it."""
        self._containers -= 1
        self._items -= len(container)
        if container.memo >= 0:
            self.memo[container.memo] = value
            container.memo = -1

    def push(self, value: object) -> None:
        """Put a value on top of the stack."""
        self.stack.append(value)
        if len(self.stack) > MAX_STACK:
            raise self.bad("it holds too many values at once")

    def hold(self, container: PickleDict | PickleList) -> None:
        """Put an empty container on top of the stack."""
        container.memo = -1
        self._containers += 1
        if self._containers > MAX_HELD_CONTAINERS:
            raise self.bad("it holds more lists than any snapshot")
        self.push(container)

    def _grow(self, items: int) -> None:
        self._items += items
        if self._items > MAX_HELD_ITEMS:
            raise self.bad("it holds longer lists than any snapshot")

    def remember(self) -> None:
        """Give the top of the stack the next number of the memo."""
        value = self.stack[-1]
        if isinstance(value, (PickleDict, PickleList)) and value.memo < 0:
            value.memo = len(self.memo)
        self.memo.append(value)
        if len(self.memo) > MAX_MEMO:
            raise self.bad("it remembers more values than any snapshot")

    def recall(self, index: int) -> object:
        """What the memo has under a number."""
        if index >= len(self.memo):
            raise self.bad(f"it names value {index:,} before that exists")
        value = self.memo[index]
        if isinstance(value, PickleList):
            shared = self.receiver.share(value)
            if shared is not None:
                self.settle(value, shared)
                return shared
        if value is _TAKEN or isinstance(value, (PickleDict, PickleList)):
            raise self.bad("it has the same entry in two places")
        return value

    # -- arguments -----------------------------------------------------------------------------

    def byte(self) -> int:
        """The next byte, as a number."""
        self.at += 1
        return self.data[self.at - 1]

    def fixed(self, form: struct.Struct) -> Any:
        """The next number of a fixed form."""
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def take_bytes(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        left = self._size_bytes - self._before - self.at
        if size > left:
            raise self.bad(f"it claims {size:,} bytes and has {left:,}")
        if len(self.data) - self.at < size:
            self.refill(size + LOOK_AHEAD_BYTES)
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self, size: int) -> None:
        """Push the text of the next ``size`` bytes."""
        if size > MAX_STRING_BYTES:
            raise self.bad(f"it holds a text of {size:,} bytes")
        raw = self.take_bytes(size)
        text = self._texts.get(raw)
        if text is None:
            self._text_bytes += 2 * (size + _STRING_OVERHEAD_BYTES)
            if self._text_bytes > MAX_TEXT_BYTES:
                raise self.bad("it holds more different texts than any snapshot")
            text = self._texts[raw] = raw.decode("utf-8", errors="replace")
        self.push(text)

    def marked(self) -> list[object]:
        """The values above the last mark, taken off the stack."""
        if not self.marks:
            raise self.bad("its parts do not match")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    # -- containers ----------------------------------------------------------------------------

    def put_items(self, values: list[object]) -> None:
        """Put names and values into the dict on top, and offer it to the receiver."""
        target = self.stack[-1]
        if not isinstance(target, PickleDict) or len(values) % 2:
            raise self.bad("its parts do not match")
        self._grow(len(values) // 2)
        for name, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(name, str):
                raise self.bad("a dict has a key that is no text")
            target[name] = value
        self.stack[-1] = kept = self.receiver.take(target)
        if kept is not target:
            self.settle(target, kept if isinstance(kept, Shareable) else _TAKEN)

    def extend(self, values: list[object]) -> None:
        """Put values into the list on top."""
        target = self.stack[-1]
        if not isinstance(target, PickleList):
            raise self.bad("its parts do not match")
        self._grow(len(values))
        target.extend(values)

    def put_tuple(self, values: list[object]) -> None:
        """Push a tuple of numbers and texts; nothing reads it but as a whole."""
        if any(isinstance(value, (PickleDict, PickleList, tuple)) for value in values):
            raise self.bad("a tuple holds lists, which no snapshot has")
        self.push(tuple(values) if len(values) <= 16 else None)

    def long_gets(self) -> None:
        """Values named one after the other, as the frames of a stack are: all in one go."""
        found = _LONG_GETS.match(self.data, self.at - 1)
        if found is None:
            self.push(self.recall(self.fixed(UINT4)))
            return
        run = found.group()
        values = self._runs.get(run)
        if values is None:
            numbers = struct.unpack("<" + "xI" * (len(run) // 5), run)  # struct keeps the form
            values = [self.recall(number) for number in numbers]
            if len(self._runs) >= _KNOWN_RUNS:
                self._runs.clear()
            if all(isinstance(value, Shareable) for value in values):
                self._runs[run] = values
        self.stack.extend(values)
        self.at += len(run) - 1
        if len(self.stack) > MAX_STACK:
            raise self.bad("it holds too many values at once")
