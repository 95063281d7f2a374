"""Carry a learning rate from the batch at which it was found to another."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

__all__ = ["LearningRate", "scale_learning_rate"]


@dataclass(frozen=True, slots=True)
class LearningRate:
    """A learning rate, and by which rule it was carried over.

    Args:
        value: for ``global_batch``.
        rule: ``"linear"`` or ``"square root"``.
        reason: the rule in words, with its source.
        warmup: whether the rule asks for a warm-up.
    """

    value: float
    rule: str
    reason: str
    warmup: bool


def scale_learning_rate(
    base_lr: float, base_batch_size: int, global_batch: int, *, adaptive: bool
) -> LearningRate:
    """The learning rate for ``global_batch`` from one known at ``base_batch_size``.

    Linear for SGD, with a warm-up over the first epochs when the batch grew (Goyal et al. 2017,
    arXiv 1706.02677); square root for Adam-like optimizers (Malladi et al. 2022, arXiv
    2205.10287). Neither holds for every workload (Shallue et al. 2019, arXiv 1811.03600).

    >>> scale_learning_rate(0.1, 256, 512, adaptive=False).value
    0.2
    """
    ratio = global_batch / base_batch_size
    if adaptive:
        reason = "Adam-like: grows with the square root of the batch (Malladi et al. 2022)"
        return LearningRate(base_lr * sqrt(ratio), "square root", reason, warmup=False)
    reason = "SGD-like: grows in proportion to the batch, with warm-up (Goyal et al. 2017)"
    return LearningRate(base_lr * ratio, "linear", reason, warmup=ratio > 1)
