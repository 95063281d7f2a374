"""The one-file reports: of a plan, and of a memory snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memfit.explain.explained import Explained
from memfit.page.documents.data import data_document
from memfit.page.documents.explained import explain_document
from memfit.page.documents.learn import learn_documents
from memfit.page.documents.plan import Measured, plan_document
from memfit.page.html import single_file
from memfit.planner.options import Option
from memfit.planner.plan import Plan
from memfit.planner.snapshot import plan_snapshot

__all__ = ["explain_page", "plan_page"]


def plan_page(
    plan: Plan, options: Sequence[Option] | None = None, measured: Sequence[Measured] = ()
) -> str:
    """The page with a plan, its data and the lessons inside.

    Args:
        plan: of a recipe.
        options: ways to fit more, when they were planned.
        measured: recorded points, see :func:`~memfit.page.documents.plan.plan_document`.
    """
    recipe = plan.recipe
    documents: dict[str, Any] = {
        "plan": plan_document(plan, options=options, measured=measured),
        "learn": learn_documents(),
        "snapshot": plan_snapshot(plan),
        "data": data_document(recipe.data, recipe.root) if isinstance(recipe.data, str) else None,
    }
    return single_file(documents)


def explain_page(explained: Explained) -> str:
    """The page with what a memory snapshot says, and the lessons inside."""
    documents = {"explain": explain_document(explained), "learn": learn_documents()}
    return single_file(documents)
