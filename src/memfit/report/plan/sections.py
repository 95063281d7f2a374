"""The sections that plans of recipes and of scripts share: answer, bytes, curve, ways."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.cards.catalogue import GPU
from memfit.memory.tape.evaluation import Evaluation
from memfit.planner.largest import BatchLimits
from memfit.planner.result import BatchPlan, PlanResult, Verdict
from memfit.report.console.terminal import PROSE_WIDTH, Marks, heading
from memfit.report.plan.charts import ChartMark, memory_chart
from memfit.report.plan.parts import parts_table
from memfit.report.plan.ways import ways_list
from memfit.units import format_bytes

__all__ = [
    "answer",
    "bytes_section",
    "chart",
    "largest_sentence",
    "list_of",
    "verdict_mark",
    "ways",
]

_GIVES_BACK = (
    "This is without a limit; on the card the allocator gives cached memory back, and it fits."
)


# -- the answer ------------------------------------------------------------------------------------


def answer(plan: PlanResult, verdict: Verdict, marks: Marks) -> RenderableType:
    """Whether it fits, and the largest micro-batch that does."""
    mark, style = verdict_mark(verdict, marks)
    largest = Text(largest_sentence(plan))
    most = plan.limits.max_batch_size if plan.limits else 0
    lines: list[Text] = []
    if not verdict.fits:
        lines += [Text(_too_much(plan, verdict), style="bold")]
        lines += [largest] if most else []
        lines += [Text(_remedies(verdict))]
    elif verdict.is_asked:
        lines += [Text(_fits(plan, verdict), style="bold"), largest]
    else:
        lines += [Text(largest_sentence(plan), style="bold")]
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row(Text(mark, style=style), line)
        mark = ""
    return grid


def verdict_mark(verdict: Verdict, marks: Marks) -> tuple[str, str]:
    """A character and its style."""
    if not verdict.fits:
        return marks.no, "bold red"
    return (marks.maybe, "bold yellow") if verdict.is_tight else (marks.yes, "bold green")


def largest_sentence(plan: PlanResult) -> str:
    """The largest and the recommended micro-batch of the card that a plan names."""
    assert plan.limits is not None
    limits, percent = plan.limits, f"{plan.recipe.safety:.0%}"[:-1]
    recommended, most = limits.recommended_batch_size, limits.max_batch_size
    advice = f"recommended {recommended:,}" if recommended else "none is recommended"
    within = (
        f" (runs in {percent} % of the card)" if recommended else f" (none runs in {percent} %)"
    )
    if plan.useful and plan.useful.is_reached_by(recommended):
        within = f": memory is not the limit, {plan.useful.text}"
    if limits.largest_that_runs > most:
        single = f"single larger ones up to {limits.largest_that_runs:,} do"
        return f"Every {plan.batch_word} up to {most:,} fits, {single}; {advice}{within}."
    untried = " or more" if most == plan.last_batch else ""
    return f"Largest {plan.batch_word} that fits: {most:,}{untried}; {advice}{within}."


def _fits(plan: PlanResult, verdict: Verdict) -> str:
    assert plan.gpu is not None
    total, usable = verdict.total_bytes, plan.gpu.usable_bytes
    subject = f"{plan.batch_word.capitalize()} {verdict.batch_size:,}"
    if verdict.missing_bytes:
        fits = "fits, barely" if verdict.is_tight else "fits"
        return (
            f"{subject} {fits}: without a limit it would take {format_bytes(total)}, so the "
            "allocator has to give cached memory back on the way."
        )
    return (
        f"{subject} fits: {format_bytes(total)} of {format_bytes(usable)} ({total / usable:.0%})."
    ).replace("%", " %")


def _too_much(plan: PlanResult, verdict: Verdict) -> str:
    subject = f"{plan.batch_word.capitalize()} {verdict.batch_size:,} does not fit"
    if verdict.is_of_validation:
        subject = (
            f"The validation pass at batch {plan.evaluation_batch:,} does not fit, training at "
            f"micro-batch {verdict.batch_size:,} does"
        )
    elif not verdict.is_asked:
        subject = f"Does not fit, not even a {plan.batch_word} of 1"
    takes = f"it takes {format_bytes(verdict.total_bytes)}"
    if not verdict.missing_bytes:
        return f"{subject}: {takes}, and what the card has left is in pieces that are too small."
    missing = format_bytes(verdict.missing_bytes)
    return f"{subject}: {takes}, {missing} more than the card has."


def _remedies(verdict: Verdict) -> str:
    flags = ["a smaller --eval-batch-size"] if verdict.is_of_validation else []
    flags += [option.flag for option in verdict.remedies[:3]]
    if verdict.larger_card is not None:
        flags.append(f"--gpu {verdict.larger_card.key}, the smallest card that takes it")
    if not flags:
        return "No single change makes it fit; combine some of the ways below."
    return f"It fits with {', or '.join(flags)}."


# -- where the bytes go ----------------------------------------------------------------------------


def bytes_section(
    plan: PlanResult, width: int, marks: Marks, *, names_batch: bool = True
) -> RenderableType:
    """What the bytes are at the peak, and where that is."""
    at = plan.at
    peak, operator = at.peak, at.peak.operator.removeprefix("aten.").removesuffix(".default")
    where = f"module {peak.module}" if peak.module else "outside of the modules"
    phase = f"{peak.phase} of the validation pass" if peak.is_evaluation else str(peak.phase)
    if peak.place:
        where += f", at {peak.place}"
    lines: list[RenderableType] = [
        heading("Where the bytes go" + f" at {plan.batch_word} {at.batch_size:,}" * names_batch),
        parts_table(at, width, marks),
        Text(fill(plan.most_sentence, min(width, PROSE_WIDTH)), style="dim"),
        "",
        Text.assemble(("Peak", "bold"), f" in {phase}, {where}, operator {operator}"),
        Text(
            f"     allocated {format_bytes(at.peak_allocated_bytes)}, "
            f"reserved {format_bytes(at.peak_reserved_bytes)}",
            style="dim",
        ),
    ]
    if at.evaluation is not None:
        lines.append(_validation(plan, at.evaluation))
    if plan.limits and plan.gpu and _is_beyond(plan.gpu, plan.limits, at):
        lines.append(Text(fill(_GIVES_BACK, min(width, PROSE_WIDTH)), style="dim"))
    if plan.recipe.global_batch or plan.accumulation > 1:
        lines.append(_global_batch(plan, marks))
    return Group(*lines)


def _validation(plan: PlanResult, found: Evaluation) -> Text:
    return Text.assemble(
        ("Validation pass", "bold"),
        f" at batch {plan.evaluation_batch:,}: at most {format_bytes(found.allocated_bytes)} "
        "allocated, beside gradients and optimizer state",
    )


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


def chart(plan: PlanResult, width: int, marks: Marks) -> RenderableType | None:
    """Memory against the micro-batch."""
    if len(plan.curve) < 2:
        return None
    limit = None if plan.gpu is None else plan.gpu.usable_bytes
    legend = Text.assemble(
        (f"Memory against {plan.batch_word}", "bold"), "\n" if width < 72 else "  ",
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


def ways(plan: PlanResult, width: int, marks: Marks) -> RenderableType | None:
    """What can be changed, and what it buys."""
    if plan.options is None:
        return None
    if not plan.options:
        return Text("No change of the recipe that memfit knows saves memory here.", style="dim")
    return ways_list(plan.options, f"{plan.batch_word} {plan.at.batch_size:,}", width, marks)


def list_of(
    title: str, lines: Sequence[str], width: int, marks: Marks, *, style: str
) -> RenderableType | None:
    """Lines under a heading; nothing where there are none."""
    if not lines:
        return None
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(max_width=min(width, PROSE_WIDTH) - 2, overflow="fold")
    for line in lines:
        grid.add_row(Text(marks.dot, style=style), Text(line, style=style))
    return Group(heading(title), grid)
