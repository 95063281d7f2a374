"""Predicted beside measured: totals, parts, and the allocations that differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from memfit.measure.records import Measurement, Record, recipe_of
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import Timeline, replay
from memfit.memory.tape.parts import ALLOCATED_PARTS
from memfit.memory.tape.tape import Part, Tape
from memfit.planner.plan import Plan
from memfit.planner.result import BatchPlan

__all__ = ["Comparison", "Difference", "Figure", "compare", "differences", "plan_of"]

#: The figures that predictions are held against, with the name of the measured field.
FIGURES = {
    "peak allocated": ("peak_allocated_bytes", "peak_allocated_bytes"),
    "peak reserved": ("peak_reserved_bytes", "peak_reserved_bytes"),
    "CUDA context": ("context_bytes", "context_bytes"),
    "whole GPU": ("total_bytes", "gpu_used_bytes"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, predicted and measured.

    Args:
        name: in words, or a part.
        predicted_bytes: by the plan.
        measured_bytes: on the device.
    """

    name: str
    predicted_bytes: int
    measured_bytes: int

    @property
    def error(self) -> float:
        """Predicted less measured, as a share of measured; negative predicts too little."""
        difference = self.predicted_bytes - self.measured_bytes
        return difference / self.measured_bytes if self.measured_bytes else float(difference != 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """What one operator of one module allocates on one side only; equal sizes cancel.

    Args:
        operator: the ATen operator.
        module: its path.
        phase: of the training loop.
        predicted_bytes: only in the plan.
        predicted_count: how many allocations that is.
        measured_bytes: only on the device.
        measured_count: how many allocations that is.
    """

    operator: str
    module: str
    phase: str
    predicted_bytes: int
    predicted_count: int
    measured_bytes: int
    measured_count: int

    @property
    def size_bytes(self) -> int:
        """What it is ranked by."""
        return abs(self.predicted_bytes - self.measured_bytes)


@dataclass(frozen=True)
class Comparison:
    """A plan beside a measurement, at one micro-batch.

    Args:
        batch_size: the micro-batch.
        figures: totals that both know.
        parts: requested bytes at the peak; empty where the peak was not taken apart.
        at_peak: allocations alive at one peak only; their sizes explain the parts.
        in_steps: allocations that happen on one side only, at the peak or not.
    """

    batch_size: int
    figures: tuple[Figure, ...]
    parts: tuple[Figure, ...] = ()
    at_peak: tuple[Difference, ...] = ()
    in_steps: tuple[Difference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan_of(record: Record) -> Plan:
    """The plan of a record's recipe for the record's card.

    Raises:
        MemfitError: the recipe cannot be planned.
    """
    from memfit.planner.planning import plan

    return plan(recipe_of(record), gpu=record.card, verify=False)


def compare(plan: Plan, measurement: Measurement, tape: Tape | None = None) -> Comparison:
    """Hold a plan against a measurement.

    Args:
        plan: of the same recipe, for the same card.
        measurement: of a run that went well.
        tape: the measured sequence, where it is at hand: names what differs.
    """
    at = plan.at(measurement.batch_size)
    figures = tuple(_figures(at, measurement))
    parts = tuple(_parts(at, measurement))
    if tape is None:
        return Comparison(measurement.batch_size, figures, parts)
    settings = AllocatorSettings.parse(plan.recipe.allocator)
    real = replay(tape, settings=settings)
    both = at.timeline, real
    at_peak = (_named(each, each.live_at(each.peak.position)) for each in both)
    in_steps = (_named(each, range(len(each.tape.allocations))) for each in both)
    return Comparison(
        measurement.batch_size, figures, parts, differences(*at_peak), differences(*in_steps)
    )


_Key = tuple[str, str, str]


def differences(
    predicted: Iterable[tuple[_Key, int]], measured: Iterable[tuple[_Key, int]]
) -> tuple[Difference, ...]:
    """What is on one side only, largest first; in time that grows with the lengths alone.

    Args:
        predicted: (operator, module, phase) and requested bytes of each allocation.
        measured: the same of the device.
    """
    left: defaultdict[_Key, Counter[int]] = defaultdict(Counter)
    for key, size_bytes in predicted:
        left[key][size_bytes] += 1
    for key, size_bytes in measured:
        left[key][size_bytes] -= 1
    found = []
    for (operator, module, phase), sizes in left.items():
        more = [(size, count) for size, count in sizes.items() if count > 0]
        less = [(size, -count) for size, count in sizes.items() if count < 0]
        if more or less:
            found.append(Difference(operator, module, phase, *_sum(more), *_sum(less)))
    return tuple(sorted(found, key=lambda d: (-d.size_bytes, d.module, d.operator)))


def _sum(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(size * count for size, count in sizes), sum(count for _, count in sizes)


def _figures(at: BatchPlan, measurement: Measurement) -> Iterator[Figure]:
    for name, (ours, theirs) in FIGURES.items():
        measured = getattr(measurement, theirs)
        if measured is not None:
            known = at.parts[Part.CONTEXT] if ours == "context_bytes" else getattr(at, ours)
            yield Figure(name, known, measured)


def _parts(at: BatchPlan, measurement: Measurement) -> Iterator[Figure]:
    if measurement.parts is None:
        return
    for part in ALLOCATED_PARTS:
        yield Figure(str(part), at.parts[part], measurement.parts.get(part, 0))


def _named(timeline: Timeline, numbers: Iterable[int]) -> Iterator[tuple[_Key, int]]:
    """Allocations that take memory: zero bytes are on a tape and not in an allocator."""
    for number in numbers:
        a, size_bytes = timeline.tape.allocations[number], timeline.sizes_bytes[number]
        if size_bytes:
            is_batch = a.part is Part.BATCH  # copied from the CPU, or made of nothing in a plan
            yield ("batch" if is_batch else a.operator, a.module, str(a.phase)), size_bytes
