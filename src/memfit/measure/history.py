"""The CUDA allocator's own history, joined with the recorder: every block with its owner.

The recorder sees tensors, the allocator sees everything. Each tensor's storage is noted with its
address and with how many allocations the allocator had counted by then, so it is the last block
at that address among those; what no tensor owns was made inside the operator that was running.

Source (torch 2.11 to 2.15, ``c10/cuda/CUDACachingAllocator.cpp``): ``alloc_found_block`` writes one
``ALLOC`` entry with the requested bytes and adds one to ``stats.allocation``; ``free`` writes
``FREE_REQUESTED`` when the block leaves ``allocated_bytes``; zero bytes take no block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Allocation, Mark, Part, Phase, Tape

__all__ = ["HistoryRecorder", "Workspace", "joined_tape", "marks_of", "workspaces_of"]

#: Operators whose memory beside tensors belongs to cuDNN or cuBLAS; others have temporaries.
_LIBRARY_OPERATORS = (
    "aten.convolution", "aten.cudnn_", "aten._cudnn_", "aten._scaled_dot_product_cudnn",
    "aten.mm.", "aten.addmm.", "aten._addmm_activation.", "aten.bmm.", "aten.baddbmm.",
    "aten.linear", "aten._scaled_mm", "aten.matmul.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Span:
    """What ran until the allocator had counted ``until`` allocations."""

    until: int
    operator: str
    module: str
    phase: Phase
    step: int


class HistoryRecorder(Recorder):
    """A recorder that notes where in the allocator's history each tensor belongs.

    Args:
        count: allocations that the allocator has made so far.
        device_type: of the tensors.
    """

    def __init__(self, count: Callable[[], int], device_type: str = "cuda") -> None:
        super().__init__(device_type)
        self._count = count
        self.base = count()
        self.places: dict[int, tuple[int, int]] = {}  # by number: address, allocations by then
        self.spans: list[_Span] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator, record its storages, and note how far the allocator has come."""
        self.settle_phase()
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.spans.append(
            _Span(self._count(), self.last_operator, self.trail.now(), self.phase, self.step)
        )
        return result

    def record(self, tensor: Tensor, operator: str) -> int | None:
        """Put a tensor's storage on the tape, and note its place in the allocator's history."""
        number = super().record(tensor, operator)
        if number is not None:
            self.places[number] = (tensor.untyped_storage().data_ptr(), self._count())
        return number


def joined_tape(recorder: HistoryRecorder, trace: Iterable[Mapping[str, Any]]) -> Tape:
    """The allocator's sequence as a tape, each allocation with what the recorder knows of it.

    Args:
        recorder: made when the history began.
        trace: the device's entries of a snapshot's ``device_traces``.
    """
    sizes, addresses, events = _events_of(trace)
    owners = _owners(recorder, addresses)
    known = recorder.tape().allocations
    untils = [span.until for span in recorder.spans]
    allocations = []
    for index, size_bytes in enumerate(sizes):
        owner = owners.get(index)
        if owner is not None:
            allocations.append(replace(known[owner], size_bytes=size_bytes))
            continue
        at = bisect_right(untils, recorder.base + index)
        allocations.append(_unowned(recorder.spans[at : at + 1], size_bytes))
    return Tape(tuple(allocations), tuple(events), tuple(marks_of(allocations, events)))


def marks_of(allocations: Sequence[Allocation], events: Sequence[int]) -> Iterator[Mark]:
    """Where a phase of a step makes its first allocation."""
    last: tuple[int, Phase] | None = None
    for position, event in enumerate(events):
        if event >= 0:
            now = allocations[event].step, allocations[event].phase
            if now != last:
                last = now
                yield Mark(position, *now)


def _events_of(trace: Iterable[Mapping[str, Any]]) -> tuple[list[int], list[int], list[int]]:
    """Requested bytes and addresses of the allocations in order, and the events of a tape."""
    sizes: list[int] = []
    addresses: list[int] = []
    events: list[int] = []
    live: dict[int, int] = {}
    for entry in trace:
        if entry["action"] == "alloc":
            live[entry["addr"]] = len(sizes)
            events.append(len(sizes))
            sizes.append(entry["size"])
            addresses.append(entry["addr"])
        elif entry["action"] == "free_requested" and entry["addr"] in live:
            events.append(~live.pop(entry["addr"]))
    return sizes, addresses, events


def _owners(recorder: HistoryRecorder, addresses: list[int]) -> dict[int, int]:
    """The recorder's number of each allocation that a tensor owns."""
    at_address: dict[int, list[int]] = {}
    for index, address in enumerate(addresses):
        at_address.setdefault(address, []).append(index)
    owners: dict[int, int] = {}
    for number, (address, count) in recorder.places.items():
        candidates = at_address.get(address, [])
        place = bisect_left(candidates, count - recorder.base) - 1
        if place >= 0:
            owners.setdefault(candidates[place], number)
    return owners


def _unowned(span: list[_Span], size_bytes: int) -> Allocation:
    if not span:
        return Allocation(size_bytes, Part.TEMPORARIES, Phase.OPTIMIZER, "")
    (at,) = span
    is_library = at.operator.startswith(_LIBRARY_OPERATORS)
    part = Part.WORKSPACES if is_library else Part.TEMPORARIES
    return Allocation(size_bytes, part, at.phase, at.operator, at.module, step=at.step)


@dataclass(frozen=True, slots=True)
class Workspace:
    """Memory that an operator took beside its tensors.

    Args:
        operator: the ATen operator that was running.
        size_bytes: requested.
        count: how often, over the steps that were recorded.
        is_held: it was never given back.
    """

    operator: str
    size_bytes: int
    count: int
    is_held: bool


def workspaces_of(tape: Tape) -> list[Workspace]:
    """The 20 largest workspaces on a tape of :func:`joined_tape`, by operator and size."""
    freed = {~event for event in tape.events if event < 0}
    found = Counter(
        (a.operator, a.size_bytes, number not in freed)
        for number, a in enumerate(tape.allocations)
        if a.part is Part.WORKSPACES
    )
    rows = [Workspace(name, size, count, held) for (name, size, held), count in found.items()]
    return sorted(rows, key=lambda w: (-w.size_bytes, w.operator, w.is_held))[:20]
