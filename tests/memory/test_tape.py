from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.memory.tape.tape import (
    AffineTape,
    Allocation,
    NotAffine,
    Part,
    Phase,
    Tape,
    max_live_bytes,
)


def allocation(size_bytes: int, operator: str = "aten.add.Tensor") -> Allocation:
    return Allocation(size_bytes, Part.ACTIVATIONS, Phase.FORWARD, operator, "layer1")


def tape(*sizes_bytes: int) -> Tape:
    """Every block is allocated, then all are freed, the last one first."""
    numbers = list(range(len(sizes_bytes)))
    events = [*numbers, *(~number for number in reversed(numbers))]
    return Tape(tuple(allocation(size) for size in sizes_bytes), tuple(events))


lines = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), min_size=1, max_size=8)


@given(lines, st.integers(1, 64), st.integers(1, 64), st.integers(1, 10**6))
def test_two_batches_answer_any_other(
    shape: list[tuple[int, int]], first: int, width: int, asked: int
) -> None:
    def at(batch: int) -> Tape:
        return tape(*(constant + slope * batch for constant, slope in shape))

    affine = AffineTape.fit({first: at(first), first + width: at(first + width)})
    assert affine.sizes_bytes(asked) == at(asked).sizes_bytes
    assert affine.matches(at(asked), asked)
    assert affine.least_sizes_bytes(asked) == affine.sizes_bytes(asked)


@given(lines, st.integers(0, 7), st.integers(1, 1000))
def test_one_byte_off_does_not_match(shape: list[tuple[int, int]], which: int, off: int) -> None:
    sizes = [constant + 9 * slope for constant, slope in shape]
    affine = AffineTape.fit({n: tape(*(c + n * s for c, s in shape)) for n in (4, 8)})
    assert affine.matches(tape(*sizes), 9)
    sizes[which % len(sizes)] += off
    assert not affine.matches(tape(*sizes), 9)


def test_a_slope_that_is_no_whole_number_is_not_affine() -> None:
    with pytest.raises(NotAffine):
        AffineTape.fit({4: tape(10), 8: tape(11)})


def test_a_shrinking_size_is_affine() -> None:
    affine = AffineTape.fit({4: tape(100), 8: tape(60)})
    assert affine.sizes_bytes(6) == [80]


def test_other_events_are_not_affine_and_the_first_difference_is_named() -> None:
    first = Tape((allocation(4, "aten.mm.default"),), (0, ~0))
    second = Tape((allocation(8, "aten.mm.default"),), (0,))
    with pytest.raises(NotAffine, match="2 events against 1"):
        AffineTape.fit({4: first, 8: second})


@pytest.mark.parametrize(
    "change",
    [
        {"operator": "aten.mul.Tensor"},
        {"part": Part.TEMPORARIES},
        {"phase": Phase.BACKWARD},
        {"module": "layer2"},
    ],
)
def test_an_allocation_that_is_for_something_else_is_not_affine(change: dict[str, object]) -> None:
    other = Tape((replace(allocation(8), **change),), (0, ~0))  # type: ignore[arg-type]
    with pytest.raises(NotAffine):
        AffineTape.fit({4: tape(4), 8: other})


@dataclass(frozen=True)
class Square:
    """A size rule: the square of its one number."""

    numbers: tuple[int, ...]

    def size_bytes(self, numbers: Sequence[int]) -> int:
        return numbers[0] ** 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Square)

    def __hash__(self) -> int:
        return 0


def ruled(batch: int) -> Tape:
    fixed, square = (
        allocation(100),
        replace(allocation((3 * batch) ** 2), rule=Square((3 * batch,))),
    )
    return Tape((fixed, square, square), (0, 1, 2, ~2, ~1, ~0))


def test_a_rule_answers_for_a_size_that_is_no_line() -> None:
    affine = AffineTape.fit({4: ruled(4), 8: ruled(8)})
    assert affine.sizes_bytes(5) == [100, 225, 225]
    assert affine.matches(ruled(5), 5)


def test_the_least_sizes_are_never_more() -> None:
    affine = AffineTape.fit({4: ruled(4), 8: ruled(8)})
    pairs = zip(affine.least_sizes_bytes(7), affine.sizes_bytes(7), strict=True)
    assert all(least <= size for least, size in pairs)


def test_max_live_bytes_by_hand() -> None:
    # 5, 5+7, 7, 7+3, 3, nothing
    assert max_live_bytes([5, 7, 3], [0, 1, ~0, 2, ~1, ~2]) == 12
    assert max_live_bytes([], []) == 0


@given(st.lists(st.integers(0, 100), min_size=1, max_size=10))
def test_peak_is_the_sum_when_nothing_is_freed_between(sizes: list[int]) -> None:
    assert tape(*sizes).peak_requested_bytes == sum(sizes)
