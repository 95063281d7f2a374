"""Random numbers that belong to a sample, not to a process.

Every draw is a hash of (seed, epoch, purpose, sample index). So the order of an epoch and every
augmentation are the same whatever the number of workers or devices, wherever a run was
interrupted, and on every machine. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014), which passes BigCrush on counters.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Purpose", "epoch_order", "sample_seeds", "seed_of", "uniform"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Purpose(IntEnum):
    """What a random number is for: draws for different purposes are independent."""

    ORDER = 1
    CROP_ROW = 2
    CROP_COLUMN = 3
    FLIP = 4
    TRANSFORM = 5
    MIX = 6
    STEP = 7
    HOLD_OUT = 8


def uniform(
    seed: int, epoch: int, purpose: Purpose, indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A number in [0, 1) for each sample.

    Args:
        seed: of the run.
        epoch: from 0.
        purpose: what it is for.
        indices: ``(N,)`` sample numbers.

    Returns:
        ``(N,)`` float64, multiples of 2^-53.
    """
    bits = _hash(seed, epoch, purpose, indices) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def sample_seeds(seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A seed for each sample's own random generators: ``(N,)`` uint64."""
    return _hash(seed, epoch, Purpose.TRANSFORM, indices)


def seed_of(seed: int, epoch: int, purpose: Purpose, index: int) -> int:
    """A seed of 64 bits for one sample, or one position in the epoch."""
    return _mix(_key(seed, epoch, purpose) + (index + 1) * _GOLDEN)


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its samples: a permutation of ``range(count)``.

    Samples are sorted by a hash of their own, so any part of the order can be had at once.
    """
    keys = _hash(seed, epoch, Purpose.ORDER, np.arange(count, dtype=np.int64))
    return np.argsort(keys, kind="stable")


def _hash(
    seed: int, epoch: int, purpose: Purpose, indices: NDArray[np.int64]
) -> NDArray[np.uint64]:
    key = _key(seed, epoch, purpose)
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def _key(seed: int, epoch: int, purpose: Purpose) -> int:
    key = 0
    for number in (seed, epoch, purpose):
        key = _mix(key + int(number) + _GOLDEN)
    return key


def _mix(number: int) -> int:
    z = number & _MASK
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)
