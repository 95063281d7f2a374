"""Everything that a memory snapshot says about one device."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from memfit.errors import DataError, UsageError
from memfit.explain.attribution import FOUND_PARTS, Attribution, attribute
from memfit.explain.block_map import FreeMemory
from memfit.explain.history import Failure, History, devices_of, rebuild
from memfit.explain.out_of_memory import OutOfMemory, explain_failure
from memfit.explain.part_rules import Sure
from memfit.memory.snapshot.reader import open_snapshot
from memfit.memory.snapshot.snapshot import SnapshotContent, Stack
from memfit.memory.tape.tape import Phase
from memfit.progress import SILENT, Tell

__all__ = ["Biggest", "Explained", "explain_content", "explain_snapshot"]

SCHEMA_VERSION = 1

_PHASES: tuple[Phase, ...] = tuple(Phase)


@dataclass(frozen=True, slots=True)
class Biggest:
    """Allocations alive at the peak that one line of code made.

    Args:
        size_bytes: of all of them.
        count: how many there are.
        part: what they are.
        where: the user's own code that made them.
        operator: that made them.
        stack: the frames, innermost first.
    """

    size_bytes: int
    count: int
    part: str
    where: str
    operator: str
    stack: Stack = field(repr=False)


@dataclass(frozen=True)
class Explained:
    """What a snapshot says about a device.

    Args:
        name: of the file.
        device: the device's number.
        devices: all that the snapshot has.
        is_own: whether memfit wrote it.
        history: the rebuilt timeline.
        attribution: the part of each allocation.
        content: the snapshot.
        peak_allocated_bytes: whole blocks, as ``torch.cuda.max_memory_allocated``.
        peak_reserved_bytes: as ``torch.cuda.max_memory_reserved``, within the trace.
        reserved_at_peak_bytes: when most was allocated.
        parts: requested bytes at the peak by part, with ``cache``; they sum to what was reserved.
        sure: of ``parts`` without the cache, bytes by how sure they are.
        peak_phase: of the training loop.
        peak_where: the user's own code that made the allocation at the peak.
        peak_operator: that made it.
        biggest: what was alive at the peak, largest first.
        out_of_memory: refused requests, in order.
    """

    name: str
    device: int
    devices: list[int]
    is_own: bool
    history: History
    attribution: Attribution
    content: SnapshotContent = field(repr=False)
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    reserved_at_peak_bytes: int
    parts: dict[str, int]
    sure: dict[str, dict[str, int]]
    peak_phase: str
    peak_where: str
    peak_operator: str
    biggest: tuple[Biggest, ...]
    out_of_memory: tuple[OutOfMemory, ...]

    @property
    def fragmentation(self) -> FreeMemory:
        """What is reserved and free: at the refused request, else at the end."""
        failures = self.history.failures
        return failures[-1].free if failures else self.history.free_at_end

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers about the whole trace."""
        history = self.history
        return {
            "trace_entries": history.trace_count,
            "allocations": len(history.sizes_bytes),
            "before_trace": history.before_count,
            "steps": self.attribution.marks[-1].step + 1,
            "cache_releases": history.releases,
            "cache_released_bytes": history.released_bytes,
            "unexplained_entries": history.surprises,
            "free_at_peak": asdict(history.free_at_peak),
            "free_at_end": asdict(history.free_at_end),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "snapshot": self.name,
            "device": self.device,
            "devices": self.devices,
            "written_by_memfit": self.is_own,
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "reserved_at_peak_bytes": self.reserved_at_peak_bytes,
            "parts": self.parts,
            "sure": self.sure,
            "peak": {
                "phase": self.peak_phase,
                "where": self.peak_where,
                "operator": self.peak_operator,
            },
            "biggest": [
                asdict(item) | {"stack": [f"{f.filename}:{f.line}:{f.name}" for f in item.stack]}
                for item in self.biggest
            ],
            "out_of_memory": [asdict(failure) for failure in self.out_of_memory],
            "facts": self.facts,
        }


def explain_snapshot(
    path: str | Path,
    device: int | None = None,
    progress: Tell = SILENT,
) -> Explained:
    """Read a snapshot file and explain one device.

    Args:
        path: written by ``torch.cuda.memory._dump_snapshot`` or ``memfit plan --snapshot``.
        device: its number; the one with the most memory when None.
        progress: called now and then with the MiB read and the MiB there are.

    Raises:
        DataError: it cannot be read, is no snapshot, or says nothing.
        UsageError: it says nothing of this device.
    """
    return explain_content(open_snapshot(path, progress), device, name=str(path))


