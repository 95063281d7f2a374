"""Blocks inside kernels on a tape of what ran: their rules, and their place if they are empty."""

from __future__ import annotations

import pytest

from memfit.memory.kernels.facts import DeviceFacts
from memfit.memory.kernels.scope import Copy, Result, Returned, Scope
from memfit.memory.kernels.sizes import KernelSizes
from memfit.memory.kernels.transients import KernelMemory
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape
from memfit.scripts.child.asked_again import Call, with_rules

SIZES = KernelSizes("aten.op.default", (), (), DeviceFacts((8, 6), 28))


def seen(*blocks: tuple[int, str], events: tuple[int, ...]) -> Tape:
    """What the allocator saw: bytes, and a type where a tensor owns them."""
    made = [
        Allocation(size, Part.TEMPORARIES, Phase.FORWARD, "aten.op.default", dtype=dtype)
        for size, dtype in blocks
    ]
    return Tape(tuple(made), events)


def ruled(tape: Tape, scope: Scope, part: Part) -> Tape:
    call = Call(0, len(tape.allocations), KernelMemory(scope, part, SIZES), (4096,))
    return with_rules(tape, [call])


RESULT = (4096, "float32")
WORKSPACE: Scope = (Result(0), (896,))


@pytest.mark.parametrize(
    "tape",
    [
        seen(RESULT, (896, ""), events=(0, 1, ~1, ~0)),
        seen(RESULT, (512, ""), events=(0, 1, ~1, ~0)),
        seen(RESULT, events=(0, ~0)),
    ],
)
def test_a_workspace_has_its_place_whatever_its_size(tape: Tape) -> None:
    found = ruled(tape, WORKSPACE, Part.WORKSPACES)
    assert found.events == (0, 1, ~1, ~0)
    assert found.allocations[0] == tape.allocations[0]
    assert found.allocations[1].size_bytes == sum(a.size_bytes for a in tape.allocations[1:])
    assert found.allocations[1].part is Part.WORKSPACES
    assert found.allocations[1].rule is not None


def test_a_temporary_of_another_size_is_left_as_it_is() -> None:
    tape = seen(RESULT, (512, ""), events=(0, 1, ~1, ~0))
    assert ruled(tape, WORKSPACE, Part.TEMPORARIES).allocations == tape.allocations


def test_a_temporary_that_is_not_needed_has_a_place() -> None:
    tape = seen((64, ""), RESULT, events=(0, 1, ~0, ~1))
    found = ruled(tape, (64, Result(0), 0, Copy(0)), Part.TEMPORARIES)
    assert found.events == (0, 1, 2, ~2, ~0, ~1)
    assert [a.size_bytes for a in found.allocations] == [64, 4096, 0]


def test_a_block_that_is_handed_on_outlives_its_scope() -> None:
    tape = seen((64, ""), (32, ""), RESULT, events=(0, 1, ~0, 2, ~1, ~2))
    found = ruled(tape, ((64, Returned(32)), Result(0)), Part.TEMPORARIES)
    assert found.events == tape.events
    assert [a.rule is not None for a in found.allocations] == [True, True, False]
