"""A study in the terminal: one table of everything by batch size, then what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.report.console.terminal import Marks, columns, heading, marks_of, spaced
from memfit.study.results import GoalReached, Measured, Study
from memfit.units import format_bytes

__all__ = ["critical_words", "findings", "measured_words", "render_study", "study_rows"]

_PROSE_WIDTH = 96
_SURE = {
    "clear": "clear", "likely": "likely, not certain", "cannot tell": "the data cannot tell",
}  # fmt: skip


def render_study(study: Study, console: Console) -> Group:
    """Everything about a study, the recommendation first.

    Args:
        study: what was found.
        console: where it will be printed.
    """
    marks = marks_of(console)
    width = min(console.width, _PROSE_WIDTH)
    sections = [
        _header(study, marks),
        _recommendation(study, marks, width),
        *_tables(study, console.width),
        _list("What the measurements say", list(findings(study)), marks, width),
        _list("Notes", study.notes, marks, width),
        _files(study),
    ]
    return spaced(sections)


def _header(study: Study, marks: Marks) -> RenderableType:
    facts = [
        study.device,
        f"{study.settings.samples:,} images",
        f"{study.seeds} seed{'s' * (study.seeds != 1)}",
        f"{study.settings.epochs} epochs, at least {study.settings.steps:,} steps",
    ]
    name = Text.assemble((study.model_name, "bold"), " on ", study.data_name)
    return Group(name, Text(f" {marks.dot} ".join(facts), style="dim"))


# -- the recommendation ----------------------------------------------------------------------------


def _recommendation(study: Study, marks: Marks, width: int) -> RenderableType:
    found = study.recommendation
    if found is None:
        return Text(f"{marks.no} Nothing can be recommended: no batch size trains and fits.")
    mark = marks.maybe if found.sureness == "cannot tell" else marks.yes
    whole = f"global batch {found.global_batch:,}"
    parts = f"micro-batch {found.micro_batch:,} {marks.times} {found.accumulation}"
    top = Text(f"{mark} Train with {whole} = {parts}, ", style="bold")
    top.append(f"learning rate {found.learning_rate:g}")
    sure = _SURE[found.sureness]
    if found.share is not None:
        sure += f" (within 5 % of the best in {found.share:.0%} of draws from all intervals)"
    lines: list[RenderableType] = [top, Text(f"  How sure: {sure}.")]
    lines += _wrapped([f"It rests on {found.basis}."] if found.critical else [], marks, width)
    lines += _wrapped(found.reasons, marks, width)
    lines.append(Text("  What would change it:"))
    lines += _wrapped(found.changes, marks, width)
    return Group(*lines)


def _wrapped(sentences: Sequence[str], marks: Marks, width: int) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(max_width=width - 4, overflow="fold")
    for sentence in sentences:
        grid.add_row(f"  {marks.dot}", Text(sentence))
    return [grid] if sentences else []


# -- tables ----------------------------------------------------------------------------------------


def _tables(study: Study, width: int) -> Iterator[RenderableType]:
    for title, names, rows in study_rows(study):
        table = columns()
        for name in names:
            table.add_column(name, justify="right", no_wrap=width >= 80)
        for row in rows:
            best = study.recommendation is not None and row[0] == (
                f"{study.recommendation.global_batch:,}"
            )
            table.add_row(*row, style="bold" if best else "")
        yield Group(heading(title), table)


def study_rows(study: Study) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, columns and rows of every table, for the terminal and the page."""
    yield _speed_and_memory(study)
    yield _to_the_goal(study)
    yield _accuracy(study)


def _speed_and_memory(study: Study) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    speed = {point.batch_size: point for point in study.throughput}
    goodput = study.recommendation.goodput if study.recommendation else {}
    columns = ["batch", "samples/s", "step", "useful/s", "micro-batch", "memory", "activations"]
    is_measured = any(m.measured_bytes is not None for m in study.memory)
    columns += ["measured"] if is_measured else []
    rows = []
    for memory in study.memory:
        point = speed.get(memory.batch_size)
        useful = goodput.get(memory.batch_size)
        row = [f"{memory.batch_size:,}"]
        row += ["–", "–"] if point is None else [
            f"{point.samples_per_second:,.0f} ± {(point.high - point.low) / 2:,.0f}",
            f"{point.step_seconds * 1000:.3g} ms",
        ]  # fmt: skip
        row.append("–" if useful is None else f"{useful:,.0f}")
        row.append("does not fit" if memory.micro_batch is None else f"{memory.micro_batch:,}")
        row += [format_bytes(memory.whole_bytes), format_bytes(memory.parts["activations"])]
        if is_measured:
            found = memory.measured_bytes
            row.append("–" if found is None else format_bytes(found))
        rows.append(tuple(row))
    card = study.card or "no card: no ceiling"
    return f"Speed, and predicted memory ({card})", tuple(columns), rows


