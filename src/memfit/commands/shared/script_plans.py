"""Plans of what PyTorch itself ran: of a script, and of recipes whose sizes values decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memfit.commands.shared.output import show, show_json, staged
from memfit.commands.shared.plan_files import write_plan_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from memfit.cards.catalogue import GPU
    from memfit.recipe.recipe import Recipe
    from memfit.scripts.plan import ScriptPlan

__all__ = ["plan_detection", "show_script"]


def show_script(
    made: ScriptPlan, html: Path | None, snapshot: Path | None, *, as_json: bool
) -> None:
    """Write the files that were asked for, then show the plan.

    Args:
        made: the plan.
        html: the page's file.
        snapshot: the memory snapshot's file.
        as_json: print it as JSON and nothing else.
    """
    write_plan_files(html, snapshot, made.plan, lambda: _page(made))
    if as_json:
        show_json(made.to_dict())
    else:
        from memfit.report.plan.script import render_script

        show(lambda console: render_script(made, console))


def plan_detection(recipe: Recipe, gpu: GPU | None) -> ScriptPlan:
    """Plan a recipe with boxes: its own micro-batch, else the largest that fits the card.

    Args:
        recipe: of a detection model.
        gpu: the card; the local one, else none, when omitted.

    Raises:
        NoStubs: PyTorch itself cannot run here without a GPU.
        ScriptError: the model does not train on boxes.
    """
    from memfit.cards.catalogue import gpu as find_gpu
    from memfit.planner.planning import chosen_card
    from memfit.planner.tracing import DEFAULT_CARD
    from memfit.scripts.detection import detection_job
    from memfit.scripts.plan import plan_script
    from memfit.scripts.subject import Script

    card = chosen_card(gpu)

    def planned(told: Callable[[str], None]) -> ScriptPlan:
        played = card or find_gpu(DEFAULT_CARD)
        ran = Script(detection_job(recipe), played, is_limited=card is not None, told=told)
        ran.name = recipe.model
        is_largest = card is not None and recipe.batch_size is None
        return plan_script(ran, card, is_largest=is_largest, has_more=False)

    return staged(planned)


def _page(made: ScriptPlan) -> str:
    from memfit.page.single_file import script_page

    return script_page(made)
