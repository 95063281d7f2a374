"""What a kernel allocates, in its order: the blocks and results of nested C++ scopes.

A C++ function holds what it allocated until it returns, and what it calls does the same. A rule
says so with a tuple, a *scope*. In it stand, in the order in which the kernel allocates:

- a number: a block of so many bytes, freed when the scope ends, or a :class:`Copy`;
- a :class:`Returned` block, freed when the scope around this one ends;
- a :class:`Result`: the memory of a tensor that the operator returns, which outlives it;
- a :class:`Held` workspace, which the library keeps;
- another tuple: an inner scope.

The gradient of a convolution, with a copy that lives to the end and two workspaces, one after the
other, is ``(copy, Result(0), (workspace,), Result(1), (workspace,))``. Results that a scope does
not name are made before everything else.

For another batch a rule says the same blocks with other sizes; one that is not needed there has 0
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Copy", "Held", "Result", "Returned", "Scope", "block_sizes", "with_results"]


class Copy(int):
    """A block that holds a tensor in another layout: 0 bytes where it has that layout already.

    One that is 0 has no place on the tape: a tensor of another batch needs no copy either.
    """


class Returned(int):
    """A block that a scope hands to the scope around it, as a C++ function returns a tensor."""


@dataclass(frozen=True, slots=True)
class Result:
    """A tensor that the operator returns, by its place among them."""

    index: int


@dataclass(frozen=True, slots=True)
class Held:
    """A workspace that a library takes at its first call on a thread and keeps until the end."""

    library: str
    size_bytes: int


Scope: TypeAlias = "tuple[int | Result | Held | Scope, ...]"


def block_sizes(scope: Scope) -> Iterator[int]:
    """Bytes of every block, of inner scopes too, in order.

    >>> list(block_sizes((8, Result(0), (16,), 4)))
    [8, 16, 4]
    """
    for item in scope:
        if isinstance(item, int):
            yield item
        elif isinstance(item, tuple):
            yield from block_sizes(item)


def with_results(scope: Scope, count: int) -> Scope:
    """The scope of an operator that returns so many tensors: those it does not name come first.

    >>> with_results((8, Result(0)), 2)
    (Result(index=1), 8, Result(index=0))
    """
    named = set(_results_named(scope))
    return (*(Result(index) for index in range(count) if index not in named), *scope)


def _results_named(scope: Scope) -> Iterator[int]:
    for item in scope:
        if isinstance(item, Result):
            yield item.index
        elif isinstance(item, tuple):
            yield from _results_named(item)
