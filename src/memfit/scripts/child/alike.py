"""When training has shown what it does: two rounds of steps look alike."""

from __future__ import annotations

from collections.abc import Sequence

from memfit.scripts.told.answer import Step

__all__ = ["is_alike"]

_LEAST_STEPS = 3
#: A block that is taken again may be a little larger than what is asked for (the allocator splits
#: off no rest below 1 MiB), so peaks of equal steps differ by some hundred thousandths.
_TOLERANCE = 1e-3


def is_alike(steps: Sequence[Step], optimizers: int) -> bool:
    """Whether the last round of steps was like the one before, and there were three at least.

    A round is the shortest sequence that repeats itself and in which every optimizer steps: one
    step of the usual loop, two of a GAN, six where a critic steps five times.

    Args:
        steps: so far.
        optimizers: how many there are.
    """
    for length in range(max(optimizers, 1), len(steps) // 2 + 1):
        last, before = steps[-length:], steps[-2 * length : -length]
        has_all = len({step.optimizer for step in last}) >= optimizers
        is_same = all(map(_are_alike, last, before))
        if has_all and is_same and len(steps) >= _LEAST_STEPS * length:
            return True
    return False


def _are_alike(a: Step, b: Step) -> bool:
    if (a.optimizer, a.allocations) != (b.optimizer, b.allocations):
        return False
    return _is_close(a.allocated_bytes, b.allocated_bytes) and _is_close(
        a.reserved_bytes, b.reserved_bytes
    )


def _is_close(a: int, b: int) -> bool:
    return abs(a - b) <= _TOLERANCE * max(a, b)
