"""``memfit plan``: where memory goes, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memfit.commands.shared.cards import cards_of
from memfit.commands.shared.flags import JsonFlag, MemoryFlags, Switch, recipe_of
from memfit.commands.shared.output import on_cards, show, show_json, working
from memfit.commands.shared.plan_files import check_plan_files, write_plan_files
from memfit.commands.shared.script_plans import plan_detection, show_script
from memfit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memfit.cards.catalogue import GPU
    from memfit.planner.plan import Plan
    from memfit.planner.result import Option, PlanResult
    from memfit.recipe.recipe import Recipe

__all__ = ["plan"]


def plan(
    model: str,
    *,
    flags: MemoryFlags | None = None,
    gpu: str | None = None,
    free: str | None = None,
    quick: Switch = False,
    strict: Switch = False,
    html: Path | None = None,
    snapshot: Path | None = None,
    force: Switch = False,
    as_json: JsonFlag = False,
) -> int:
    """Where memory goes, the batch that fits, and how to fit more.

    Parameters
    ----------
    model:
        torchvision:NAME, timm:NAME, transformers:NAME, mlp, cnn, path/to/file.py:build,
        package.module:build, or a recipe file ending in .toml.
    gpu:
        A card such as rtx-3060, a size such as 11GB, colab or kaggle; several with commas between
        them. Without it: the local GPU, else a table.
    free:
        Of the card's memory, only so much is free, such as 10GiB.
    quick:
        Leave out the ways to fit more.
    strict:
        Exit with 4 when something is not modelled, or an operator could not be accounted for.
    html:
        Write the plan as one HTML file: slide the batch, change the card, look into every instant.
    snapshot:
        Write the step as a memory snapshot (.pickle) that PyTorch's own viewer opens.
    force:
        Overwrite what exists.
    as_json:
        Print the plan as JSON and nothing else.
    """
    cards = cards_of(gpu, free)
    check_plan_files(html, snapshot, cards=cards, force=force)
    recipe = recipe_of(model, (flags or MemoryFlags()).given())
    if len(cards) > 1 and recipe.boxes is not None:
        raise UsageError(
            "With --boxes PyTorch itself runs the model, on one card at a time.",
            hint=f"Name one: --gpu {cards[0].key}.",
        )
    if len(cards) > 1:
        return _on_each(recipe, cards, strict=strict, as_json=as_json)
    card = cards[0] if cards else None

    if recipe.boxes is not None:
        ran = plan_detection(recipe, card)
        show_script(ran, html, snapshot, as_json=as_json)
        return ExitCode.DOES_NOT_FIT if ran.found.fits is False else ExitCode.OK

    from memfit.planner.options import ways_to_fit_more
    from memfit.planner.planning import plan as make_plan

    made = working("planning", lambda: make_plan(recipe, gpu=card))
    options = None if quick or made.gpu is None else working(
        "planning ways to fit more", lambda: ways_to_fit_more(made)
    )  # fmt: skip
    write_plan_files(html, snapshot, made, lambda: _page(made, options))
    if as_json:
        from dataclasses import asdict

        show_json(made.to_dict() | {"options": [asdict(option) for option in options or ()]})
    else:
        from memfit.planner.overview import overview
        from memfit.report.plan.text import render_plan

        found = working("drawing", lambda: overview(made, options))
        show(lambda console: render_plan(found, console))
    if made.fits is False:
        return ExitCode.DOES_NOT_FIT
    return ExitCode.INCOMPLETE if strict and not made.result().is_complete else ExitCode.OK


def _on_each(recipe: Recipe, cards: Sequence[GPU], *, strict: bool, as_json: bool) -> int:
    """The same question for several cards, each planned with its own kernels."""
    from memfit.planner.planning import plan as make_plan
    from memfit.step.job import resolve

    def planned() -> list[PlanResult]:
        job = resolve(recipe)
        return [make_plan(job, gpu=card).result() for card in cards]

    made = working(f"planning on {len(cards)} cards", planned)
    if as_json:
        show_json(on_cards([plan.to_dict() for plan in made]))
    else:
        from memfit.report.plan.text import render_on_cards

        show(lambda console: render_on_cards(made, console))
    if not any(plan.fits for plan in made):
        return ExitCode.DOES_NOT_FIT
    is_complete = all(plan.is_complete for plan in made)
    return ExitCode.INCOMPLETE if strict and not is_complete else ExitCode.OK


def _page(plan: Plan, options: list[Option] | None) -> str:
    from memfit.measure.records import measured_of_plan
    from memfit.page.single_file import plan_page

    return plan_page(plan, options, measured_of_plan(plan))
