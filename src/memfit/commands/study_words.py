"""From the words of ``memfit study`` to a study, and everything that it writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from memfit.errors import UsageError
from memfit.recipe.recipe import Recipe
from memfit.study.asked import parse_batch_sizes, parse_budget
from memfit.study.demo import DEMO_BATCH_SIZES, DEMO_GOAL, demo_recipe
from memfit.study.results import Study
from memfit.study.science.goal import parse_goal

__all__ = ["study_asked", "study_folder", "write_reports"]


def study_asked(
    recipe: Recipe | None,
    batch_sizes: str | None,
    *,
    seeds: int,
    budget: str | None,
    goal: str | None,
    demo: bool,
    has_flags: bool,
) -> dict[str, Any]:
    """Arguments of :func:`~memfit.study.study.run_study`.

    Args:
        recipe: what to train; None with ``demo``.
        batch_sizes: as typed.
        seeds: whole trials of each batch size.
        budget: as typed.
        goal: as typed.
        demo: the recipe, the batch sizes and the goal that memfit brings.
        has_flags: whether fields of the recipe were given, too.

    Raises:
        UsageError: they do not go together.
    """
    if demo and (recipe is not None or has_flags):
        raise UsageError("--demo brings its own recipe.", hint="Leave out the model and its flags.")
    if not demo and batch_sizes is None:
        raise UsageError("Which batch sizes?", hint="Such as --batch-sizes 16,64,256; or --demo.")
    if demo:  # tensors so small gain nothing from more threads, and lose much on a busy machine
        torch.set_num_threads(1)
    sizes = DEMO_BATCH_SIZES if batch_sizes is None else parse_batch_sizes(batch_sizes)
    return {
        "recipe": demo_recipe() if recipe is None else recipe,
        "batch_sizes": sizes,
        "seeds": seeds,
        "budget_seconds": None if budget is None else parse_budget(budget),
        "goal": parse_goal(goal or DEMO_GOAL) if goal or demo else None,
    }


def study_folder(recipe: Recipe, *, demo: bool) -> Path:
    """Where a study goes when nothing is said."""
    if demo:
        return Path("studies/demo")
    words = [str(word).partition(",")[0] for word in (recipe.model, recipe.data)]
    names = (re.sub(r"[^\w.]+", "-", Path(word).name.lower()).strip("-._") for word in words)
    return Path("studies") / ("-".join(filter(None, names))[:60] or "study")


def write_reports(study: Study) -> None:
    """The figures and the page, beside ``study.json``.

    Raises:
        DataError: one cannot be written.
    """
    from memfit.report.study.figures import write_study_figures
    from memfit.report.study.page import write_study_page

    write_study_figures(study, study.folder / "figures")
    write_study_page(study, study.folder / "report.html")
