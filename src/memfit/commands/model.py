"""``memfit model``: a model's layers."""

from __future__ import annotations

from memfit.commands.shared.flags import JsonFlag, ModelFlags, recipe_of
from memfit.commands.shared.output import show, show_json, working
from memfit.errors import ExitCode, UsageError

__all__ = ["model"]


def model(
    model: str,
    *,
    flags: ModelFlags | None = None,
    depth: int = 2,
    as_json: JsonFlag = False,
) -> int:
    """Layers, shapes, parameters, bytes kept for backward and multiply-adds.

    Of one sample, or of --batch-size.

    Parameters
    ----------
    model:
        As for memfit plan.
    depth:
        Levels of modules to show.
    as_json:
        Print the table as JSON and nothing else.
    """
    if depth < 0:
        raise UsageError(f"--depth is {depth}; it must be 0 or more.")
    recipe = recipe_of(model, {"batch_size": 1} | (flags or ModelFlags()).given())

    from memfit.planner.layers import summarise_layers
    from memfit.planner.planning import plan_job
    from memfit.step.job import resolve

    made = working("tracing", lambda: plan_job(resolve(recipe), verify=False))
    table = summarise_layers(made, depth=depth)
    if as_json:
        show_json(table.to_dict())
    else:
        from memfit.report.plan.layers import render_layers

        show(lambda console: render_layers(table, console))
    return ExitCode.OK
