"""The tape: what was allocated and freed, in order, while training steps ran.

Integers in, integers out: nothing here knows of torch. An *event* is one integer: ``i`` makes
allocation ``i``, ``~i`` (that is ``-i - 1``) frees it.

A tape is affine in the batch size: traced at two micro-batches, the events match one to one and
every size is ``constant + slope * micro_batch``, or follows from shapes that are.
:class:`AffineTape` holds that form and answers for any micro-batch without another trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = [
    "AffineTape",
    "Allocation",
    "Line",
    "Mark",
    "NotAffine",
    "Part",
    "Phase",
    "SizeRule",
    "Tape",
    "max_live_bytes",
]


class Part(StrEnum):
    """What a byte of GPU memory is used for, in the order that people are shown.

    The first five are the four parts everyone is taught (parameters and gradients are one of
    them); the rest are named apart so that everything adds up.
    """

    PARAMETERS = "parameters"  # with buffers such as BatchNorm statistics
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    BATCH = "batch"
    ACTIVATIONS = "activations"  # what forward keeps for backward
    TEMPORARIES = "temporaries"
    WORKSPACES = "workspaces"  # cuBLAS, cuDNN
    CACHE = "cache"  # reserved by the allocator, holding nothing; with the rounding to 512 B
    CONTEXT = "context"  # outside the allocator


class Phase(StrEnum):
    """What a training loop is doing."""

    DATA = "data"  # everything before forward: moving the model, making the batch
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"  # everything after backward: unscale, clip, step, average


class SizeRule(Protocol):
    """A size that is no straight line in the batch, but a function of numbers that are.

    cuDNN, for one, picks a plan by the batch; its workspace is asked again for every batch.
    """

    @property
    def numbers(self) -> tuple[int, ...]:
        """Shapes, strides and integers that decide the size; each is affine in the batch."""

    def size_bytes(self, numbers: Sequence[int]) -> int:
        """Bytes for other numbers."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """One block of memory that a training step asked for.

    Args:
        size_bytes: requested bytes, before the allocator's rounding.
        part: what it is used for.
        phase: when it was made.
        operator: the ATen operator that made it, such as ``"aten.convolution.default"``.
        module: path of the module it belongs to, such as ``"layer1.0.conv2"``; empty at the root.
        shape: of the tensor; empty for raw workspaces.
        dtype: such as ``"float32"``; empty for raw workspaces.
        step: the training step that made it, counted from 0.
        rule: how to ask for the size at another batch, where it is no straight line.
        place: the user's file and line that made it, where a script was run.
    """

    size_bytes: int
    part: Part
    phase: Phase
    operator: str
    module: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    step: int = 0
    rule: SizeRule | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A named instant: ``position`` is the number of events before it."""

    position: int
    step: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Tape:
    """What was allocated and freed, in order.

    Args:
        allocations: by number.
        events: ``i`` allocates, ``~i`` frees allocation ``i``.
        marks: where each phase of each step begins.
    """

    allocations: tuple[Allocation, ...]
    events: tuple[int, ...]
    marks: tuple[Mark, ...] = ()

    @property
    def sizes_bytes(self) -> list[int]:
        """Requested bytes of every allocation, by number."""
        return [allocation.size_bytes for allocation in self.allocations]

    @property
    def peak_requested_bytes(self) -> int:
        """The most requested bytes alive at once, before rounding and caching."""
        return max_live_bytes(self.sizes_bytes, self.events)


class NotAffine(ValueError):
    """Two traces do not have the same events, or a size is not affine in the batch."""


@dataclass(frozen=True, slots=True)
class Line:
    """Integers that are ``constant + slope * micro_batch`` each."""

    constants: tuple[int, ...]
    slopes: tuple[int, ...]

    @classmethod
    def through(
        cls, first: Sequence[int], first_batch: int, second: Sequence[int], second_batch: int
    ) -> Line:
        """The line through the values at two batches.

        Raises:
            NotAffine: the numbers of values differ, or a slope is no whole number.
        """
        if len(first) != len(second):
            raise NotAffine(f"{len(first)} values against {len(second)}")
        slopes = []
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            slope, rest = divmod(b - a, second_batch - first_batch)
            if rest:
                raise NotAffine(f"value {index}: {a} at {first_batch}, {b} at {second_batch}")
            slopes.append(slope)
        constants = [a - slope * first_batch for a, slope in zip(first, slopes, strict=True)]
        return cls(tuple(constants), tuple(slopes))

    def at(self, micro_batch: int) -> list[int]:
        """The values at a micro-batch."""
        return [a + c * micro_batch for a, c in zip(self.constants, self.slopes, strict=True)]


