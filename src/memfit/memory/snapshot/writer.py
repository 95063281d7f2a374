"""Write a tape as the memory snapshot that PyTorch would have recorded of it.

The structure is that of ``THCPModule_memorySnapshot`` (``torch/csrc/cuda/Module.cpp``, torch 2.15),
so ``torch.cuda._memory_viz`` and the viewer (``torch/utils/viz/MemoryViz.js``) open it. Beyond
that an ``alloc`` event carries

- ``category``: its part. The viewer colours by it, and throws (``snapshot.categores``) when some
  event has a category and none has ``"unknown"``; the closing ``snapshot`` event has that one.
- ``user_metadata``: a JSON object with part, phase, step, operator, module, shape and dtype, where
  ``torch.cuda.memory._set_memory_metadata`` would put it.

The key ``memfit`` of the whole says who wrote it. Events have no times of their own: event number
``n`` is at ``n`` microseconds.
"""

from __future__ import annotations

import json
import pickle
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict

from memfit.memory.allocator.allocator import (
    AllocatorSettings,
    Block,
    CachingAllocator,
    OutOfDeviceMemory,
    Segment,
    SegmentBlock,
)
from memfit.memory.allocator.blocks import BlockState
from memfit.memory.tape.tape import Allocation, Mark, Tape

__all__ = ["FORMAT", "snapshot_bytes"]

#: Of the key ``memfit`` and of ``user_metadata``.
FORMAT = 1

#: What the viewer can read: it stops at protocol 5 (``unpickle`` in ``MemoryViz.js``).
_PROTOCOL = 4

#: First address of the exported device; 0 would look like no address.
_BASE = 0x7F00_0000_0000

_Dict = dict[str, object]
_Shapes = Sequence[Sequence[int]]
_Span = tuple[int, int]


def snapshot_bytes(
    tape: Tape,
    sizes_bytes: Sequence[int] | None = None,
    settings: AllocatorSettings | None = None,
    *,
    capacity_bytes: int | None = None,
    shapes: _Shapes | None = None,
) -> bytes:
    """A tape as a memory snapshot for PyTorch's viewer and ``memfit explain``.

    Args:
        tape: the events.
        sizes_bytes: requested bytes by allocation number; the tape's own when omitted.
        settings: of the allocator.
        capacity_bytes: what the device can give; unlimited when omitted. A tape that does not fit
            ends with an ``oom`` event.
        shapes: by allocation number; the tape's own when neither these nor sizes are given.

    Returns:
        The content of the file.
    """
    if shapes is None and sizes_bytes is None:
        shapes = [allocation.shape for allocation in tape.allocations]
    sizes = tape.sizes_bytes if sizes_bytes is None else sizes_bytes
    settings = settings or AllocatorSettings()
    recording = _Recording(tape, sizes, shapes, CachingAllocator(settings, capacity_bytes))
    recording.run()
    value = {
        "segments": recording.segments(),
        "device_traces": [recording.trace],
        "allocator_settings": _torch_settings(settings),
        "external_annotations": recording.annotations(),
        "memfit": {"format": FORMAT, "capacity_bytes": capacity_bytes} | asdict(settings)
        | {"roundup_power2_divisions": _divisions(settings)},
    }  # fmt: skip
    return pickle.dumps(value, protocol=_PROTOCOL)


