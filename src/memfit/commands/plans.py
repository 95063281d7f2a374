"""``memfit plan``, ``memfit model`` and ``memfit gpus``: what is known before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from memfit.commands.flags import JsonFlag, MemoryFlags, Whole, recipe_of
from memfit.commands.output import show, show_json, working
from memfit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from memfit.cards.catalogue import GPU
    from memfit.planner.options import Option
    from memfit.planner.plan import Plan

__all__ = ["gpus", "model", "plan"]


def plan(
    model: str,
    *,
    flags: MemoryFlags | None = None,
    gpu: str | None = None,
    free: str | None = None,
    quick: Annotated[bool, Parameter(negative=())] = False,
    strict: Annotated[bool, Parameter(negative=())] = False,
    html: Path | None = None,
    snapshot: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """Where memory goes, the batch that fits, and how to fit more.

    Parameters
    ----------
    model:
        torchvision:NAME, timm:NAME, transformers:NAME, mlp, cnn, path/to/file.py:build,
        package.module:build, or a recipe file ending in .toml.
    gpu:
        A card such as rtx-3060, or a size such as 11GiB. Without it: the local GPU, else a table.
    free:
        Of the card's memory, only so much is free, such as 10GiB.
    quick:
        Leave out the ways to fit more.
    strict:
        Exit with 4 when an operator could not be accounted for.
    html:
        Write the plan as one HTML file: slide the batch, change the card, look into every instant.
    snapshot:
        Write the step as a memory snapshot (.pickle) that PyTorch's own viewer opens.
    force:
        Overwrite what exists.
    as_json:
        Print the plan as JSON and nothing else.
    """
    from memfit.planner.options import ways_to_fit_more
    from memfit.planner.planning import plan as make_plan
    from memfit.report.console.output_path import check_output_path

    if html is not None:
        check_output_path(html, what="page", suffixes=(".html", ".htm"), force=force)
    if snapshot is not None:
        check_output_path(snapshot, what="snapshot", suffixes=(".pickle", ".pkl"), force=force)
    recipe = recipe_of(model, (flags or MemoryFlags()).given())
    card = gpu if free is None else _card_with_free(gpu, free)
    made = working("planning", lambda: make_plan(recipe, gpu=card))
    options = None if quick or made.gpu is None else working(
        "planning ways to fit more", lambda: ways_to_fit_more(made)
    )  # fmt: skip
    if html is not None:
        working("drawing the page", lambda: _write_page(made, options, html))
    if snapshot is not None:
        working("writing the snapshot", lambda: _write_snapshot(made, snapshot))
    if as_json:
        from dataclasses import asdict

        show_json(made.to_dict() | {"options": [asdict(option) for option in options or ()]})
    else:
        from memfit.report.plan.text import render_plan

        show(lambda console: render_plan(made, options, console))
    if made.fits is False:
        return ExitCode.DOES_NOT_FIT
    return ExitCode.INCOMPLETE if strict and made.unsupported else ExitCode.OK


def _card_with_free(gpu: str | None, free: str) -> GPU:
    """The card that was named, else the local one, of which only so much is free."""
    from memfit.cards.catalogue import gpu as find_gpu
    from memfit.cards.catalogue import local_gpu
    from memfit.units import format_bytes, parse_bytes

    free_bytes = parse_bytes(free)
    local = local_gpu() if gpu is None else None
    if gpu is None and local is None:
        raise UsageError(
            f"--free is {free}, but there is no card: none was named, and none is here.",
            hint="Name it, such as --gpu rtx-3060.",
        )
    card = local[0] if local is not None else find_gpu(str(gpu))
    if free_bytes > card.total_bytes:
        has = format_bytes(card.total_bytes)
        raise UsageError(f"--free is {free}; the {card.name} has only {has}.")
    return card.with_free_bytes(free_bytes)


def _write_page(plan: Plan, options: list[Option] | None, path: Path) -> None:
    from memfit.measure.points import measured_of_plan
    from memfit.page.single_file import plan_page
    from memfit.report.console.output_path import shown, write_output

    write_output(path, plan_page(plan, options, measured_of_plan(plan)).encode())
    print(f"page: {shown(path)}", file=sys.stderr)


def _write_snapshot(plan: Plan, path: Path) -> None:
    from memfit.planner.snapshot import plan_snapshot
    from memfit.report.console.output_path import shown, write_output

    write_output(path, plan_snapshot(plan))
    print(f"snapshot: {shown(path)}", file=sys.stderr)


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
    from memfit.planner.layers import summarise_layers
    from memfit.planner.planning import plan_recipe

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
    made = working("tracing", lambda: plan_recipe(recipe, None, verify=False))
    table = summarise_layers(made, depth=depth)
    if as_json:
        show_json(table.to_dict())
    else:
        from memfit.report.plan.layers import render_layers

        show(lambda console: render_layers(table, console))
    return ExitCode.OK


def gpus(*, as_json: JsonFlag = False) -> int:
    """The catalogue of cards.

    Parameters
    ----------
    as_json:
        Print the catalogue as JSON and nothing else.
    """
    from memfit.cards.catalogue import gpus as catalogue

    if as_json:
        from dataclasses import asdict

        show_json({"schema_version": 1, "gpus": [asdict(card) for card in catalogue().values()]})
    else:
        from memfit.report.plan.cards import render_gpus

        show(lambda console: render_gpus(catalogue().values(), console))
    return ExitCode.OK
