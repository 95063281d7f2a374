"""The memory of one device over time, rebuilt from a snapshot.

A trace may begin in the middle: history was switched on late, or its ring buffer dropped the
beginning. So the state at the end, which a snapshot always has, is first followed backwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from memfit.explain.block_map import BlockMap, FreeMemory, cut_out
from memfit.memory.allocator.sizes import UNLIMITED, SizeRules
from memfit.memory.snapshot.snapshot import NO_NOTE, NO_STACK, Action, SnapshotContent, Trace

__all__ = ["Failure", "History", "devices_of", "rebuild"]


def _longs() -> array[int]:
    return array("q")


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that the device had no room for.

    Args:
        position: events before it.
        requested_bytes: as the allocator rounded it.
        device_free_bytes: what the device still had.
        allocated_bytes: in live blocks.
        reserved_bytes: in segments, after the cache was given back.
        free: what was reserved and free.
        stack: who asked; a number in the snapshot's stacks.
        note: beside it; a number in the snapshot's notes.
    """

    position: int
    requested_bytes: int
    device_free_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    free: FreeMemory
    stack: int
    note: int


@dataclass(slots=True)
class History:
    """One device's allocations and events, as columns.

    Args:
        device: its number.
        before_count: allocations that were there when the trace began; they come first.
        sizes_bytes: requested bytes by allocation.
        stacks: who made it, by allocation.
        notes: beside it, by allocation.
        freed_stacks: who freed it, by allocation; the empty stack where nobody did.
        born: position of the event that made it, by allocation.
        freed: position of the event that freed it, by allocation; -1 where none did.
        events: ``i`` allocates, ``~i`` frees, as on a :class:`~memfit.memory.tape.tape.Tape`.
        times_us: by event; 0 where it was not recorded.
        allocated_bytes: after each event, whole blocks.
        reserved_bytes: after each event.
        failures: requests that were refused.
        released_bytes: what was given back to the device.
        releases: how often in a row something was given back.
        surprises: events that do not fit what came before.
        trace_count: entries of the trace.
        free_at_peak: what was reserved and free when most was allocated.
        free_at_end: the same at the end.
    """

    device: int
    before_count: int = 0
    sizes_bytes: array[int] = field(default_factory=_longs)
    stacks: array[int] = field(default_factory=_longs)
    notes: array[int] = field(default_factory=_longs)
    freed_stacks: array[int] = field(default_factory=_longs)
    born: array[int] = field(default_factory=_longs)
    freed: array[int] = field(default_factory=_longs)
    events: array[int] = field(default_factory=_longs)
    times_us: array[int] = field(default_factory=_longs)
    allocated_bytes: array[int] = field(default_factory=_longs)
    reserved_bytes: array[int] = field(default_factory=_longs)
    failures: list[Failure] = field(default_factory=list)
    released_bytes: int = 0
    releases: int = 0
    surprises: int = 0
    trace_count: int = 0
    free_at_peak: FreeMemory = field(default_factory=FreeMemory)
    free_at_end: FreeMemory = field(default_factory=FreeMemory)

    @property
    def peak_position(self) -> int:
        """The first event after which most is allocated; -1 when there is none."""
        if not self.events:
            return -1
        return self.allocated_bytes.index(max(self.allocated_bytes))

    def live_at(self, position: int) -> list[int]:
        """Numbers of the allocations alive after the event at ``position``."""
        return [
            number
            for number, (born, freed) in enumerate(zip(self.born, self.freed, strict=True))
            if born <= position and (freed < 0 or freed > position)
        ]


def devices_of(content: SnapshotContent) -> list[int]:
    """The devices that a snapshot says anything about."""
    traced = {device for device, trace in enumerate(content.traces) if len(trace)}
    return sorted(traced | {segment.device for segment in content.segments})


def rebuild(content: SnapshotContent, device: int) -> History:
    """A device's history, from the state when the trace began."""
    trace = content.traces[device] if device < len(content.traces) else Trace()
    rules = _size_rules(content, device)
    start = _Start(content, device, trace, rules)
    player = _Player(trace, rules, start)
    history = player.play(History(device), len(trace))
    again = _Player(trace, rules, start)
    if history.events and history.peak_position >= history.before_count:
        again.play(History(device), player.peak_entry + 1)
    history.free_at_peak = again.blocks.free_memory()
    return history


