"""A plan as text: the verdict first, then where the bytes go, then what can be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.cards.catalogue import GPU
from memfit.planner.largest import BatchLimits
from memfit.planner.result import MOST_SENTENCE, BatchPlan, PlanResult, Verdict
from memfit.report.console.numbers import count, shape
from memfit.report.console.terminal import Marks, heading, marks_of, spaced
from memfit.report.plan.cards import card_fits_table
from memfit.report.plan.charts import ChartMark, memory_chart
from memfit.report.plan.parts import parts_table
from memfit.report.plan.ways import ways_list
from memfit.step.optimizers import optimizer_name
from memfit.units import format_bytes

__all__ = ["render_plan"]

#: Longer lines are hard to read, whatever the terminal's width.
_PROSE_WIDTH = 96

_GIVES_BACK = (
    "This is without a limit; on the card the allocator gives cached memory back, and it fits."
)


def render_plan(plan: PlanResult, console: Console) -> Group:
    """Everything about a plan, from the answer down to what it rests on.

    Args:
        plan: what was found.
        console: where it will be printed, for its width and characters.
    """
    width, marks = console.width, marks_of(console)
    sections = [
        _header(plan, marks),
        _answer(plan, plan.verdict, marks) if plan.verdict else _cards(plan),
        _parts(plan, width, marks),
        _chart(plan, width, marks),
        _ways(plan, width, marks),
        _training(plan),
        _list_of("Assumptions", plan.assumptions, width, marks, style="dim"),
        _unsupported(plan, width, marks),
    ]
    return spaced(sections)


# -- the answer ------------------------------------------------------------------------------------


def _header(plan: PlanResult, marks: Marks) -> RenderableType:
    recipe, sizes = plan.recipe, plan.input_shape
    facts = [
        f"{count(plan.parameter_count)} parameters",
        f"{sizes[0]:,} tokens" if plan.is_tokens else f"input {shape(sizes, marks)}",
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


def _answer(plan: PlanResult, verdict: Verdict, marks: Marks) -> RenderableType:
    mark, style = _mark(verdict, marks)
    largest = Text(_largest(plan))
    most = plan.limits.max_batch_size if plan.limits else 0
    lines: list[Text] = []
    if not verdict.fits:
        lines += [Text(_too_much(verdict), style="bold")]
        lines += [largest] if most else []
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


def _largest(plan: PlanResult) -> str:
    assert plan.limits is not None
    limits, percent = plan.limits, f"{plan.recipe.safety:.0%}"[:-1]
    recommended, most = limits.recommended_batch_size, limits.max_batch_size
    advice = f"recommended {recommended:,}" if recommended else "none is recommended"
    within = f"(runs in {percent} % of the card)" if recommended else f"(none runs in {percent} %)"
    if limits.largest_that_runs > most:
        single = f"single larger ones up to {limits.largest_that_runs:,} do"
        return f"Every micro-batch up to {most:,} fits, {single}; {advice} {within}."
    untried = " or more" if most == plan.last_batch else ""
    return f"Largest micro-batch that fits: {most:,}{untried}; {advice} {within}."


def _fits(plan: PlanResult, verdict: Verdict) -> str:
    assert plan.gpu is not None
    total, usable = verdict.total_bytes, plan.gpu.usable_bytes
    if verdict.missing_bytes:
        fits = "fits, barely" if verdict.is_tight else "fits"
        return (
            f"Micro-batch {verdict.batch_size:,} {fits}: without a limit it would take "
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


def _cards(plan: PlanResult) -> RenderableType:
    title = heading("Micro-batches that fit (no card was named: --gpu NAME)")
    return Group(title, card_fits_table(plan.cards))


# -- where the bytes go ----------------------------------------------------------------------------


def _parts(plan: PlanResult, width: int, marks: Marks) -> RenderableType:
    at = plan.at
    peak, operator = at.peak, at.peak.operator.removeprefix("aten.").removesuffix(".default")
    where = f"module {peak.module}" if peak.module else "outside of the modules"
    lines: list[RenderableType] = [
        heading(f"Where the bytes go at micro-batch {at.batch_size:,}"),
        parts_table(at, width, marks),
        Text(fill(MOST_SENTENCE, min(width, _PROSE_WIDTH)), style="dim"),
        "",
        Text.assemble(("Peak", "bold"), f" in {peak.phase}, {where}, operator {operator}"),
        Text(
            f"     allocated {format_bytes(at.peak_allocated_bytes)}, "
            f"reserved {format_bytes(at.peak_reserved_bytes)}",
            style="dim",
        ),
    ]
    if plan.limits and plan.gpu and _is_beyond(plan.gpu, plan.limits, at):
        lines.append(Text(fill(_GIVES_BACK, min(width, _PROSE_WIDTH)), style="dim"))
    if plan.recipe.global_batch or plan.accumulation > 1:
        lines.append(_global_batch(plan, marks))
    return Group(*lines)


def _is_beyond(gpu: GPU, limits: BatchLimits, at: BatchPlan) -> bool:
    """Without a limit it takes more than the card has, and yet it fits."""
    return at.total_bytes > gpu.usable_bytes and at.batch_size <= limits.max_batch_size


def _global_batch(plan: PlanResult, marks: Marks) -> Text:
    total = plan.micro_batch * plan.accumulation
    return Text.assemble(
        ("Global batch", "bold"),
        f" {total:,} = micro-batch {plan.micro_batch:,} {marks.times} "
        f"{plan.accumulation:,} accumulated",
    )


def _chart(plan: PlanResult, width: int, marks: Marks) -> RenderableType | None:
    if len(plan.curve) < 2:
        return None
    limit = None if plan.gpu is None else plan.gpu.usable_bytes
    legend = Text.assemble(
        ("Memory against micro-batch", "bold"), "\n" if width < 72 else "  ",
        (marks.column[-1], "green"), (" needed  ", "dim"),
        (marks.cached, "bright_black"), (" allocator cache  ", "dim"),
    )  # fmt: skip
    if limit is not None:
        legend.append(marks.line * 2, style="red").append(" the card", style="dim")
    return Group(legend, memory_chart(plan.curve, limit, _pointers(plan), width, marks))


def _pointers(plan: PlanResult) -> list[ChartMark]:
    if plan.limits is None:
        return [ChartMark(plan.micro_batch, "shown above")]
    pointers = [
        ChartMark(plan.limits.recommended_batch_size, "recommended"),
        ChartMark(plan.limits.max_batch_size, "largest"),
    ]
    if plan.verdict is not None and plan.verdict.is_asked:
        pointers.append(ChartMark(plan.verdict.batch_size, "asked"))
    return [pointer for pointer in pointers if pointer.batch_size]


# -- what can be done, and what it rests on --------------------------------------------------------


def _ways(plan: PlanResult, width: int, marks: Marks) -> RenderableType | None:
    if plan.options is None:
        return None
    if not plan.options:
        return Text("No change of the recipe that memfit knows saves memory here.", style="dim")
    return ways_list(plan.options, plan.at.batch_size, width, marks)


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
