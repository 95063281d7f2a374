"""From everything that was measured to the recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memfit.study.measuring.memory import BatchMemory
from memfit.study.results import SizeResult
from memfit.study.science.recommendation import Candidate, Recommendation, recommend
from memfit.study.science.tradeoff import TradeOff

if TYPE_CHECKING:
    from memfit.study.measuring.noise import NoisePoint
    from memfit.study.measuring.throughput import Throughput

__all__ = ["advice", "critical_batch"]


def advice(
    results: Sequence[SizeResult],
    memory: Sequence[BatchMemory],
    speed: Sequence[Throughput],
    tradeoff: TradeOff | None,
    noise: Sequence[NoisePoint],
    knee: int | None,
) -> Recommendation | None:
    """What to train with.

    Args:
        results: by batch size.
        memory: by batch size.
        speed: by batch size.
        tradeoff: fitted, where it could be.
        noise: over training.
        knee: the smallest batch within 5 % of the best speed.
    """
    candidates = [
        Candidate(
            result.batch_size,
            point.samples_per_second,
            tuple(point.batch_size / seconds for seconds in point.seconds),
            None if result.rate is None else result.rate.value,
            needs.micro_batch,
            None if result.goal is None else result.goal.seconds,
            result.goal is None or bool(result.goal.reached),
        )
        for result, needs, point in zip(results, memory, speed, strict=True)
    ]
    critical, basis = critical_batch(tradeoff, noise)
    is_direct = tradeoff is not None and tradeoff.critical.is_bounded
    return recommend(candidates, critical, basis, is_direct=is_direct, knee=knee)


def critical_batch(
    tradeoff: TradeOff | None, noise: Sequence[NoisePoint]
) -> tuple[tuple[float, float, float] | None, str]:
    """Value and interval, and where they are from: the fitted curve, else the noise scale."""
    if tradeoff is not None and tradeoff.critical.is_bounded:
        found = tradeoff.critical
        assert found.low is not None
        assert found.high is not None
        return (found.value, found.low, found.high), "steps to the goal, over batch sizes"
    known = [p.noise for p in noise if p.noise.value and p.noise.low and p.noise.high]
    if known:
        late = known[len(known) // 2 :]  # the second half of training takes most of the steps
        count = len(late)
        mean = sum(n.value or 0.0 for n in late) / count
        low, high = (sum(getattr(n, end) for n in late) / count for end in ("low", "high"))
        return (mean, low, high), "the simple noise scale, over the second half of the steps"
    return None, "neither the steps to the goal nor the noise scale bound a critical batch"
