"""What a PyTorch memory snapshot holds, in compact form.

A snapshot is what ``torch.cuda.memory._dump_snapshot`` writes: the segments with their blocks as
they are, and for each device the trace of what the allocator did before. The keys are those that
``torch/csrc/cuda/Module.cpp`` (``THCPModule_memorySnapshot``) puts in; ``torch/cuda/memory.py``
(``_snapshot``, torch 2.15) describes them. Nothing here knows of torch.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields
from enum import IntEnum

__all__ = [
    "NO_NOTE",
    "NO_STACK",
    "Action",
    "Frame",
    "Note",
    "SnapshotBlock",
    "SnapshotContent",
    "SnapshotSegment",
    "Stack",
    "Trace",
]

#: The number of the empty stack, and of the empty note.
NO_STACK = 0
NO_NOTE = 0


class Action(IntEnum):
    """What the allocator did (``TraceEntry::Action`` of ``c10/core/CachingDeviceAllocator.h``)."""

    ALLOC = 0
    FREE_REQUESTED = 1
    FREE_COMPLETED = 2
    SEGMENT_ALLOC = 3
    SEGMENT_FREE = 4
    SEGMENT_MAP = 5
    SEGMENT_UNMAP = 6
    OOM = 7
    SNAPSHOT = 8
    OTHER = 9  # "annotate", "user_defined" and what later versions add: moves no memory


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in a program; of C++ frames ``filename`` is often ``"??"`` and ``line`` 0."""

    filename: str
    line: int
    name: str


#: Innermost call first, as torch writes them.
Stack = tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """What was written beside an event: ``category`` and ``user_metadata``, empty when absent."""

    category: str = ""
    metadata: str = ""


@dataclass(slots=True)
class Trace:
    """What one device's allocator did, in order: columns with one entry an event.

    Args:
        action: an :class:`Action`.
        address: first byte; of an ``OOM`` what the device still had free.
        size_bytes: requested bytes; of segments the whole size.
        time_us: microseconds since the epoch; 0 where it was not recorded.
        stack: number in :attr:`SnapshotContent.stacks`.
        note: number in :attr:`SnapshotContent.notes`.
    """

    action: array[int] = field(default_factory=lambda: array("B"))
    address: array[int] = field(default_factory=lambda: array("Q"))
    size_bytes: array[int] = field(default_factory=lambda: array("q"))
    time_us: array[int] = field(default_factory=lambda: array("q"))
    stack: array[int] = field(default_factory=lambda: array("i"))
    note: array[int] = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        """How many events there are."""
        return len(self.action)

    def cut(self, start: int, stop: int) -> Trace:
        """The events from ``start`` to before ``stop``."""
        span = slice(start, stop)
        return Trace(*(getattr(self, column.name)[span] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class SnapshotBlock:
    """A block at the time of the snapshot.

    Args:
        address: first byte.
        size_bytes: the whole block.
        requested_bytes: what was asked for; ``size_bytes`` where an old torch did not say.
        is_live: allocated, or freed and waiting for another stream.
        stack: where it was allocated, see :attr:`SnapshotContent.stacks`.
    """

    address: int
    size_bytes: int
    requested_bytes: int
    is_live: bool
    stack: int


@dataclass(frozen=True, slots=True)
class SnapshotSegment:
    """Memory that the allocator holds; of an expandable segment a mapped range."""

    device: int
    address: int
    total_bytes: int
    is_expandable: bool
    blocks: tuple[SnapshotBlock, ...]


@dataclass(frozen=True, slots=True)
class SnapshotContent:
    """A whole snapshot.

    Args:
        traces: by device number.
        segments: of all devices.
        stacks: each different one once; the first is empty.
        notes: each different one once; the first is empty.
        settings: of the allocator, ``allocator_settings``.
        origin: what memfit wrote about its own export; empty in anyone else's.
    """

    traces: tuple[Trace, ...]
    segments: tuple[SnapshotSegment, ...]
    stacks: tuple[Stack, ...]
    notes: tuple[Note, ...]
    settings: dict[str, object]
    origin: dict[str, object]
