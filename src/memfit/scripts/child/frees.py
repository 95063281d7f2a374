"""The order of frees that follow each other, where PyTorch has none.

Autocast keeps the weights that it has cast in a hash table with their addresses as keys, and clears
it as it lies (``cached_casts`` of ``aten/src/ATen/autocast_mode.cpp``, 2.15): the same script frees
them in another order each time. The allocator keeps free blocks by size and address, so between two
allocations any order of frees leaves it the same.
"""

from __future__ import annotations

from dataclasses import replace

from memfit.memory.tape.tape import Tape

__all__ = ["with_frees_in_order"]


def with_frees_in_order(tape: Tape) -> Tape:
    """The tape with frees in the order of their allocations, wherever nothing lies between them.

    Args:
        tape: of a run.
    """
    marked = {mark.position for mark in tape.marks}
    events: list[int] = []
    frees: list[int] = []
    for position, event in enumerate(tape.events):
        if event >= 0 or position in marked:
            events += sorted(frees, reverse=True)
            frees = []
        (events if event >= 0 else frees).append(event)
    return replace(tape, events=(*events, *sorted(frees, reverse=True)))
