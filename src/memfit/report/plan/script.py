"""A script's plan as text: PyTorch's own verdict first, then where the bytes go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.memory.tape.evaluation import Evaluation
from memfit.planner.result import Verdict
from memfit.report.console.numbers import count
from memfit.report.console.terminal import PROSE_WIDTH, Marks, heading, marks_of, spaced
from memfit.report.plan.cards import card_fits_table, on_cards_table
from memfit.report.plan.sections import (
    bytes_section,
    chart,
    largest_sentence,
    list_of,
    verdict_mark,
    ways,
)
from memfit.scripts.plan import Proof, ScriptPlan
from memfit.scripts.told.answer import Decided, Kept
from memfit.units import format_bytes

__all__ = ["render_script", "render_script_on_cards"]

_MOST_FILES = _MOST_VALUES = 8


def render_script(made: ScriptPlan, console: Console) -> Group:
    """Everything about a script, from the answer down to what it rests on.

    Args:
        made: what was found.
        console: where it will be printed, for its width and characters.
    """
    width, marks, found = console.width, marks_of(console), made.found
    first = made.script.first
    sections = [
        _header(made, marks),
        _answer(made, found.verdict, made.proof, width, marks) if found.verdict else _cards(made),
        bytes_section(found, width, marks, names_batch=made.script.has_knob),
        list_of("Steps and evaluations", list(_passes(made)), width, marks, style=""),
        chart(found, width, marks),
        ways(found, width, marks) if found.options else None,
        list_of("Otherwise than the script says", first.notes, width, marks, style="dim"),
        list_of("Values that Python read", list(_values(first.values)), width, marks, style="dim"),
        list_of("Kept from the disk", list(_kept(first.kept)), width, marks, style="dim"),
        list_of("Assumptions", found.assumptions, width, marks, style="dim"),
    ]
    return spaced(sections)


def render_script_on_cards(made: Sequence[ScriptPlan], console: Console) -> Group:
    """The same script on several cards.

    Args:
        made: one for each card.
        console: where it will be printed, for its characters.
    """
    first, marks = made[0], marks_of(console)
    return spaced([
        _header(replace(first, found=replace(first.found, gpu=None)), marks),
        on_cards_table([one.found for one in made], marks),
        Text("One card alone shows where the bytes go, and ways to fit more.", style="dim"),
    ])  # fmt: skip


def _header(made: ScriptPlan, marks: Marks) -> RenderableType:
    script, gpu = made.script, made.found.gpu
    header = Text(script.name, style="bold")
    facts = [f"{count(made.found.parameter_count)} parameters", _batch(made)]
    facts.append(script.engine)
    if gpu is not None:
        header.append(" on ", style="not bold")
        header.append(gpu.name)
        facts.append(f"{format_bytes(gpu.usable_bytes)} usable")
    return Group(header, Text(f" {marks.dot} ".join(facts), style="dim"))


def _batch(made: ScriptPlan) -> str:
    knob = made.script.first.knob
    if not made.script.has_knob:
        return "its own batch"
    return f"batch {made.found.micro_batch:,} ({knob.name})"


# -- the answer ------------------------------------------------------------------------------------


def _answer(
    made: ScriptPlan, verdict: Verdict, proof: Proof | None, width: int, marks: Marks
) -> RenderableType:
    lines = [Text(_fits(made, verdict), style="bold")]
    if proof is not None:
        lines += [Text(line) for line in _proof(made, proof)]
    else:
        because = made.script.on_meta_because.rstrip(".")
        why = f" ({because})" if because else ""
        lines.append(Text(f"Worked out on meta tensors{why}; PyTorch's allocator did not run."))
    if made.found.limits is not None:
        lines.append(Text(largest_sentence(made.found)))
    elif made.why_fixed:
        lines.append(Text(f"No other batch is looked at: {made.why_fixed}.", style="dim"))
    if verdict.larger_card is not None:
        larger = f"--gpu {verdict.larger_card.key}, the smallest card that takes it"
        lines.append(Text(f"It fits with {larger}."))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(max_width=min(width, PROSE_WIDTH) - 2, overflow="fold")
    mark, style = verdict_mark(verdict, marks)
    for line in lines:
        grid.add_row(Text(mark, style=style), line)
        mark = ""
    return grid


def _fits(made: ScriptPlan, verdict: Verdict) -> str:
    found = made.found
    assert found.gpu is not None
    subject = f"Batch {verdict.batch_size:,}" if made.script.has_knob else "It"
    total, usable = verdict.total_bytes, found.gpu.usable_bytes
    if not verdict.fits:
        missing = f", {format_bytes(verdict.missing_bytes)} more than the card has"
        more = missing if verdict.missing_bytes else ", and the rest of the card is in pieces"
        return f"{subject} does not fit: it needs {format_bytes(total)}{more}."
    if verdict.missing_bytes:
        barely = "fits, barely" if verdict.is_tight else "fits"
        return (
            f"{subject} {barely}: without a limit it would take {format_bytes(total)}, so the "
            "allocator gives cached memory back on the way."
        )
    share = f"{total / usable:.0%}".replace("%", " %")
    return f"{subject} fits: it needs {format_bytes(total)} of {format_bytes(usable)} ({share})."


def _proof(made: ScriptPlan, proof: Proof) -> Iterator[str]:
    """PyTorch's own words."""
    answer = proof.answer
    if not proof.fits:
        step = len(answer.steps) + 1
        place = answer.place or next(iter(answer.denied), "")
        at = f" at {place}" if place else ""
        yield f"PyTorch itself ran out of the card's memory in step {step}{at}."
        message = answer.message.split(" Of the allocated memory")[0].split(". If reserved")[0]
        if message:
            yield message
        return
    yield f"PyTorch itself ran {_steps(len(answer.steps))} of it within the card's memory."
    takes, needs = answer.peak_reserved_bytes, made.found.at.peak_reserved_bytes
    if made.script.first.is_benchmarked and takes > needs:
        context = made.found.at.total_bytes - needs
        yield (
            f"It takes {format_bytes(takes + context)} because there is room: cudnn.benchmark, "
            "which the script turns on, tries plans with larger workspaces."
        )


