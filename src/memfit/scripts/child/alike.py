"""When training has shown what it does: two rounds of steps look alike."""

from __future__ import annotations

from collections.abc import Sequence

from memfit.scripts.told.answer import Step

__all__ = ["is_alike"]

_LEAST_STEPS = 3


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
        if has_all and last == before and len(steps) >= _LEAST_STEPS * length:
            return True
    return False
