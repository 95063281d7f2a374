"""Blocks inside kernels, on the tape of what really ran, with the rule that gives other batches.

cuDNN chooses its plan by the batch, so its workspace is no straight line through two runs, and may
be none at all in one of them. memfit's rules say for every operator which blocks its kernel takes,
in order (:mod:`memfit.memory.kernels`). Where they say what the allocator saw each block gets its
rule, and blocks of no bytes get their place; elsewhere the tape stays as it is. A workspace may
have another size than its rule says: for the batches that ran, what the allocator saw stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from memfit.measure.history import marks_of
from memfit.memory.kernels.scope import Copy, Held, Result, Returned, Scope, with_results
from memfit.memory.kernels.transients import KernelMemory
from memfit.memory.tape.tape import Allocation, Part, SizeRule, Tape

__all__ = ["Call", "with_rules"]


@dataclass(frozen=True, slots=True)
class Call:
    """An operator that ran, and which of the tape's allocations it made.

    Args:
        first: the number of its first allocation.
        until: one more than the number of its last.
        kernel: what the rules say that it takes.
        results: bytes of each result; None for what is no tensor.
    """

    first: int
    until: int
    kernel: KernelMemory
    results: tuple[int | None, ...]


def with_rules(tape: Tape, calls: Iterable[Call]) -> Tape:
    """The tape with rules on the blocks of kernels.

    Args:
        tape: of what really ran; its allocations are numbered in their order.
        calls: in their order.
    """
    known = len(tape.allocations)
    allocations = list(tape.allocations)
    at = {event: position for position, event in enumerate(tape.events)}
    events: list[int] = []
    position = 0
    for call in calls:
        played = _Played(tape.allocations, call, len(allocations))
        seen = [event for event in played.events if _number(event) < known]
        first = at[call.first]
        if not played.is_as_seen or list(tape.events[first : first + len(seen)]) != seen:
            continue
        for number, allocation in played.made.items():
            allocations[number : number + 1] = [allocation]
        events += (*tape.events[position:first], *played.events)
        position = first + len(seen)
    events += tape.events[position:]
    return _in_order(allocations, events)


class _Played:
    """What the rules say of one call, played with the allocations that were seen.

    Args:
        seen: the tape's allocations.
        call: the operator.
        fresh: the next number for a block of no bytes.

    Attributes:
        events: allocations and frees, in order.
        made: blocks by number.
        is_as_seen: the allocator saw the same.
    """

    def __init__(self, seen: tuple[Allocation, ...], call: Call, fresh: int) -> None:
        self._seen, self._call = seen, call
        self._next, self._fresh = call.first, fresh
        self._rules = call.kernel.rules()
        self.made: dict[int, Allocation] = {}
        self.is_as_seen = True
        self.events: list[int] = []
        self._play(with_results(call.kernel.scope, len(call.results)))
        self.is_as_seen &= self._next == call.until

    def _play(self, scope: Scope) -> list[int]:
        """Note the events of a scope, as the recorder's ``_allocate_scope`` makes them.

        Returns the blocks that the scope hands to the one around it.
        """
        blocks: list[int] = []
        returned: list[int] = []
        for item in scope:
            if isinstance(item, Result):
                if self._is_next(self._call.results[item.index], has_owner=True):
                    self.events.append(self._take())
            elif isinstance(item, Held):
                if self._is_next(item.size_bytes, has_owner=False):
                    self.events.append(self._take())
            elif isinstance(item, int):
                rule = next(self._rules)
                if item or not isinstance(item, Copy):
                    number = self._block(int(item), rule)
                    (returned if isinstance(item, Returned) else blocks).append(number)
                    self.events.append(number)
            else:
                blocks += self._play(item)
        self.events += [~number for number in reversed(blocks)]
        return returned

    def _block(self, size_bytes: int, rule: SizeRule) -> int:
        like, part = self._seen[self._call.first], self._call.kernel.part
        if part is Part.WORKSPACES:
            size_bytes = self._next_workspace_bytes()
        if not size_bytes:
            number, self._fresh = self._fresh, self._fresh + 1
        elif self._is_next(size_bytes, has_owner=False):
            number = self._take()
        else:
            self.is_as_seen = False
            return self._call.first
        self.made[number] = replace(
            like, size_bytes=size_bytes, part=part, shape=(), dtype="", rule=rule
        )
        return number

    def _next_workspace_bytes(self) -> int:
        """Bytes of the next allocation, if it is there and no tensor's."""
        if self._next >= self._call.until:
            return 0
        following = self._seen[self._next]
        return 0 if following.dtype else following.size_bytes

    def _is_next(self, size_bytes: int | None, *, has_owner: bool) -> bool:
        """Whether the next allocation has so many bytes, and is a tensor's or not."""
        if self._next >= self._call.until:
            return False
        allocation = self._seen[self._next]
        return bool(allocation.dtype) is has_owner and allocation.size_bytes == size_bytes

    def _take(self) -> int:
        self._next += 1
        return self._next - 1


def _number(event: int) -> int:
    return event if event >= 0 else ~event


def _in_order(allocations: list[Allocation], events: list[int]) -> Tape:
    """A tape whose allocations are numbered in the order of their events."""
    order = [event for event in events if event >= 0]
    numbers = {number: place for place, number in enumerate(order)}
    found = tuple(allocations[number] for number in order)
    moved = tuple(numbers[e] if e >= 0 else ~numbers[~e] for e in events)
    return Tape(found, moved, tuple(marks_of(found, moved)))
