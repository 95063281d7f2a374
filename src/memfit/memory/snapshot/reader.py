"""Read anyone's memory snapshot: nothing in it is trusted, run or kept twice."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from memfit.errors import DataError
from memfit.memory.snapshot.opcodes import run_pickle
from memfit.memory.snapshot.pickle_machine import (
    PickleDict,
    PickleList,
    PickleMachine,
    Shareable,
)
from memfit.memory.snapshot.snapshot import (
    Action,
    Frame,
    Note,
    SnapshotBlock,
    SnapshotContent,
    SnapshotSegment,
    Trace,
)
from memfit.progress import SILENT, Tell

__all__ = ["open_snapshot", "read_snapshot"]


_ACTIONS: dict[str, Action] = {action.name.lower(): action for action in Action}

# ``active_awaiting_free`` is what the documentation says, ``active_pending_free`` what is written.
_LIVE_STATES = ("active_allocated", "active_pending_free", "active_awaiting_free")

#: First bytes of what people take for a snapshot, and what it is.
_OTHER_FILES: tuple[tuple[bytes, str, str | None], ...] = (
    (b"\x1f\x8b", "it is compressed with gzip", "Unpack it first: gunzip FILE."),
    (b"PK\x03\x04", "it is a zip archive or a torch.save file",
     "memfit explain reads what torch.cuda.memory._dump_snapshot writes."),
    (b"\x80\x02\x8a\n", "it is a torch.save file",
     "memfit explain reads what torch.cuda.memory._dump_snapshot writes."),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd", "Unpack it first: unzstd FILE."),
    (b"{", "it is JSON", "memfit explain reads what torch.cuda.memory._dump_snapshot writes."),
    (b"<", "it is HTML", "memfit explain reads the pickle, not the page made of it."),
)  # fmt: skip


def open_snapshot(path: str | Path, progress: Tell = SILENT) -> SnapshotContent:
    """Read a snapshot file of any size.

    Args:
        path: written by ``torch.cuda.memory._dump_snapshot`` or by ``memfit plan --snapshot``.
        progress: called now and then with the MiB read and the MiB there are.

    Raises:
        DataError: it cannot be opened, is no snapshot, is damaged, or asks for code.
    """
    try:
        state = Path(path).stat()
        if stat.S_ISFIFO(state.st_mode) or stat.S_ISCHR(state.st_mode):
            raise DataError(f"{path} is no file on a disk.", hint="Write the snapshot to a file.")
        with Path(path).open("rb") as source:
            return read_snapshot(source, state.st_size, name=str(path), progress=progress)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_snapshot(
    source: BinaryIO, size_bytes: int, *, name: str = "snapshot", progress: Tell = SILENT
) -> SnapshotContent:
    """Read a snapshot from bytes.

    Args:
        source: open for reading, at its start.
        size_bytes: how many bytes it has.
        name: what to call it in messages.
        progress: called now and then with the MiB read and the MiB there are.

    Raises:
        DataError: it is no snapshot, is damaged, or asks for code.
    """
    start = source.read(4)
    source.seek(0)
    _check_start(start, name)
    receiver = _Receiver(name)
    size_mib = max(1, size_bytes >> 20)
    receiver.machine = PickleMachine(
        source, size_bytes, name, receiver, lambda done: progress(done >> 20, size_mib)
    )
    return receiver.content(run_pickle(receiver.machine))


def _check_start(start: bytes, name: str) -> None:
    if not start:
        raise DataError(f"{name} is empty.")
    for magic, what, hint in _OTHER_FILES:
        if start.startswith(magic):
            raise DataError(f"{name} is no readable snapshot: {what}.", hint=hint)
    if start[0] != 0x80:
        raise DataError(
            f"{name} is no readable snapshot: it is no pickle of protocol 2 to 5.",
            hint="memfit explain reads what torch.cuda.memory._dump_snapshot writes.",
        )


@dataclass(eq=False, slots=True)
class _FrameToken(Shareable):
    """A frame inside the pickle."""

    frame: Frame


@dataclass(eq=False, slots=True)
class _StackToken(Shareable):
    """A stack inside the pickle: its number."""

    number: int


#: A trace entry inside the pickle; what it says is in the columns.
_ENTRY = object()


class _Receiver:
    """Turns what is complete into columns; see :class:`PickleReceiver`."""

    machine: PickleMachine

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames: dict[Frame, _FrameToken] = {}
        self._stacks: dict[tuple[object, ...], _StackToken] = {(): _StackToken(0)}
        self._notes: dict[Note, int] = {Note(): 0}
        self._entries = Trace()

    # -- while the file is read ----------------------------------------------------------------

    def take(self, value: PickleDict) -> object:
        """Frames and trace entries are taken over; of all else the stack."""
        if "filename" in value:
            return self._frame(value)
        frames = value.get("frames")
        if isinstance(frames, PickleList):
            value["frames"] = self._stack(frames)
        if "action" in value:
            self._add_entry(value)
            return _ENTRY
        return value

    def share(self, value: PickleList) -> Shareable | None:
        """A list of frames may be named again."""
        if all(isinstance(item, _FrameToken) for item in value):
            return self._interned(value)
        return None

    def _frame(self, value: PickleDict) -> _FrameToken:
        line = value.get("line")
        frame = Frame(
            _word(value.get("filename")),
            line if isinstance(line, int) else 0,
            _word(value.get("name")),
        )
        return self._frames.setdefault(frame, _FrameToken(frame))

    def _stack(self, frames: PickleList) -> _StackToken:
        token = self._interned(frames)
        self.machine.settle(frames, token)
        return token

    def _interned(self, frames: PickleList) -> _StackToken:
        key = tuple(frames)
        try:
            token = self._stacks.get(key)
        except TypeError:  # a dict or a list in it
            raise self._unlike("a stack holds something that is no frame") from None
        if token is None:
            if not all(isinstance(item, _FrameToken) for item in key):
                raise self._unlike("a stack holds something that is no frame")
            token = self._stacks[key] = _StackToken(len(self._stacks))
        return token

    def _add_entry(self, value: PickleDict) -> None:
        entries = self._entries
        action = _ACTIONS.get(_word(value["action"]), Action.OTHER)
        address = value.get("addr") if action is not Action.OOM else value.get("device_free")
        entries.action.append(action)
        entries.address.append(self._number(address, "addr", 64))
        entries.size_bytes.append(self._number(value.get("size"), "size", 62))
        entries.time_us.append(self._number(value.get("time_us"), "time_us", 62))
        stack = value.get("frames")
        entries.stack.append(stack.number if isinstance(stack, _StackToken) else 0)
        entries.note.append(self._note(value))

    def _note(self, value: PickleDict) -> int:
        category, metadata = _word(value.get("category")), _word(value.get("user_metadata"))
        if not category and not metadata:
            return 0
        note = Note(category, metadata)
        return self._notes.setdefault(note, len(self._notes))

    def _number(self, value: object, name: str, bits: int) -> int:
        if value is None:
            return 0
        if not isinstance(value, int) or not -(2**63) <= value < 2**64:
            raise self._unlike(f"{name!r} of an event is no whole number of 64 bits")
        if value < 0 and bits == 64:
            return value + 2**64  # C++ writes addresses as signed numbers
        if not 0 <= value < 2**bits:
            raise self._unlike(f"{name!r} of an event is {value}")
        return value

    # -- at the end ----------------------------------------------------------------------------

    def content(self, value: object) -> SnapshotContent:
        """The snapshot, of what the whole pickle is."""
        if isinstance(value, PickleList):  # torch.cuda.memory_snapshot(): the segments alone
            value = PickleDict(segments=value, device_traces=PickleList())
        if not isinstance(value, PickleDict):
            raise self._unlike("it is no dict")
        if "segments" not in value and "device_traces" not in value:
            raise self._unlike("it has neither segments nor device_traces")
        traces = self._traces(_list(value.get("device_traces")), _entries_before(value))
        segments = tuple(self._segment(item) for item in _list(value.get("segments")))
        settings, origin = value.get("allocator_settings"), value.get("memfit")
        return SnapshotContent(
            traces=traces,
            segments=segments,
            stacks=tuple(
                tuple(token.frame for token in tokens if isinstance(token, _FrameToken))
                for tokens in self._stacks
            ),
            notes=tuple(self._notes),
            settings=dict(settings) if isinstance(settings, PickleDict) else {},
            origin=dict(origin) if isinstance(origin, PickleDict) else {},
        )

    def _traces(self, lists: list[object], start: int) -> tuple[Trace, ...]:
        """Cut the columns by device; ``start`` entries of something else come first."""
        counts = []
        for entries in lists:
            if not isinstance(entries, PickleList) or any(item is not _ENTRY for item in entries):
                raise self._unlike("device_traces holds something that is no event")
            counts.append(len(entries))
        whole, traces = self._entries, []
        if counts == [len(whole)]:
            return (whole,)
        if start + sum(counts) > len(whole):
            raise self._unlike("device_traces holds an event twice")
        for count in counts:
            traces.append(whole.cut(start, start + count))
            start += count
        return tuple(traces)

    def _segment(self, value: object) -> SnapshotSegment:
        if not isinstance(value, PickleDict):
            raise self._unlike("segments holds something that is no segment")
        address = self._number(value.get("address"), "address", 64)
        blocks, at = [], address
        for item in _list(value.get("blocks")):
            block = self._block(item, at)
            blocks.append(block)
            at += block.size_bytes
        total_bytes = self._number(value.get("total_size"), "total_size", 62)
        if at - address > total_bytes:
            raise self._unlike(f"the blocks of segment {address:#x} are larger than the segment")
        return SnapshotSegment(
            device=self._number(value.get("device"), "device", 31),
            address=address,
            total_bytes=total_bytes,
            is_expandable=bool(value.get("is_expandable")),
            blocks=tuple(blocks),
        )

    def _block(self, value: object, address: int) -> SnapshotBlock:
        if not isinstance(value, PickleDict):
            raise self._unlike("a segment holds something that is no block")
        stack, history = value.get("frames"), _list(value.get("history"))
        size_bytes = self._number(value.get("size"), "size", 62)
        requested = value.get("requested_size")
        if history and isinstance(history[0], PickleDict):  # torch 2.0 and older
            stack = stack or history[0].get("frames")
            requested = requested or history[0].get("real_size")
        return SnapshotBlock(
            address=address,
            size_bytes=size_bytes,
            requested_bytes=self._number(requested or size_bytes, "requested_size", 62),
            is_live=_word(value.get("state")) in _LIVE_STATES,
            stack=stack.number if isinstance(stack, _StackToken) else 0,
        )

    def _unlike(self, reason: str) -> DataError:
        return DataError(
            f"{self._name} is no memory snapshot: {reason}.",
            hint="memfit explain reads what torch.cuda.memory._dump_snapshot writes.",
        )


def _list(value: object) -> list[object]:
    return value if isinstance(value, PickleList) else []


def _entries_before(value: PickleDict) -> int:
    """Events that were read before those of ``device_traces``, such as ``host_traces``."""
    count = 0
    for name, part in value.items():
        if name == "device_traces":
            break
        for item in _list(part):
            count += (item is _ENTRY) + sum(entry is _ENTRY for entry in _list(item))
    return count


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
