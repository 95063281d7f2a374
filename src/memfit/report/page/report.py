"""The one-file report of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memfit.memory.allocator_settings import AllocatorSettings
from memfit.memory.snapshot import snapshot_bytes
from memfit.planner.options import Option
from memfit.planner.plan import Plan
from memfit.report.page.data_document import data_document
from memfit.report.page.document import Measured, plan_document
from memfit.report.page.html import single_file
from memfit.report.page.learn_documents import learn_documents

__all__ = ["plan_page", "plan_snapshot"]


def plan_page(
    plan: Plan, options: Sequence[Option] | None = None, measured: Sequence[Measured] = ()
) -> str:
    """The page with a plan, its data and the lessons inside.

    Args:
        plan: of a recipe.
        options: ways to fit more, when they were planned.
        measured: recorded points, see :func:`~memfit.report.page.document.plan_document`.
    """
    recipe = plan.recipe
    documents: dict[str, Any] = {
        "plan": plan_document(plan, options=options, measured=measured),
        "learn": learn_documents(),
        "snapshot": plan_snapshot(plan),
        "data": data_document(recipe.data, recipe.root) if isinstance(recipe.data, str) else None,
    }
    return single_file(documents)


def plan_snapshot(plan: Plan, batch_size: int | None = None) -> bytes:
    """The step as a memory snapshot that PyTorch's own viewer opens.

    Args:
        plan: of a recipe.
        batch_size: a micro-batch; the asked or the recommended one when omitted.
    """
    tape, sizes = plan.tape_at(plan.at(batch_size).batch_size)
    return snapshot_bytes(tape, sizes, AllocatorSettings.parse(plan.recipe.allocator))
