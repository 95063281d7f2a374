"""A plan as text: the verdict first, then where the bytes go, then what can be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from memfit.planner.result import PlanResult
from memfit.report.console.numbers import count, shape
from memfit.report.console.terminal import Marks, heading, marks_of, spaced
from memfit.report.plan.cards import card_fits_table, on_cards_table
from memfit.report.plan.sections import answer, bytes_section, chart, list_of, ways
from memfit.step.optimizers import optimizer_name
from memfit.units import format_bytes

__all__ = ["render_on_cards", "render_plan"]

#: What a plan is of that trains nothing.
_MODES = {"eval": "evaluation, no gradients", "inference": "inference, no gradients, no targets"}


def render_plan(plan: PlanResult, console: Console) -> Group:
    """Everything about a plan, from the answer down to what it rests on.

    Args:
        plan: what was found.
        console: where it will be printed, for its width and characters.
    """
    width, marks = console.width, marks_of(console)
    sections = [
        _header(plan, marks),
        answer(plan, plan.verdict, marks) if plan.verdict else _cards(plan),
        list_of("Not in these figures", plan.not_modelled, width, marks, style="yellow"),
        bytes_section(plan, width, marks),
        chart(plan, width, marks),
        ways(plan, width, marks),
        _training(plan) if plan.recipe.mode == "train" else None,
        list_of("Assumptions", plan.assumptions, width, marks, style="dim"),
        _unsupported(plan, width, marks),
    ]
    return spaced(sections)


def render_on_cards(plans: Sequence[PlanResult], console: Console) -> Group:
    """The same training on several cards.

    Args:
        plans: one for each card.
        console: where it will be printed, for its characters.
    """
    first, marks = plans[0], marks_of(console)
    return spaced([
        _header(replace(first, gpu=None), marks),
        on_cards_table(plans, marks),
        list_of("Not in these figures", first.not_modelled, console.width, marks, style="yellow"),
        Text("One card alone shows where the bytes go, and ways to fit more.", style="dim"),
    ])  # fmt: skip


# -- the answer ------------------------------------------------------------------------------------


def _header(plan: PlanResult, marks: Marks) -> RenderableType:
    recipe = plan.recipe
    facts = [
        f"{count(plan.parameter_count)} parameters",
        _inputs(plan, marks),
        recipe.precision,
        optimizer_name(recipe.optimizer) if recipe.mode == "train" else _MODES[recipe.mode],
        *_switches(plan),
    ]
    header = Text(plan.model_name, style="bold")
    if plan.gpu is not None:
        header.append(" on ", style="not bold")
        header.append(plan.gpu.name)
        facts.append(f"{format_bytes(plan.gpu.usable_bytes)} usable")
    return Group(header, Text(f" {marks.dot} ".join(facts), style="dim"))


def _inputs(plan: PlanResult, marks: Marks) -> str:
    if plan.batch is not None and len(plan.batch.inputs) > 1:
        return f"inputs {', '.join(plan.batch.inputs)}"
    if plan.is_tokens:
        return f"{plan.input_shape[0]:,} tokens"
    return f"input {shape(plan.input_shape, marks)}"


def _switches(plan: PlanResult) -> Iterator[str]:
    recipe = plan.recipe
    if recipe.memory_format == "nhwc":
        yield "channels last"
    if recipe.gradient_checkpointing:
        yield "gradient checkpointing"
    if recipe.ema:
        yield "moving average"
    if recipe.frozen:
        yield "partly frozen"


def _cards(plan: PlanResult) -> RenderableType:
    title = heading(f"{plan.batch_word.capitalize()}es that fit (no card was named: --gpu NAME)")
    table = card_fits_table(plan.cards)
    return Group(title, table, *(Text(line, style="bold") for line in _asked(plan)))


def _asked(plan: PlanResult) -> Iterator[str]:
    """Which card takes the batch that was asked about, of a plan without a card."""
    batch, word = plan.recipe.batch_size, plan.batch_word
    subject = f"Not even a {word} of 1" if batch is None else f"{word.capitalize()} {batch:,}"
    if plan.smallest_card is not None:
        yield f"{subject} fits {plan.smallest_card.key}, the smallest card that takes it."
    elif plan.fits is False:
        yield f"{subject} fits no card: it takes {format_bytes(plan.at.total_bytes)}."


# -- what can be done, and what it rests on --------------------------------------------------------


def _training(plan: PlanResult) -> RenderableType:
    rate = plan.learning_rate
    if rate is None:
        return Text(
            "Learning rate: --base-lr X [--base-batch-size N] carries a known one to this batch.",
            style="dim",
        )
    recipe, batch = plan.recipe, plan.micro_batch * plan.accumulation
    line = Text.assemble(
        ("Learning rate", "bold"), f" {rate.value:.3g} for a global batch of {batch:,}, from "
        f"{recipe.base_lr:g} at {recipe.base_batch_size:,}: {rate.rule} rule",
        ", warm up first" if rate.warmup else "",
    )  # fmt: skip
    return Group(line, Padding(Text(rate.reason, style="dim"), (0, 0, 0, 2)))


def _unsupported(plan: PlanResult, width: int, marks: Marks) -> RenderableType | None:
    if not plan.unsupported:
        return None
    lines = [f"{name}: {reason}" for name, reason in sorted(plan.unsupported.items())]
    title = "Incomplete: could not be accounted for"
    return list_of(title, lines, width, marks, style="yellow")