def _size_rules(content: SnapshotContent, device: int) -> SizeRules:
    """The allocator's options, as far as a snapshot has them."""
    settings = content.settings
    limit, divisions = settings.get("max_split_size"), settings.get("roundup_power2_divisions")
    steps = [v for v in divisions.values() if isinstance(v, int)] if isinstance(
        divisions, dict) else []  # fmt: skip
    expandable = any(s.is_expandable for s in content.segments if s.device == device)
    return SizeRules(
        max_split_bytes=limit if isinstance(limit, int) and 0 < limit < 1 << 62 else UNLIMITED,
        divisions=tuple(steps) if any(steps) else None,
        expandable=expandable or settings.get("expandable_segments") is True,
    )


# -- the state when the trace began ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Before:
    """A block that was there when the trace began."""

    size_bytes: int
    requested_bytes: int
    stack: int


class _Start:
    """Segments and live blocks before the first entry of the trace, and how frees are told."""

    def __init__(
        self, content: SnapshotContent, device: int, trace: Trace, rules: SizeRules
    ) -> None:
        self.segments: dict[int, int] = {}
        self.live: dict[int, _Before] = {}
        for segment in content.segments:
            if segment.device != device:
                continue
            self.segments[segment.address] = segment.total_bytes
            for b in segment.blocks:
                if b.is_live:
                    self.live[b.address] = _Before(b.size_bytes, b.requested_bytes, b.stack)
        # the entry with which a block becomes free; ``skip_actions`` may leave one of them out
        completed = trace.action.count(Action.FREE_COMPLETED)
        self.free_action = Action.FREE_COMPLETED if completed else Action.FREE_REQUESTED
        for index in range(len(trace) - 1, -1, -1):
            self._undo(trace, index, rules)

    def _undo(self, trace: Trace, index: int, rules: SizeRules) -> None:
        action, address = trace.action[index], trace.address[index]
        size_bytes = trace.size_bytes[index]
        if action == Action.ALLOC:
            self.live.pop(address, None)
        elif action == self.free_action:
            self.live[address] = _Before(rules.rounded_bytes(size_bytes), size_bytes, NO_STACK)
        elif action == Action.SEGMENT_ALLOC:
            self.segments.pop(address, None)
        elif action in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP):
            self.segments[address] = size_bytes
        elif action == Action.SEGMENT_MAP:
            cut_out(self.segments, address, address + size_bytes)


# -- forwards ----------------------------------------------------------------------------------


