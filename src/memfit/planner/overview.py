"""Everything that a report shows of a plan, worked out before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memfit.planner.curve import memory_curve
from memfit.planner.plan import Plan
from memfit.planner.result import Option, PlanResult
from memfit.planner.verdict import across_cards, smallest_card, verdict

__all__ = ["overview"]


def overview(plan: Plan, options: Sequence[Option] | None) -> PlanResult:
    """The result of a plan with its verdict, its curve, and common cards where it has none.

    Args:
        plan: what was asked.
        options: ways to fit more; None when nobody looked for them.
    """
    asked = plan.recipe.batch_size if plan.gpu is None else None
    return replace(
        plan.result(),
        verdict=verdict(plan, options or ()),
        curve=memory_curve(plan),
        options=None if options is None else tuple(options),
        smallest_card=None if asked is None else smallest_card(plan, asked),
        cards=() if plan.gpu or plan.is_fixed else tuple(across_cards(plan)),
    )
