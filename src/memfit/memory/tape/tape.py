"""The tape: what was allocated and freed, in order, while training steps ran.

Integers in, integers out: nothing here knows of torch. An *event* is one integer: ``i`` makes
allocation ``i``, ``~i`` (that is ``-i - 1``) frees it.

A tape is affine in the batch size: traced at two micro-batches, the events match one to one and
every size is ``constant + slope * micro_batch``, or follows from shapes that are. A third trace
shows the squares of similarities across the batch. :class:`AffineTape` holds that form and answers
for any micro-batch without another trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

__all__ = [
    "AffineTape",
    "Allocation",
    "Curve",
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
        evaluation: the number of events before the validation pass that follows; None where none
            does.
    """

    allocations: tuple[Allocation, ...]
    events: tuple[int, ...]
    marks: tuple[Mark, ...] = ()
    evaluation: int | None = None

    @property
    def training(self) -> Tape:
        """The same without its validation pass."""
        return replace(self, events=self.events[: self.evaluation], evaluation=None)

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
class Curve:
    """Integers that are ``constant + slope * batch + square * batch**2`` each.

    Args:
        constants: of each.
        slopes: of each.
        squares: of each; empty where all are zero.
    """

    constants: tuple[int, ...]
    slopes: tuple[int, ...]
    squares: tuple[int, ...] = ()

    @classmethod
    def through(cls, values: Mapping[int, Sequence[int]]) -> Curve:
        """The lines through the values at two batches, or the parabolas through those at three.

        Args:
            values: by batch, ascending and evenly spaced.

        Raises:
            NotAffine: the numbers of values differ, or one has no whole coefficients.
        """
        batches, columns = list(values), list(values.values())
        if len({len(column) for column in columns}) > 1:
            raise NotAffine(f"{len(columns[0])} values against {len(columns[-1])}")
        width, start = batches[1] - batches[0], batches[0]
        coefficients = []
        for index, (first, second, *rest) in enumerate(zip(*columns, strict=True)):
            bend = rest[0] - 2 * second + first if rest else 0
            square, left = divmod(bend, 2 * width * width)
            slope, over = divmod(second - first, width)
            if left or over:
                raise NotAffine(f"value {index}: {first} at {start}, {second} at {batches[1]}")
            slope -= square * (2 * start + width)
            coefficients.append((first - slope * start - square * start * start, slope, square))
        constants, slopes, squares = zip(*coefficients, strict=True) if coefficients else ((),) * 3
        return cls(constants, slopes, squares if any(squares) else ())

    def at(self, batch: int) -> list[int]:
        """The values at a batch."""
        if not self.squares:
            return [a + c * batch for a, c in zip(self.constants, self.slopes, strict=True)]
        terms = zip(self.constants, self.slopes, self.squares, strict=True)
        return [a + (c + d * batch) * batch for a, c, d in terms]


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
    sizes: Curve
    shapes: tuple[Curve, ...]
    ruled: tuple[tuple[SizeRule, Curve, tuple[int, ...]], ...]

    @classmethod
    def fit(cls, traced: Mapping[int, Tape]) -> AffineTape:
        """Join traces of the same step.

        Args:
            traced: by micro-batch: two, or three evenly spaced ones, which show squares, too.

        Raises:
            NotAffine: the traces differ in their events, or a size has no whole coefficients.
        """
        first, *others = traced.values()
        for other in others:
            _check_alike(first, other)
        shapes: list[Curve] = []
        ruled: dict[tuple[SizeRule, Curve], list[int]] = {}
        sizes: dict[int, list[int]] = {batch: [] for batch in traced}
        for number, same in enumerate(zip(*(t.allocations for t in traced.values()), strict=True)):
            by_batch = dict(zip(traced, same, strict=True))
            rules = [a.rule for a in same if a.rule is not None]
            if len(rules) == len(same):
                numbers = {b: a.rule.numbers for b, a in by_batch.items() if a.rule is not None}
                ruled.setdefault((rules[0], Curve.through(numbers)), []).append(number)
            shapes.append(Curve.through({b: a.shape for b, a in by_batch.items()}))
            for batch, allocation in by_batch.items():
                sizes[batch].append(0 if same[0].rule is not None else allocation.size_bytes)
        rules_of = tuple((rule, curve, tuple(numbers)) for (rule, curve), numbers in ruled.items())
        return cls(first, next(iter(traced)), Curve.through(sizes), tuple(shapes), rules_of)

    @property
    def may_bend(self) -> bool:
        """Whether a size may grow faster than the batch, as N x N similarities do.

        Lines through two traces do not show it, but what they would say of no samples does: less
        than nothing; and a tensor with the batch in two of its sizes does.
        """
        return any(size < 0 for size in self.sizes.constants) or any(
            sum(map(bool, curve.slopes)) > 1 or any(size < 0 for size in curve.constants)
            for curve in self.shapes
        )

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


def _check_alike(first: Tape, second: Tape) -> None:
    """Refuse traces whose events differ."""
    if first.events != second.events:
        raise NotAffine(_first_difference(first, second))
    for a, b in zip(first.allocations, second.allocations, strict=True):
        if (a.operator, a.part, a.phase, a.module) != (b.operator, b.part, b.phase, b.module):
            raise NotAffine(_first_difference(first, second))


def _first_difference(first: Tape, second: Tape) -> str:
    """Which operator of two traces is the first that differs."""
    for a, b in zip(first.events, second.events, strict=False):
        if a != b or (a >= 0 and first.allocations[a].operator != second.allocations[b].operator):
            at = first.allocations[a if a >= 0 else ~a]
            return f"{at.operator} in {at.module or 'the step'}"
    return f"{len(first.events)} events against {len(second.events)}"