class _Player:
    """Follows the trace of one device."""

    def __init__(self, trace: Trace, rules: SizeRules, start: _Start) -> None:
        self.blocks = BlockMap(rules)
        self.peak_entry = 0
        self._trace = trace
        self._start = start
        self._numbers: dict[int, int] = {}  # allocation by address
        self._peak_bytes = -1
        self._was_release = False
        left = sorted(start.live)
        index = 0
        for address, size_bytes in sorted(start.segments.items()):
            inside = []
            while index < len(left) and left[index] < address + size_bytes:
                if left[index] >= address:
                    inside.append((left[index], start.live[left[index]].size_bytes))
                else:
                    self.blocks.add_live(left[index], start.live[left[index]].size_bytes)
                index += 1
            self.blocks.add_filled(address, size_bytes, inside)
        for at in left[index:]:
            self.blocks.add_live(at, start.live[at].size_bytes)

    def play(self, history: History, count: int) -> History:
        """Fill a history with so many entries of the trace."""
        self._add_before(history)
        for index in range(count):
            self._enter(history, index)
        history.surprises += self.blocks.surprises
        history.trace_count = len(self._trace)
        history.free_at_end = self.blocks.free_memory()
        return history

    def _add_before(self, history: History) -> None:
        first_us = self._trace.time_us[0] if len(self._trace) else 0
        allocated_bytes = 0
        for address in sorted(self._start.live):
            block = self._start.live[address]
            allocated_bytes += block.size_bytes
            self._add(history, address, block.requested_bytes, block.stack, NO_NOTE)
            self._tick(history, first_us, allocated_bytes)
        history.before_count = len(history.sizes_bytes)

    def _add(self, history: History, address: int, size_bytes: int, stack: int, note: int) -> None:
        number = len(history.sizes_bytes)
        self._numbers[address] = number
        history.sizes_bytes.append(size_bytes)
        history.stacks.append(stack)
        history.notes.append(note)
        history.freed_stacks.append(NO_STACK)
        history.born.append(len(history.events))
        history.freed.append(-1)
        history.events.append(number)

    def _tick(self, history: History, time_us: int, allocated_bytes: int) -> None:
        history.times_us.append(time_us)
        history.allocated_bytes.append(allocated_bytes)
        # Segments that nobody recorded hold at least what is in use.
        history.reserved_bytes.append(max(self.blocks.reserved_bytes, allocated_bytes))

    def _enter(self, history: History, index: int) -> None:
        action = self._trace.action[index]
        if action == self._start.free_action:
            self._free(history, index)
        elif action in _ENTRIES:  # the others move no memory
            _ENTRIES[action](self, history, index)
        is_release = action in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)
        history.releases += is_release and not self._was_release
        self._was_release = is_release

    def _allocate(self, history: History, index: int) -> None:
        trace, address = self._trace, self._trace.address[index]
        if address in self._numbers:  # its free was not recorded
            self._forget(history, self._numbers.pop(address), trace.time_us[index], NO_STACK)
        self.blocks.allocate(address, trace.size_bytes[index])
        self._add(history, address, trace.size_bytes[index], trace.stack[index], trace.note[index])
        self._tick(history, trace.time_us[index], self.blocks.allocated_bytes)
        if self.blocks.allocated_bytes > self._peak_bytes:
            self._peak_bytes, self.peak_entry = self.blocks.allocated_bytes, index

    def _free(self, history: History, index: int) -> None:
        trace, address = self._trace, self._trace.address[index]
        number = self._numbers.pop(address, None)
        if number is None:
            history.surprises += 1
            return
        self.blocks.free(address)
        self._forget(history, number, trace.time_us[index], trace.stack[index])

    def _forget(self, history: History, number: int, time_us: int, stack: int) -> None:
        history.freed[number] = len(history.events)
        history.freed_stacks[number] = stack
        history.events.append(~number)
        self._tick(history, time_us, self.blocks.allocated_bytes)

    def _take_segment(self, _: History, index: int) -> None:
        joins = self._trace.action[index] == Action.SEGMENT_MAP
        size_bytes = self._trace.size_bytes[index]
        self.blocks.add_segment(self._trace.address[index], size_bytes, joins=joins)

    def _give_segment(self, history: History, index: int) -> None:
        joins = self._trace.action[index] == Action.SEGMENT_UNMAP
        size_bytes = self._trace.size_bytes[index]
        self.blocks.remove_segment(self._trace.address[index], size_bytes, joins=joins)
        history.released_bytes += size_bytes

    def _fail(self, history: History, index: int) -> None:
        trace = self._trace
        history.failures.append(
            Failure(
                position=len(history.events),
                requested_bytes=trace.size_bytes[index],
                device_free_bytes=trace.address[index],
                allocated_bytes=self.blocks.allocated_bytes,
                reserved_bytes=self.blocks.reserved_bytes,
                free=self.blocks.free_memory(),
                stack=trace.stack[index],
                note=trace.note[index],
            )
        )


_Entry = Callable[[_Player, History, int], None]

_ENTRIES: dict[int, _Entry] = {
    Action.ALLOC: _Player._allocate,
    Action.SEGMENT_ALLOC: _Player._take_segment,
    Action.SEGMENT_MAP: _Player._take_segment,
    Action.SEGMENT_FREE: _Player._give_segment,
    Action.SEGMENT_UNMAP: _Player._give_segment,
    Action.OOM: _Player._fail,
}