def explain_content(
    content: SnapshotContent, device: int | None = None, *, name: str = "snapshot"
) -> Explained:
    """Explain one device of a snapshot; see :func:`explain_snapshot`."""
    devices = devices_of(content)
    if not devices:
        raise DataError(
            f"{name} is empty: no device has a segment or an event.",
            hint="Was torch.cuda.memory._record_memory_history() called, and a GPU used?",
        )
    if device is not None and device not in devices:
        known = ", ".join(map(str, devices))
        raise UsageError(f"{name} says nothing of device {device}; it has {known}.")
    if device is None:
        histories = [rebuild(content, number) for number in devices]
        history = max(histories, key=lambda h: (bool(h.failures), max(h.reserved_bytes, default=0)))
    else:
        history = rebuild(content, device)
    return _explained(content, history, devices, name)


def _explained(
    content: SnapshotContent, history: History, devices: list[int], name: str
) -> Explained:
    found = attribute(content, history)
    position = history.peak_position
    live = history.live_at(position)
    parts, sure = _composition(history, found, live)
    reserved = history.reserved_bytes[position] if position >= 0 else 0
    event = history.events[position] if position >= 0 else 0
    where, operator, phase = "", "", "data"
    if history.events:
        number = event if event >= 0 else ~event
        where, operator = _made_by(found, history.stacks[number], history.notes[number])
        phase = str(_PHASES[found.phases[number]])
    return Explained(
        name=name,
        device=history.device,
        devices=devices,
        is_own=bool(content.origin),
        history=history,
        attribution=found,
        content=content,
        peak_allocated_bytes=max(history.allocated_bytes, default=0),
        peak_reserved_bytes=max(history.reserved_bytes, default=0),
        reserved_at_peak_bytes=reserved,
        parts=parts | {"cache": reserved - sum(parts.values())},
        sure=sure,
        peak_phase=phase,
        peak_where=where,
        peak_operator=operator,
        biggest=_biggest(content, history, found, live),
        out_of_memory=tuple(_failure(content, history, found, f) for f in history.failures),
    )


def _composition(
    history: History, found: Attribution, live: list[int]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    parts = dict.fromkeys(FOUND_PARTS, 0)
    sure = {part: {level.name.lower(): 0 for level in Sure} for part in FOUND_PARTS}
    for number in live:
        part, size_bytes = FOUND_PARTS[found.parts[number]], history.sizes_bytes[number]
        parts[part] += size_bytes
        sure[part][Sure(found.sure[number]).name.lower()] += size_bytes
    return parts, sure


def _made_by(found: Attribution, stack: int, note: int) -> tuple[str, str]:
    """The user's own code, and the operator."""
    label = found.labels.get(note)
    if label is not None:
        return label.module, label.operator.removesuffix(".default")
    facts = found.facts[stack]
    return facts.where, facts.operator


def _biggest(
    content: SnapshotContent, history: History, found: Attribution, live: list[int]
) -> tuple[Biggest, ...]:
    groups: dict[tuple[int, str, str, int], list[int]] = {}
    for number in live:
        stack = history.stacks[number]
        made_by = _made_by(found, stack, history.notes[number])
        key = (found.parts[number], *made_by, stack if not any(made_by) else 0)
        groups.setdefault(key, []).append(number)
    sizes = {key: sum(history.sizes_bytes[n] for n in group) for key, group in groups.items()}
    largest = sorted(sizes, key=lambda key: -sizes[key])[:20]
    return tuple(
        Biggest(
            sizes[key],
            len(groups[key]),
            FOUND_PARTS[key[0]],
            *key[1:3],
            content.stacks[history.stacks[groups[key][0]]],
        )
        for key in largest
    )


def _failure(
    content: SnapshotContent, history: History, found: Attribution, failure: Failure
) -> OutOfMemory:
    parts, _ = _composition(history, found, history.live_at(failure.position - 1))
    where, operator = _made_by(found, failure.stack, failure.note)
    label = found.labels.get(failure.note)
    phase = label.phase if label else found.facts[failure.stack].phase
    if phase is None:
        phase = [m.phase for m in found.marks if m.position <= failure.position][-1]
    return explain_failure(
        failure,
        parts,
        phase=phase,
        where=where,
        operator=operator,
        is_expandable=any(s.is_expandable for s in content.segments)
        or content.settings.get("expandable_segments") is True,
    )
