"""``memfit study``: what batch size changes."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from memfit.commands.shared.flags import (
    JsonFlag,
    MemoryFlags,
    Switch,
    TrainingFlags,
    training_recipe,
)
from memfit.commands.shared.output import has_terminal, show, write
from memfit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from memfit.recipe.recipe import Recipe
    from memfit.study.results import Study
    from memfit.study.trials.listener import StudyListener

__all__ = ["study", "study_asked", "study_folder", "write_reports"]


def study(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    batch_sizes: str | None = None,
    seeds: int = 3,
    budget: str | None = None,
    goal: str | None = None,
    folder: Path | None = None,
    gpu: str | None = None,
    by_layer: Switch = False,
    demo: Switch = False,
    ray: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=(0, 1))] = None,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """What batch size changes here: speed, memory, noise, steps to a goal, learning rate.

    Ends in one recommendation. Every trial is an ordinary run in the study's folder: interrupted,
    the same command goes on; with more batch sizes it reuses what is there.

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    batch_sizes:
        Global ones, such as 16,64,256 or 16,32,...,1024.
    seeds:
        Whole trials of each batch size.
    budget:
        Time for everything, such as 5m; trials become shorter than the recipe's epochs.
    goal:
        accuracy=0.95 or loss=0.3, on the validation images; what all sizes reach when omitted.
    folder:
        Of the study; studies/MODEL-DATA when omitted.
    gpu:
        The card whose memory is the ceiling; the local one when omitted.
    by_layer:
        Measure the gradient noise of each top-level module, too.
    demo:
        A small network on the generated shapes, in about two minutes.
    ray:
        Run the trials on Ray: a local one, or the cluster at this address.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    as_json:
        Print the study as JSON and nothing else.
    """
    changes = (memory_flags or MemoryFlags()).given() | (training_flags or TrainingFlags()).given()
    asked = study_asked(
        None if model is None and demo else training_recipe(model, changes),
        batch_sizes, seeds=seeds, budget=budget, goal=goal, demo=demo, has_flags=bool(changes),
    )  # fmt: skip
    from memfit.step.job import resolve
    from memfit.study.study import run_study

    recipe = asked.pop("recipe")
    listener = _listener()
    try:
        with redirect_stdout(sys.stderr):  # what a user's own model prints
            found = run_study(
                resolve(recipe),
                **asked,
                folder=folder or study_folder(recipe, demo=demo),
                device=device,
                gpu=gpu,
                by_layer=by_layer,
                ray=False if ray is None else (ray[0] if ray else True),
                listener=listener,
            )
            write_reports(found)
    except KeyboardInterrupt:
        listener.note("Stopped; what ran is kept. The same command goes on.")
        raise
    finally:
        listener.ended()
    if as_json:
        from memfit.files.metrics_file import to_json

        write(to_json(found.to_dict(), indent=2) + "\n")
    else:
        from memfit.report.study.text import render_study

        show(lambda console: render_study(found, console))
    return ExitCode.OK


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
    """The recipe, and arguments of :func:`~memfit.study.study.run_study`.

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
    from memfit.study.asked import parse_batch_sizes, parse_budget
    from memfit.study.science.goal import parse_goal

    if demo and (recipe is not None or has_flags):
        raise UsageError("--demo brings its own recipe.", hint="Leave out the model and its flags.")
    if not demo and batch_sizes is None:
        raise UsageError("Which batch sizes?", hint="Such as --batch-sizes 16,64,256; or --demo.")
    asked = {
        "recipe": recipe,
        "batch_sizes": None if batch_sizes is None else parse_batch_sizes(batch_sizes),
        "seeds": seeds,
        "budget_seconds": None if budget is None else parse_budget(budget),
        "goal": None if goal is None else parse_goal(goal),
    }
    if not demo:
        return asked

    from memfit.study.demo import with_demo

    return with_demo(asked)


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
    from memfit.files.output_path import write_output
    from memfit.page.single_file import study_page
    from memfit.report.study.figures import write_study_figures

    write_study_figures(study, study.folder / "figures")
    write_output(study.folder / "report.html", study_page(study.folder).encode())


def _listener() -> StudyListener:
    from memfit.report.study.progress import StudyBar, StudyLines

    if has_terminal():
        from rich.console import Console

        return StudyBar(Console(stderr=True))
    return StudyLines()
