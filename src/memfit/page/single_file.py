"""The one-file reports: of a plan, of a memory snapshot, and of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memfit.errors import UnknownName
from memfit.explain.explained import Explained
from memfit.page.documents.data import data_document
from memfit.page.documents.explained import explain_document
from memfit.page.documents.learn import learn_documents
from memfit.page.documents.plan import Measured, plan_document
from memfit.page.documents.run import run_document
from memfit.page.documents.script import script_document
from memfit.page.documents.study import study_document
from memfit.page.html import single_file
from memfit.planner.plan import Plan
from memfit.planner.result import Option
from memfit.planner.snapshot import plan_snapshot
from memfit.recipe.recipe import Recipe
from memfit.scripts.plan import ScriptPlan

__all__ = ["explain_page", "plan_page", "script_page", "study_page"]


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
        "data": _data_of(recipe),
    }
    return single_file(documents)


def _data_of(recipe: Recipe) -> dict[str, Any] | None:
    """None without data, and where it is an object of which the recipe has but the name."""
    if recipe.data is None:
        return None
    reading = {"task": recipe.task, "window": recipe.window, "frame": recipe.frame}
    try:
        return data_document(recipe.data, recipe.root, **reading)
    except UnknownName:
        return None


def script_page(made: ScriptPlan) -> str:
    """The page with the plan of a script and the lessons inside.

    Args:
        made: what was found.
    """
    documents = {
        "plan": script_document(made),
        "learn": learn_documents(),
        "snapshot": plan_snapshot(made.plan),
    }
    return single_file(documents)


def explain_page(explained: Explained) -> str:
    """The page with what a memory snapshot says, and the lessons inside."""
    documents = {"explain": explain_document(explained), "learn": learn_documents()}
    return single_file(documents)


def study_page(folder: Path) -> str:
    """The page with a study, the trials of the batch size that it recommends, and the lessons.

    Args:
        folder: of the study, finished or not.

    Raises:
        RunError: the folder is no study, or a file is damaged.
    """
    study = study_document(folder)
    found = study.get("recommendation")
    batch = found["global_batch"] if found else 0
    trials = sorted(folder.glob(f"runs/b{batch:05d}-*/run.json"))
    documents: dict[str, Any] = {
        "study": study,
        "runs": [run_document(trial.parent) for trial in trials] or None,
        "learn": learn_documents(),
    }
    return single_file(documents)
