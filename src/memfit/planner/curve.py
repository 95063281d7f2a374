"""Memory against the micro-batch: the points of the curve."""

from __future__ import annotations

from memfit.planner.plan import Plan
from memfit.planner.result import CurvePoint
from memfit.recipe.fields import MAX_BATCH

__all__ = ["memory_curve"]

#: A direct trace takes about a second, arithmetic a tenth of one.
_POINTS, _POINTS_WHEN_TRACED = 12, 4


def memory_curve(plan: Plan) -> tuple[CurvePoint, ...]:
    """The curve from 1 (2 where it is long) to somewhat beyond the largest that fits."""
    if plan.is_fixed:
        return ()
    batches = _batches(_last_batch(plan), _POINTS if plan.is_affine else _POINTS_WHEN_TRACED)
    return tuple(_point(plan, batch) for batch in batches)


def _last_batch(plan: Plan) -> int:
    if plan.max_batch_size is None:
        return min(2 * plan.micro_batch, MAX_BATCH)
    interesting = max(plan.max_batch_size, plan.recipe.batch_size or 1)
    return min(max(4, interesting + interesting // 5), MAX_BATCH)


def _batches(last: int, points: int) -> list[int]:
    first = 1 if last <= points else 2  # a batch of one costs a trace of its own
    steps = min(points, last) - 1
    return [first + (last - first) * number // steps for number in range(steps + 1)]


def _point(plan: Plan, batch_size: int) -> CurvePoint:
    at = plan.at(batch_size)
    context_bytes = at.total_bytes - at.peak_reserved_bytes
    return CurvePoint(batch_size, at.peak_allocated_bytes + context_bytes, at.total_bytes)
