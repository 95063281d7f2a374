"""``memfit model``: a model's layers."""

from __future__ import annotations

from memfit.commands.flags import JsonFlag, MemoryFlags, Whole, recipe_of
from memfit.commands.output import show, show_json, working
from memfit.errors import ExitCode, UsageError

__all__ = ["model"]


def model(
    model: str,
    *,
    depth: int = 2,
    batch_size: Whole = None,
    input_shape: str | None = None,
    input_ids: Whole = None,
    num_classes: Whole = None,
    precision: str | None = None,
    optimizer: str | None = None,
    as_json: JsonFlag = False,
) -> int:
    """Layers, shapes, parameters, bytes kept for backward and multiply-adds.

    Parameters
    ----------
    model:
        As for memfit plan.
    depth:
        Levels of modules to show.
    batch_size:
        The micro-batch; 1 when omitted.
    input_shape:
        Of one sample, such as 3x224x224.
    input_ids:
        Tokens in one sample, for language models.
    num_classes:
        Of the model's head.
    precision:
        fp32, tf32, amp-fp16, amp-bf16, fp16 or bf16.
    optimizer:
        A name, with options after commas; decides the peak.
    as_json:
        Print the table as JSON and nothing else.
    """
    if depth < 0:
        raise UsageError(f"--depth is {depth}; it must be 0 or more.")
    flags = MemoryFlags(
        input_shape=input_shape,
        input_ids=input_ids,
        num_classes=num_classes,
        batch_size=1 if batch_size is None else batch_size,
        precision=precision,
        optimizer=optimizer,
    )
    recipe = recipe_of(model, flags.given())

    from memfit.planner.layers import summarise_layers
    from memfit.planner.planning import plan_recipe

    made = working("tracing", lambda: plan_recipe(recipe, None, verify=False))
    table = summarise_layers(made, depth=depth)
    if as_json:
        show_json(table.to_dict())
    else:
        from memfit.report.plan.layers import render_layers

        show(lambda console: render_layers(table, console))
    return ExitCode.OK