class _Recording:
    """A tape played through an allocator, with everything that a snapshot tells of it."""

    def __init__(
        self,
        tape: Tape,
        sizes_bytes: Sequence[int],
        shapes: _Shapes | None,
        allocator: CachingAllocator,
    ) -> None:
        self.trace: list[_Dict] = []
        self._tape = tape
        self._sizes = sizes_bytes
        self._shapes = shapes
        self._allocator = allocator
        self._blocks: dict[int, Block] = {}
        self._number_at: dict[int, int] = {}  # allocation by address
        self._known: dict[str, _Dict] = {}  # frames and metadata that are the same object
        self._stacks: dict[tuple[str, ...], list[_Dict]] = {}
        self._no_frames: list[_Dict] = []
        self._starts: list[int] = []  # index in trace of the first entry of each event
        self._mapped: dict[int, int] = {}  # bytes of each segment or mapped range by address

    def run(self) -> None:
        """Play all events, or up to the one that does not fit."""
        for event in self._tape.events:
            self._starts.append(len(self.trace))
            if event < 0:
                self._free(~event)
            elif self._sizes[event] and not self._allocate(event):
                break
        self._add("snapshot", 0, 0, (), category="unknown")

    def _allocate(self, number: int) -> bool:
        allocator, stack = self._allocator, self._stack(self._tape.allocations[number])
        before = (allocator.reserved_bytes, allocator.release_count)
        try:
            block = allocator.allocate(self._sizes[number])
        except OutOfDeviceMemory as error:
            self._add_segments(stack, None, before)
            entry = self._add("oom", 0, -(-error.requested_bytes // 512) * 512, stack)
            del entry["addr"]
            entry["device_free"] = error.capacity_bytes - error.reserved_bytes
            entry.update(self._labels(number))
            return False
        if (allocator.reserved_bytes, allocator.release_count) != before:
            self._add_segments(stack, block, before)
        self._blocks[number] = block
        self._number_at[block.address] = number
        self._add("alloc", block.address, self._sizes[number], stack, **self._labels(number))
        return True

    def _free(self, number: int) -> None:
        block = self._blocks.pop(number, None)
        if block is None:  # of no bytes
            return
        address, size_bytes = block.address, self._sizes[number]
        self._allocator.free(block)
        del self._number_at[address]
        for action in ("free_requested", "free_completed"):
            self._add(action, address, size_bytes, ())

    # -- segments ------------------------------------------------------------------------------

    def _add_segments(
        self, stack: Sequence[_Dict], block: Block | None, before: tuple[int, int]
    ) -> None:
        """What the allocator took from the device or gave back during one request."""
        grown_bytes = self._allocator.reserved_bytes - before[0]
        expandable = self._allocator.settings.expandable_segments
        taken, given = ("segment_map", "segment_unmap") if expandable else (
            "segment_alloc", "segment_free")  # fmt: skip
        if block is not None and not expandable and self._allocator.release_count == before[1]:
            self._mapped[block.address] = grown_bytes
            self._add(taken, block.address, grown_bytes, stack)
            return
        mapped = {s.address: s.total_bytes for s in self._allocator.segments()}
        for address, size_bytes in _missing(self._mapped, mapped):
            self._add(given, address, size_bytes, stack)
        for address, size_bytes in _missing(mapped, self._mapped):
            self._add(taken, address, size_bytes, stack)
        self._mapped = mapped

    def segments(self) -> list[_Dict]:
        """The key ``segments``: what is reserved at the end."""
        return [self._segment(segment) for segment in self._allocator.segments()]

    def _segment(self, segment: Segment) -> _Dict:
        live = [block for block in segment.blocks if block.state is BlockState.LIVE]
        allocated_bytes = sum(block.size_bytes for block in live)
        return {
            "device": 0,
            "address": _BASE + segment.address,
            "total_size": segment.total_bytes,
            "allocated_size": allocated_bytes,
            "active_size": allocated_bytes,
            "requested_size": sum(block.requested_bytes for block in live),
            "stream": segment.stream,
            "segment_type": segment.pool,
            "segment_pool_id": (0, 0),
            "is_expandable": segment.expandable,
            "frames": [],
            "blocks": [self._block(block) for block in segment.blocks],
        }

    def _block(self, block: SegmentBlock) -> _Dict:
        shown: _Dict = {
            "address": _BASE + block.address,
            "size": block.size_bytes,
            "requested_size": block.requested_bytes,
            "state": block.state.value,
            "frames": [],
        }
        if block.state is BlockState.LIVE:
            allocation = self._tape.allocations[self._number_at[block.address]]
            shown["frames"] = self._stack(allocation)
        return shown

    # -- words ---------------------------------------------------------------------------------

    def _add(
        self, action: str, address: int, size_bytes: int, stack: Sequence[_Dict], **labels: object
    ) -> _Dict:
        entry: _Dict = {
            "action": action,
            "addr": _BASE + address if address or size_bytes else 0,
            "size": size_bytes,
            "stream": 0,
            "time_us": len(self._starts) - 1,
            "frames": stack or self._no_frames,
            **labels,
        }
        self.trace.append(entry)
        return entry

    def _labels(self, number: int) -> _Dict:
        allocation = self._tape.allocations[number]
        label: _Dict = {
            "part": str(allocation.part),
            "phase": str(allocation.phase),
            "step": allocation.step,
            "operator": allocation.operator,
            "module": allocation.module,
            "dtype": allocation.dtype,
        }
        if self._shapes is not None:
            label["shape"] = list(self._shapes[number])
        text = json.dumps(label, separators=(",", ":"))
        return self._known.setdefault(text, {"category": label["part"], "user_metadata": text})

    def _stack(self, allocation: Allocation) -> list[_Dict]:
        """Innermost first: the operator, the module it belongs to, the step."""
        names = (allocation.operator, allocation.module, str(allocation.phase))
        key = (*names, str(allocation.step))
        if key not in self._stacks:
            frames = [
                ("memfit", 0, names[0]),
                (names[1] or "outside of modules", 0, names[2]),
                ("training step", allocation.step, "step"),
            ]
            self._stacks[key] = [self._frame(*frame) for frame in frames]
        return self._stacks[key]

    def _frame(self, filename: str, line: int, name: str) -> _Dict:
        frame: _Dict = {"filename": filename, "line": line, "name": name}
        return self._known.setdefault(f"{filename}\n{line}\n{name}", frame)

    def annotations(self) -> list[_Dict]:
        """The key ``external_annotations``: the phases of each step."""
        marks, end = self._tape.marks, len(self._starts)
        shown: list[_Dict] = []
        for index, mark in enumerate(marks):
            if mark.position >= end:
                break
            stop = marks[index + 1].position if index + 1 < len(marks) else end
            shown.append(_annotation(mark, "START", mark.position))
            shown.append(_annotation(mark, "END", min(stop, end)))
        return shown


def _annotation(mark: Mark, stage: str, time_us: int) -> _Dict:
    name = f"memfit step {mark.step} {mark.phase}"
    return {"name": name, "stage": stage, "device": 0, "time_us": time_us}


def _missing(ranges: dict[int, int], others: dict[int, int]) -> list[_Span]:
    """The pieces of ``ranges`` (bytes by address) that no one of ``others`` covers."""
    starts = sorted(others)
    pieces: list[_Span] = []
    for first, size_bytes in sorted(ranges.items()):
        at, end = first, first + size_bytes
        index = max(0, bisect_right(starts, first) - 1)
        while at < end and index < len(starts) and starts[index] < end:
            start, stop = starts[index], starts[index] + others[starts[index]]
            if stop > at:
                pieces += [(at, start - at)] if start > at else []
                at = stop
            index += 1
        pieces += [(at, end - at)] if at < end else []
    return pieces


def _divisions(settings: AllocatorSettings) -> list[int]:
    return list(settings.divisions_by_interval() or ())


def _torch_settings(settings: AllocatorSettings) -> _Dict:
    """The key ``allocator_settings``, as torch writes it."""
    divisions = _divisions(settings) or [0] * 16
    return {
        "PYTORCH_CUDA_ALLOC_CONF": "",
        "max_split_size": settings.max_split_size_bytes or -1,
        "garbage_collection_threshold": settings.garbage_collection_threshold,
        "expandable_segments": settings.expandable_segments,
        "roundup_power2_divisions": {str(1 << i): steps for i, steps in enumerate(divisions)},
    }