@dataclass(frozen=True, slots=True)
class AffineTape:
    """A tape for every micro-batch.

    Args:
        tape: the trace at ``micro_batch``; parts, operators and modules hold for every batch.
        micro_batch: the batch of that trace.
        sizes: requested bytes by allocation number.
        shapes: of the tensors by allocation number.
        ruled: sizes that are asked of a rule: the rule, its numbers, the allocations they hold for.
    """

    tape: Tape
    micro_batch: int
    sizes: Line
    shapes: tuple[Line, ...]
    ruled: tuple[tuple[SizeRule, Line, tuple[int, ...]], ...]

    @classmethod
    def fit(cls, first: Tape, first_batch: int, second: Tape, second_batch: int) -> AffineTape:
        """Join two traces of the same step.

        Raises:
            NotAffine: the traces differ in their events, or a size has no whole-byte slope.
        """
        if first.events != second.events:
            raise NotAffine(_first_difference(first, second))
        sizes: tuple[list[int], list[int]] = ([], [])
        shapes: list[Line] = []
        ruled: dict[tuple[SizeRule, Line], list[int]] = {}
        for number, (a, b) in enumerate(zip(first.allocations, second.allocations, strict=True)):
            if (a.operator, a.part, a.phase, a.module) != (b.operator, b.part, b.phase, b.module):
                raise NotAffine(_first_difference(first, second))
            if a.rule is not None and b.rule is not None:
                line = Line.through(a.rule.numbers, first_batch, b.rule.numbers, second_batch)
                ruled.setdefault((a.rule, line), []).append(number)
            shapes.append(Line.through(a.shape, first_batch, b.shape, second_batch))
            is_ruled = a.rule is not None
            sizes[0].append(0 if is_ruled else a.size_bytes)
            sizes[1].append(0 if is_ruled else b.size_bytes)
        line = Line.through(sizes[0], first_batch, sizes[1], second_batch)
        rules = tuple((rule, line, tuple(numbers)) for (rule, line), numbers in ruled.items())
        return cls(first, first_batch, line, tuple(shapes), rules)

    def sizes_bytes(self, micro_batch: int) -> list[int]:
        """Requested bytes of every allocation at a micro-batch, by number."""
        sizes = self.sizes.at(micro_batch)
        for rule, numbers, allocations in self.ruled:
            size_bytes = rule.size_bytes(numbers.at(micro_batch))
            for number in allocations:
                sizes[number] = size_bytes
        return sizes

    def least_sizes_bytes(self, micro_batch: int) -> list[int]:
        """The same without what rules would add: quicker, and never more."""
        return self.sizes.at(micro_batch)

    def matches(self, tape: Tape, micro_batch: int) -> bool:
        """Whether a direct trace at ``micro_batch`` is what this form says, to the byte."""
        return tape.events == self.tape.events and self.sizes_bytes(micro_batch) == tape.sizes_bytes


def max_live_bytes(sizes_bytes: Sequence[int], events: Sequence[int]) -> int:
    """The most bytes alive at once."""
    live = peak = 0
    for event in events:
        if event >= 0:
            live += sizes_bytes[event]
            peak = max(peak, live)
        else:
            live -= sizes_bytes[~event]
    return peak


def _first_difference(first: Tape, second: Tape) -> str:
    """Which operator of two traces is the first that differs."""
    for a, b in zip(first.events, second.events, strict=False):
        if a != b or (a >= 0 and first.allocations[a].operator != second.allocations[b].operator):
            at = first.allocations[a if a >= 0 else ~a]
            return f"{at.operator} in {at.module or 'the step'}"
    return f"{len(first.events)} events against {len(second.events)}"