def _to_the_goal(study: Study) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    title = f"To {study.goal}, learning rate tuned" if study.goal else "Learning rates"
    columns = ("batch", "best rate", "as good", "steps", "examples", "seconds")
    rows = []
    for size in study.sizes:
        rate = size.rate
        row = [f"{size.batch_size:,}"]
        row += ["–", "–"] if rate is None else [
            f"{rate.value:g}", f"{rate.low:.2g} to {rate.high:.2g}"
        ]  # fmt: skip
        rows.append((*row, *_goal_words(size.goal)))
    return title, columns, rows


def _goal_words(goal: GoalReached | None) -> tuple[str, str, str]:
    if goal is None:
        return "–", "–", "–"
    if goal.mean_steps is None:
        return f"reached by {len(goal.reached)} of {len(goal.steps)}", "–", "–"
    spread = Measured(goal.reached).spread
    steps = f"{goal.mean_steps:,.0f}" + ("" if spread is None else f" ± {spread:,.0f}")
    examples, seconds = goal.mean_examples or 0.0, goal.seconds
    return steps, f"{examples:,.0f}", "–" if seconds is None else f"{seconds:.3g}"


def _accuracy(study: Study) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    settings = study.settings
    names = (
        "batch", f"{settings.epochs} epochs", f"{settings.steps:,} steps", "train, at the end",
        "validation, at the end", "gap",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for size in study.sizes:
        measured = (size.equal_epochs, size.equal_steps, size.train_accuracy, size.val_accuracy)
        rows.append((f"{size.batch_size:,}", *map(measured_words, (*measured, size.gap))))
    return "Validation accuracy for equal epochs and equal steps; generalisation gap", names, rows


def measured_words(found: Measured | None) -> str:
    """Mean and standard deviation among seeds, in percent."""
    if found is None:
        return "–"
    spread = found.spread
    return f"{found.mean:.1%}" + ("" if spread is None else f" ± {spread * 100:.1f}")


# -- findings --------------------------------------------------------------------------------------


def findings(study: Study) -> Iterator[str]:
    """Speed, noise, trade-off and learning rate, each in a sentence."""
    if study.knee is not None:
        yield f"Speed: batch {study.knee:,} is the smallest within 5 % of the best samples/s."
    yield f"Noise: {_noise_words(study)}"
    layers = study.noise[-1].layers if study.noise else None
    if layers:
        known = ((name, scale.value) for name, scale in layers.items())
        words = (f"{name} {'–' if value is None else f'{value:,.0f}'}" for name, value in known)
        yield f"Noise by layer, at the end: {', '.join(words)}."
    yield f"Trade-off: {critical_words(study)}"
    if study.rate_rule is not None:
        yield f"Learning rate: {study.rate_rule.verdict}"
    else:
        yield "Learning rate: fewer than three batch sizes have one, so no rule can be told."


def _noise_words(study: Study) -> str:
    known = [p for p in study.noise if p.noise.value is not None]
    if not known:
        return "the gradient is too small against its noise to give the noise scale a value."
    ends = known[:1] if len(known) == 1 else (known[0], known[-1])
    words = [
        f"{p.noise.value:,.0f} ({p.noise.low:,.0f} to {p.noise.high:,.0f}) at epoch {p.epoch:.2g}"
        for p in ends
        if p.noise.low is not None and p.noise.high is not None
    ]
    missing = "" if len(known) == len(study.noise) else (
        " At other times the gradient is too small against its noise to give a value."
    )  # fmt: skip
    return f"B_simple is {', then '.join(words)}, measured at batch {study.noise_batch}.{missing}"


def critical_words(study: Study) -> str:
    """The critical batch, or why there is none."""
    found = study.tradeoff
    if found is None:
        return "fewer than three batch sizes reached the goal, so there is no curve to fit."
    c = found.critical
    if c.low is None and c.high is None:
        ends = "the measurements do not bound it"
    elif c.high is None:
        ends = f"95 %: at least {c.low:,.0f}; nothing bounds it above"
    elif c.low is None:
        ends = f"95 %: at most {c.high:,.0f}; nothing bounds it below"
    else:
        ends = f"95 %: {c.low:,.0f} to {c.high:,.0f}"
    return (
        f"the critical batch is {c.value:,.0f} samples ({ends}); at least "
        f"{found.min_steps:,.0f} steps or {found.min_examples:,.0f} examples are needed."
    )


def _list(title: str, lines: Sequence[str], marks: Marks, width: int) -> RenderableType:
    return Group(heading(title), *_wrapped(lines, marks, width))


def _files(study: Study) -> RenderableType:
    lines = [
        Text(f"result   {study.folder}/study.json"),
        Text(f"page     {study.folder}/report.html"),
        Text(f"figures  {study.folder}/figures/"),
    ]
    if study.recommendation is not None:
        lines.append(Text(f"train    memfit train {study.folder}/recommended.toml", style="bold"))
    return Group(*lines)
