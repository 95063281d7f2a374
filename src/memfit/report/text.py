"""A plan as text: the verdict first, then where every byte goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.catalogue import GPU
from memfit.catalogue import gpu as find_gpu
from memfit.memory.tape import Part
from memfit.planner.optimizers import optimizer_name
from memfit.planner.options import Option
from memfit.planner.plan import BatchPlan, Plan
from memfit.report.charts import ChartMarks, bar, line_chart
from memfit.units import GIB, format_bytes

__all__ = ["COMMON_CARDS", "render_plan"]

#: Shown when no card is named.
COMMON_CARDS = (
    "rtx-3060", "rtx-3090", "rtx-4060-ti-16gb", "rtx-4090", "rtx-5090",
    "t4", "l4", "v100-16gb", "a100-40gb", "a100-80gb", "h100",
)  # fmt: skip

_LABELS = {
    Part.PARAMETERS: "1  parameters",
    Part.GRADIENTS: "   gradients",
    Part.OPTIMIZER: "2  optimizer state",
    Part.BATCH: "3  data batch",
    Part.ACTIVATIONS: "4  activations",
    Part.TEMPORARIES: "   temporaries",
    Part.WORKSPACES: "   library workspaces",
    Part.CACHE: "   allocator cache",
    Part.CONTEXT: "   CUDA context",
}
_TAUGHT = (Part.PARAMETERS, Part.GRADIENTS, Part.OPTIMIZER, Part.BATCH, Part.ACTIVATIONS)


def render_plan(plan: Plan, options: Sequence[Option], console: Console) -> RenderableType:
    """Everything about a plan, in the order a person asks.

    Args:
        plan: what to show.
        options: ways to fit more, best first.
        console: where it will be printed; decides width and characters.
    """
    marks = ChartMarks.for_encoding(console.encoding)
    width = min(console.width, 100)
    sections: list[RenderableType] = [_headline(plan)]
    sections += [_verdict(plan)] if plan.gpu else [_cards(plan)]
    sections.append(_parts(plan.at(None), plan.gpu, width, marks))
    sections.append(_peak(plan.at(None)))
    sections.append(_curve(plan, width, marks))
    if options:
        sections.append(_options(options, width))
    sections.append(_learning_rate(plan))
    sections.append(_list("Assumptions", plan.assumptions, "dim"))
    if plan.unsupported:
        lines = [f"{operator}: {reason}" for operator, reason in plan.unsupported.items()]
        sections.append(_list("Could not be accounted for", lines, "yellow"))
    return Group(*(Padding(section, (0, 0, 1, 0)) for section in sections))


def _headline(plan: Plan) -> Text:
    recipe = plan.recipe
    inputs = "x".join(map(str, plan.step.batch.inputs.shape))
    kind = f"{inputs} tokens" if plan.step.batch.is_tokens else inputs
    optimizer = optimizer_name(recipe.optimizer)
    text = Text.assemble((plan.model_name, "bold"), f"  {plan.parameter_count:,} parameters")
    text.append(f"\n{kind}, {recipe.precision}, {optimizer}", "dim")
    if plan.gpu is not None:
        text.append(f", {plan.gpu.name} ({format_bytes(plan.gpu.usable_bytes)} usable)", "dim")
    return text


def _verdict(plan: Plan) -> Text:
    assert plan.gpu is not None
    text = Text()
    asked = plan.recipe.batch_size
    if asked is not None:
        fits = bool(plan.fits)
        missing = plan.at(asked).peak_allocated_bytes + plan.gpu.context_bytes
        over = max(0, missing - plan.gpu.usable_bytes)
        text.append(f"Micro-batch {asked} ")
        text.append("fits" if fits else "does not fit", "bold green" if fits else "bold red")
        text.append("." if fits else f": {format_bytes(over)} too much.")
        text.append("\n")
    largest, recommended = plan.max_batch_size or 0, plan.recommended_batch_size or 0
    if largest == 0:
        over = plan.at(1).peak_allocated_bytes + plan.gpu.context_bytes - plan.gpu.usable_bytes
        text.append("Does not fit", "bold red")
        text.append(f": not even a micro-batch of 1, by {format_bytes(max(over, 0))}.")
        return text
    text.append("Largest micro-batch that fits: ")
    text.append(f"{largest:,}", "bold green")
    text.append("   recommended: ")
    text.append(f"{recommended:,}" if recommended else "none", "bold cyan")
    text.append(f" (within {plan.recipe.safety:.0%} of the card)")
    if plan.accumulation > 1:
        text.append(
            f"\n{plan.accumulation} micro-batches of {plan.micro_batch} make a global batch of "
            f"{plan.accumulation * plan.micro_batch}."
        )
    return text


def _cards(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, title="Micro-batch by card", title_justify="left")
    for heading in ("card", "memory", "largest", "recommended"):
        table.add_column(heading, justify="left" if heading == "card" else "right")
    for key in COMMON_CARDS:
        card = find_gpu(key)
        largest, recommended = plan.max_batch_on(card), plan.recommended_batch_on(card)
        table.add_row(
            card.key,
            format_bytes(card.usable_bytes),
            f"{largest:,}" if largest else Text("does not fit", "red"),
            f"{recommended:,}" if recommended else "-",
        )
    table.caption = "Kernels as on an RTX 3060; name a card with --gpu for its own."
    table.caption_justify = "left"
    return table


def _parts(at: BatchPlan, gpu: GPU | None, width: int, marks: ChartMarks) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        title=f"Where the bytes go at micro-batch {at.batch_size:,}",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    exact = width >= 90
    if exact:
        table.add_column("bytes", justify="right", no_wrap=True, style="dim")
    bars = width - (72 if exact else 50)
    if bars >= 6:
        table.add_column("", no_wrap=True)
    for part in Part:
        size = at.parts[part]
        share = size / at.total_bytes
        cells: list[RenderableType] = [
            Text(_LABELS[part], "" if part in _TAUGHT else "dim"),
            _in_gib(size),
            f"{share:.1%}",
        ]
        cells += [f"{size:,}"] if exact else []
        cells += (
            [Text(bar(share, bars, marks), "cyan" if part in _TAUGHT else "dim")]
            if bars >= 6
            else []
        )
        table.add_row(*cells)
    total: list[RenderableType] = [
        Text("   total", "bold"), Text(_in_gib(at.total_bytes), "bold"), "100.0%",
    ]  # fmt: skip
    total += [f"{at.total_bytes:,}"] if exact else []
    if gpu is not None and bars >= 6:
        total.append(f"{at.total_bytes / gpu.usable_bytes:.0%} of the card")
    table.add_row(*total)
    return table


def _in_gib(size_bytes: int) -> str:
    """GiB from 10 MiB up, so that the column can be added by eye."""
    return f"{size_bytes / GIB:.2f} GiB" if size_bytes >= GIB // 100 else format_bytes(size_bytes)


def _peak(at: BatchPlan) -> Text:
    peak = at.peak
    text = Text.assemble(("Peak", "bold"), f" in {peak.phase}")
    if peak.module:
        text.append(f", module {peak.module}")
    text.append(f", operator {peak.operator.removeprefix('aten.').partition('.')[0]}")
    text.append(
        f"\nallocated {format_bytes(at.peak_allocated_bytes)}, "
        f"reserved {format_bytes(at.peak_reserved_bytes)}",
        "dim",
    )
    return text


def _curve(plan: Plan, width: int, marks: ChartMarks) -> Group:
    largest = plan.max_batch_size or plan.at(None).batch_size
    end = max(2, round(largest * 1.15))
    batches = sorted({max(1, round(end * i / 8)) for i in range(9)})
    points = [(batch, plan.at(batch).total_bytes / GIB) for batch in batches]
    limit = plan.gpu.usable_bytes / GIB if plan.gpu else None
    label = f"{plan.gpu.key}: {limit:.1f} GiB" if plan.gpu else ""
    lines = line_chart(
        points,
        limit,
        width=max(20, width - 16),
        height=9,
        marks=marks,
        unit="GiB",
        limit_label=label,
    )
    return Group(Text("Memory against micro-batch", "italic"), *(Text(line) for line in lines))


def _options(options: Sequence[Option], width: int) -> Table:
    table = Table(box=None, pad_edge=False, title="Ways to fit more", title_justify="left")
    table.add_column("change", ratio=3)
    table.add_column("saves", justify="right", no_wrap=True)
    table.add_column("largest", justify="right", no_wrap=True)
    if width >= 76:
        table.add_column("flag", ratio=3, style="cyan")
    for option in options:
        largest = "" if option.max_batch_size is None else f"{option.max_batch_size:,}"
        cells: list[RenderableType] = [
            Text.assemble(option.name, ("\n  " + option.note, "dim")),
            format_bytes(option.saved_bytes),
            largest,
        ]
        table.add_row(*cells, *([option.flag] if width >= 76 else []))
    return table


def _learning_rate(plan: Plan) -> Text:
    rate = plan.learning_rate
    batch = plan.micro_batch * plan.accumulation
    if rate is None:
        return Text("Learning rate: pass --base-lr to carry a known one to this batch.", "dim")
    text = Text.assemble(
        ("Learning rate ", "bold"), f"{rate.value:.3g} for a global batch of {batch:,}"
    )
    text.append(
        f", from {plan.recipe.base_lr:g} at {plan.recipe.base_batch_size:,}: {rate.rule} rule"
    )
    text.append(f"\n{rate.reason}", "dim")
    if rate.warmup:
        text.append("; warm up over the first epochs", "dim")
    return text


def _list(title: str, lines: Sequence[str], style: str) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row(Text(""), Text(title, "italic"))
    for line in _sentences(lines):
        table.add_row(Text("-", style), Text(line, style))
    return table


def _sentences(lines: Sequence[str]) -> Iterator[str]:
    return iter(lines)
