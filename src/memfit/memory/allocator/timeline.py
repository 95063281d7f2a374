"""Replay a tape through the allocator: allocated and reserved bytes at every instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memfit.cards.catalogue import GPU
from memfit.memory.allocator.allocator import AllocatorSettings, CachingAllocator, OutOfDeviceMemory
from memfit.memory.tape.evaluation import Evaluation
from memfit.memory.tape.parts import ALLOCATED_PARTS
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape

__all__ = [
    "OutOfMemoryInstant",
    "Peak",
    "Timeline",
    "fits",
    "peak_reserved_bytes",
    "replay",
    "runs_on",
]


@dataclass(frozen=True, slots=True)
class OutOfMemoryInstant:
    """Where a replay against a capacity stopped."""

    position: int
    allocation: Allocation
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Peak:
    """The instant at which most bytes are allocated.

    Args:
        position: index of the event that reaches it.
        allocated_bytes: as ``torch.cuda.max_memory_allocated`` counts (rounded blocks).
        parts: requested bytes alive by part, without cache and context.
        allocation: the allocation that reaches it.
    """

    position: int
    allocated_bytes: int
    parts: dict[Part, int]
    allocation: Allocation


@dataclass(frozen=True)
class Timeline:
    """Bytes at every instant of a tape; one entry an event.

    Args:
        tape: what was replayed.
        sizes_bytes: requested bytes by allocation number (the tape's own, or another batch's).
        allocated_bytes: after each event.
        reserved_bytes: after each event.
        out_of_memory: where the replay stopped, when it did.
        retries: how often cached blocks had to be released to go on.
    """

    tape: Tape
    sizes_bytes: Sequence[int]
    allocated_bytes: list[int] = field(repr=False)
    reserved_bytes: list[int] = field(repr=False)
    out_of_memory: OutOfMemoryInstant | None = None
    retries: int = 0

    @property
    def peak_allocated_bytes(self) -> int:
        """As ``torch.cuda.max_memory_allocated``."""
        return max(self.allocated_bytes, default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """As ``torch.cuda.max_memory_reserved``."""
        return max(self.reserved_bytes, default=0)

    def live_at(self, position: int) -> list[int]:
        """Numbers of the allocations alive after the event at ``position``, oldest first."""
        live: dict[int, None] = {}
        for event in self.tape.events[: position + 1]:
            if event >= 0:
                live[event] = None
            else:
                del live[~event]
        return list(live)

    def parts_at(self, position: int) -> dict[Part, int]:
        """Requested bytes alive after the event at ``position``, by part."""
        parts: dict[Part, int] = dict.fromkeys(ALLOCATED_PARTS, 0)
        for number in self.live_at(position):
            parts[self.tape.allocations[number].part] += self.sizes_bytes[number]
        return parts

    @property
    def parts_most(self) -> dict[Part, int]:
        """Bytes of each part, and of the cache, when it is largest: each at its own instant."""
        live = dict.fromkeys(ALLOCATED_PARTS, 0)
        most, requested, cached = dict(live), 0, 0
        allocations, sizes = self.tape.allocations, self.sizes_bytes
        for event, reserved in zip(self.tape.events, self.reserved_bytes, strict=False):
            if event >= 0:
                part, size = allocations[event].part, sizes[event]
            else:
                part, size = allocations[~event].part, -sizes[~event]
            live[part] = held = live[part] + size
            requested += size
            most[part] = max(most[part], held)
            cached = max(cached, reserved - requested)
        return most | {Part.CACHE: cached}

    @property
    def evaluation(self) -> Evaluation | None:
        """The validation pass that follows the steps; None where there is none."""
        begin = self.tape.evaluation
        if begin is None:
            return None
        marks = self.tape.marks
        return Evaluation(
            "between",
            allocated_bytes=max(self.allocated_bytes[begin:]),
            reserved_bytes=max(self.reserved_bytes[begin:]),
            forwards=sum(m.phase is Phase.FORWARD and m.position >= begin for m in marks),
            place="",
        )

    @property
    def peak(self) -> Peak:
        """The first instant at which most bytes are allocated.

        Raises:
            ValueError: nothing was allocated.
        """
        if not self.allocated_bytes:
            raise ValueError("an empty tape has no peak")
        position = self.allocated_bytes.index(self.peak_allocated_bytes)
        number = self.tape.events[position]
        return Peak(
            position=position,
            allocated_bytes=self.allocated_bytes[position],
            parts=self.parts_at(position),
            allocation=self.tape.allocations[number if number >= 0 else ~number],
        )


def replay(
    tape: Tape,
    sizes_bytes: Sequence[int] | None = None,
    *,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
) -> Timeline:
    """Replay a tape through a model of PyTorch's caching allocator.

    Args:
        tape: the events.
        sizes_bytes: requested bytes by allocation number; the tape's own when omitted.
        settings: the allocator's options.
        capacity_bytes: what the device can give to segments; unlimited when omitted.
    """
    sizes = tape.sizes_bytes if sizes_bytes is None else sizes_bytes
    allocator = CachingAllocator(settings or AllocatorSettings(), capacity_bytes)
    allocate, free = allocator.allocate, allocator.free
    blocks = {}
    allocated: list[int] = []
    reserved: list[int] = []
    failure = None
    for position, event in enumerate(tape.events):
        if event >= 0:
            try:
                blocks[event] = allocate(sizes[event])
            except OutOfDeviceMemory as error:
                failure = OutOfMemoryInstant(
                    position,
                    tape.allocations[event],
                    error.requested_bytes,
                    error.allocated_bytes,
                    error.reserved_bytes,
                )
                break
        else:
            free(blocks.pop(~event))
        allocated.append(allocator.allocated_bytes)
        reserved.append(allocator.reserved_bytes)
    return Timeline(tape, sizes, allocated, reserved, failure, allocator.retry_count)


def fits(
    tape: Tape,
    sizes_bytes: Sequence[int],
    capacity_bytes: int,
    settings: AllocatorSettings | None = None,
    device_total_bytes: int | None = None,
) -> bool:
    """Whether a tape runs within a capacity, releasing cached blocks where torch would.

    Args:
        tape: the events.
        sizes_bytes: requested bytes by allocation number.
        capacity_bytes: what the device can give to segments.
        settings: the allocator's options.
        device_total_bytes: of which they may allow a share; as ``capacity_bytes`` when omitted.
    """
    allocator = CachingAllocator(
        settings or AllocatorSettings(), capacity_bytes, device_total_bytes
    )
    try:
        _play(allocator, tape, sizes_bytes)
    except OutOfDeviceMemory:
        return False
    return True


def peak_reserved_bytes(tape: Tape, sizes_bytes: Sequence[int], settings: AllocatorSettings) -> int:
    """What :func:`replay` finds without a limit, and nothing beside it: half the time."""
    allocator = CachingAllocator(settings)
    _play(allocator, tape, sizes_bytes)
    return allocator.peak_reserved_bytes


def _play(allocator: CachingAllocator, tape: Tape, sizes_bytes: Sequence[int]) -> None:
    allocate, free = allocator.allocate, allocator.free
    blocks = {}
    for event in tape.events:
        if event >= 0:
            blocks[event] = allocate(sizes_bytes[event])
        else:
            free(blocks.pop(~event))


def runs_on(tape: Tape, sizes_bytes: Sequence[int], gpu: GPU, settings: AllocatorSettings) -> bool:
    """Whether a tape runs on a card: within what it leaves PyTorch, and the share that is allowed.

    Args:
        tape: the events.
        sizes_bytes: requested bytes by allocation number.
        gpu: the card.
        settings: the allocator's options; a share of memory is one of the card's ``total_bytes``.
    """
    return fits(tape, sizes_bytes, gpu.capacity_bytes, settings, gpu.total_bytes)
