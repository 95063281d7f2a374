"""What was measured of a plan: the points that the page draws apart from the predicted curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memfit.measure.records import measured_points
from memfit.measure.target import Target

if TYPE_CHECKING:
    from memfit.planner.plan import Plan

__all__ = ["measured_of_plan"]


def measured_of_plan(plan: Plan) -> list[dict[str, Any]]:
    """What the records have of a plan's recipe on its card.

    Args:
        plan: without a card, or of a user's own objects, nothing was measured of it.

    Returns:
        As :func:`~memfit.measure.records.measured_points` says.
    """
    if plan.gpu is None or plan.step.job.own.given():
        return []
    return measured_points(plan.recipe, Target("cuda", plan.gpu).key)
