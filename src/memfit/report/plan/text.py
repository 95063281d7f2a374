"""A plan as text: the verdict first, then where the bytes go, then what can be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.planner.curve import CurvePoint, memory_curve
from memfit.planner.options import Option
from memfit.planner.plan import Plan
from memfit.planner.verdict import CardFit, Verdict, across_cards
from memfit.planner.verdict import verdict as verdict_of
from memfit.report.console.numbers import count, shape
from memfit.report.console.terminal import Marks, heading, marks_of
from memfit.report.plan.cards import card_fits_table
from memfit.report.plan.charts import ChartMark, memory_chart
from memfit.report.plan.parts import parts_table
from memfit.report.plan.ways import ways_list
from memfit.step.optimizers import optimizer_name
from memfit.units import format_bytes

__all__ = ["plan_report", "render_plan"]

#: Longer lines are hard to read, whatever the terminal's width.
_PROSE_WIDTH = 96


def render_plan(plan: Plan, options: Sequence[Option] | None, console: Console) -> Group:
    """Everything about a plan for a console's width and characters.

    Args:
        plan: what was asked.
        options: ways to fit more; None when nobody looked for them.
        console: where it will be printed.
    """
    return plan_report(
        plan,
        verdict=verdict_of(plan, options or ()),
        curve=memory_curve(plan),
        options=options,
        cards=() if plan.gpu else tuple(across_cards(plan)),
        width=console.width,
        marks=marks_of(console),
    )


def plan_report(
    plan: Plan,
    *,
    verdict: Verdict | None,
    curve: Sequence[CurvePoint],
    options: Sequence[Option] | None,
    cards: Sequence[CardFit],
    width: int,
    marks: Marks,
) -> Group:
    """Everything about a plan, from the answer down to what it rests on.

    Args:
        plan: what was asked.
        verdict: whether it fits; None without a card.
        curve: memory against the micro-batch.
        options: ways to fit more; None when nobody looked for them.
        cards: what fits common cards, for a plan without a card.
        width: columns of the terminal.
        marks: the characters to draw with.
    """
    sections = [
        _header(plan, marks),
        _answer(plan, verdict, marks) if verdict else _cards(cards),
        _parts(plan, width, marks),
        _chart(plan, verdict, curve, width, marks),
        _ways(plan, options, width, marks),
        _training(plan),
        _list_of("Assumptions", plan.assumptions, width, marks, style="dim"),
        _unsupported(plan, width, marks),
    ]
    spaced: list[RenderableType] = []
    for section in sections:
        if section is not None:
            spaced += [*([""] if spaced else []), section]
    return Group(*spaced)


# -- the answer ------------------------------------------------------------------------------------


def _header(plan: Plan, marks: Marks) -> RenderableType:
    recipe, sizes = plan.recipe, plan.step.batch.inputs.shape
    tokens = plan.step.batch.is_tokens
    facts = [
        f"{count(plan.parameter_count)} parameters",
        f"{sizes[0]:,} tokens" if tokens else f"input {shape(sizes, marks)}",
        recipe.precision,
        optimizer_name(recipe.optimizer),
        *_switches(plan),
    ]
    header = Text(plan.model_name, style="bold")
    if plan.gpu is not None:
        header.append(" on ", style="not bold")
        header.append(plan.gpu.name)
        facts.append(f"{format_bytes(plan.gpu.usable_bytes)} usable")
    return Group(header, Text(f" {marks.dot} ".join(facts), style="dim"))


def _switches(plan: Plan) -> Iterator[str]:
    recipe = plan.recipe
    if recipe.memory_format == "nhwc":
        yield "channels last"
    if recipe.gradient_checkpointing:
        yield "gradient checkpointing"
    if recipe.ema:
        yield "moving average"
    if recipe.frozen:
        yield "partly frozen"


def _answer(plan: Plan, verdict: Verdict, marks: Marks) -> RenderableType:
    mark, style = _mark(verdict, marks)
    largest = Text(_largest(plan))
    lines: list[Text] = []
    if not verdict.fits:
        lines += [Text(_too_much(verdict), style="bold")]
        lines += [largest] if plan.max_batch_size else []
        lines += [Text(_remedies(verdict))]
    elif verdict.is_asked:
        lines += [Text(_fits(plan, verdict), style="bold"), largest]
    else:
        lines += [Text(_largest(plan), style="bold")]
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row(Text(mark, style=style), line)
        mark = ""
    return grid


def _mark(verdict: Verdict, marks: Marks) -> tuple[str, str]:
    if not verdict.fits:
        return marks.no, "bold red"
    return (marks.maybe, "bold yellow") if verdict.is_tight else (marks.yes, "bold green")


def _largest(plan: Plan) -> str:
    recommended, percent = plan.recommended_batch_size, f"{plan.recipe.safety:.0%}"[:-1]
    advice = f"recommended {recommended:,}" if recommended else "none is recommended"
    within = f"({percent} % of the card)" if recommended else f"(none is within {percent} %)"
    untried = " or more" if plan.max_batch_size == plan.batch_limit else ""
    return f"Largest micro-batch that fits: {plan.max_batch_size:,}{untried}; {advice} {within}."


def _fits(plan: Plan, verdict: Verdict) -> str:
    assert plan.gpu is not None
    total, usable = verdict.total_bytes, plan.gpu.usable_bytes
    if verdict.is_tight:
        return (
            f"Micro-batch {verdict.batch_size:,} fits, barely: without a limit it would take "
            f"{format_bytes(total)}, so the allocator has to give cached memory back on the way."
        )
    return (
        f"Micro-batch {verdict.batch_size:,} fits: {format_bytes(total)} of "
        f"{format_bytes(usable)} ({total / usable:.0%})."
    ).replace("%", " %")


def _too_much(verdict: Verdict) -> str:
    subject = f"Micro-batch {verdict.batch_size:,} does not fit"
    if not verdict.is_asked:
        subject = "Does not fit, not even a micro-batch of 1"
    takes = f"it takes {format_bytes(verdict.total_bytes)}"
    if not verdict.missing_bytes:
        return f"{subject}: {takes}, and what the card has left is in pieces that are too small."
    missing = format_bytes(verdict.missing_bytes)
    return f"{subject}: {takes}, {missing} more than the card has."


def _remedies(verdict: Verdict) -> str:
    flags = [option.flag for option in verdict.remedies[:3]]
    if verdict.larger_card is not None:
        flags.append(f"--gpu {verdict.larger_card.key}")
    if not flags:
        return "No single change makes it fit; combine some of the ways below."
    return f"It fits with {', or '.join(flags)}."


def _cards(cards: Sequence[CardFit]) -> RenderableType:
    return Group(
        heading("Micro-batches that fit (no card was named: --gpu NAME)"), card_fits_table(cards)
    )


# -- where the bytes go ----------------------------------------------------------------------------


def _parts(plan: Plan, width: int, marks: Marks) -> RenderableType:
    at = plan.at(None)
    peak, operator = at.peak, at.peak.operator.removeprefix("aten.").removesuffix(".default")
    where = f"module {peak.module}" if peak.module else "outside of the modules"
    lines: list[RenderableType] = [
        heading(f"Where the bytes go at micro-batch {at.batch_size:,}"),
        parts_table(at, width, marks),
        "",
        Text.assemble(("Peak", "bold"), f" in {peak.phase}, {where}, operator {operator}"),
        Text(
            f"     allocated {format_bytes(at.peak_allocated_bytes)}, "
            f"reserved {format_bytes(at.peak_reserved_bytes)}",
            style="dim",
        ),
    ]
    if plan.recipe.global_batch or plan.accumulation > 1:
        lines.append(_global_batch(plan, marks))
    return Group(*lines)


def _global_batch(plan: Plan, marks: Marks) -> Text:
    total = plan.micro_batch * plan.accumulation
    return Text.assemble(
        ("Global batch", "bold"),
        f" {total:,} = micro-batch {plan.micro_batch:,} {marks.times} "
        f"{plan.accumulation:,} accumulated",
    )


def _chart(
    plan: Plan, verdict: Verdict | None, curve: Sequence[CurvePoint], width: int, marks: Marks
) -> RenderableType | None:
    if len(curve) < 2:
        return None
    pointers = _pointers(plan, verdict)
    limit = None if plan.gpu is None else plan.gpu.usable_bytes
    legend = Text.assemble(
        ("Memory against micro-batch", "bold"), "\n" if width < 72 else "  ",
        (marks.column[-1], "green"), (" needed  ", "dim"),
        (marks.cached, "bright_black"), (" allocator cache  ", "dim"),
    )  # fmt: skip
    if limit is not None:
        legend.append(marks.line * 2, style="red").append(" the card", style="dim")
    return Group(legend, memory_chart(curve, limit, pointers, width, marks))


def _pointers(plan: Plan, verdict: Verdict | None) -> list[ChartMark]:
    if verdict is None:
        return [ChartMark(plan.micro_batch, "shown above")]
    pointers = [
        ChartMark(plan.recommended_batch_size or 0, "recommended"),
        ChartMark(plan.max_batch_size or 0, "largest"),
    ]
    if verdict.is_asked:
        pointers.append(ChartMark(verdict.batch_size, "asked"))
    return [pointer for pointer in pointers if pointer.batch_size]


# -- what can be done, and what it rests on --------------------------------------------------------


def _ways(
    plan: Plan, options: Sequence[Option] | None, width: int, marks: Marks
) -> RenderableType | None:
    if options is None:
        return None
    if not options:
        return Text("No change of the recipe that memfit knows saves memory here.", style="dim")
    return ways_list(options, plan.at(None).batch_size, width, marks)


def _training(plan: Plan) -> RenderableType:
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


def _unsupported(plan: Plan, width: int, marks: Marks) -> RenderableType | None:
    if not plan.unsupported:
        return None
    lines = [f"{name}: {reason}" for name, reason in sorted(plan.unsupported.items())]
    title = "Incomplete: could not be accounted for"
    return _list_of(title, lines, width, marks, style="yellow")


def _list_of(
    title: str, lines: Sequence[str], width: int, marks: Marks, *, style: str
) -> RenderableType | None:
    if not lines:
        return None
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(max_width=min(width, _PROSE_WIDTH) - 2, overflow="fold")
    for line in lines:
        grid.add_row(Text(marks.dot, style=style), Text(line, style=style))
    return Group(heading(title), grid)