def _steps(number: int) -> str:
    return f"{number:,} step" if number == 1 else f"{number:,} steps"


def _cards(made: ScriptPlan) -> RenderableType | None:
    if not made.found.cards:
        return Text("No card was named: --gpu NAME says whether it fits.", style="dim")
    title = heading("Batches that fit (no card was named: --gpu NAME)")
    return Group(title, card_fits_table(made.found.cards))


# -- what ran --------------------------------------------------------------------------------------


def _passes(made: ScriptPlan) -> Iterator[str]:
    """The steps and the evaluations of the run that is shown."""
    answer = made.script.answer(made.found.micro_batch)
    most = answer.peak_allocated_bytes
    steps = max((step.allocated_bytes for step in answer.steps), default=0)
    peak = " (the peak)"
    yield (
        f"{_steps(len(answer.steps))}: at most {format_bytes(steps)} allocated"
        f"{peak if steps == most else ''}"
    )
    counted, replayed = answer.peak_reserved_bytes, made.found.at.peak_reserved_bytes
    if counted != replayed:
        yield (
            f"PyTorch itself reserved {format_bytes(counted)} without a limit, the table above has "
            f"{format_bytes(replayed)}: it emptied its cache on the way, or used several streams"
        )
    for row in answer.evaluations:
        yield f"{_evaluation(row)}{peak if row.allocated_bytes == most > steps else ''}"


def _evaluation(row: Evaluation) -> str:
    when = {"before": "before the first step", "between": "between steps"}
    passes = "forward pass" if row.forwards == 1 else "forward passes"
    return (
        f"evaluation {when.get(row.when, 'after the last step')} at {row.place or 'its loop'}: "
        f"{row.forwards:,} {passes}, at most {format_bytes(row.allocated_bytes)} allocated"
    )


def _values(values: tuple[Decided, ...]) -> Iterator[str]:
    """Sizes first, then what was made up."""
    order = sorted(values, key=lambda row: (row.what != "size", not row.is_made_up))
    for row in order[:_MOST_VALUES]:
        word = "made up" if row.is_made_up else "computed"
        often = f", {row.count:,} times" if row.count > 1 else ""
        yield f"{row.place or row.operator}: a {row.what}, {word} ({row.value}){often}"
    if len(values) > _MOST_VALUES:
        yield f"and {len(values) - _MOST_VALUES:,} more places (--json lists them)"


def _kept(kept: tuple[Kept, ...]) -> Iterator[str]:
    for row in kept[:_MOST_FILES]:
        yield f"{row.path}: " + (
            "was to be deleted" if row.is_deleted else format_bytes(row.size_bytes)
        )
    if len(kept) > _MOST_FILES:
        yield f"and {len(kept) - _MOST_FILES:,} more files"
