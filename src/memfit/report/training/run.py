"""What came of a run: accuracy, where the weights are, and memory beside the plan."""

from __future__ import annotations

from shlex import quote

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.recipe.fields import Task
from memfit.report.console.terminal import heading, marks_of
from memfit.report.training.words import split_word
from memfit.trainer.run.summary import RunResult, RunSummary
from memfit.trainer.step.devices import MemoryPeaks
from memfit.trainer.step.evaluation import Evaluation
from memfit.units import format_bytes

__all__ = ["render_evaluation", "render_predictions", "render_run"]


def render_run(result: RunResult, console: Console) -> Group:
    """A run that has ended."""
    marks, summary = marks_of(console), result.summary
    lines: list[RenderableType] = []
    if result.status == "stopped":
        lines.append(Text(f"{marks.maybe} Stopped after step {result.step:,}; nothing is lost."))
        lines.append(Text(f"  {_resume_command(result)}"))
        return Group(*lines)
    text = f"{marks.yes} Trained {result.step:,} steps"
    if (found := result.evaluation) is not None:
        text += f": {split_word(found.split)} {found.facts.shown(found.score)}"
        best = summary.best_score
        if best is not None and found.facts.is_better(best, found.score):
            text += f" (best {found.facts.shown_alone(best)})"
    lines.append(Text(text, style="bold"))
    if result.test is not None:
        found, which = result.test, "last" if summary.best_score is None else "best"
        samples = f"{found.samples:,} images, looked at once, with the {which} weights"
        score = found.facts.shown(found.score)
        lines.append(Text(f"  test      {score} ({samples})", style="bold"))
    which = "last" if summary.best_score is None else "best"
    lines.append(Text(f"  weights   {result.path}/checkpoints/{which}.pt"))
    lines.append(Text(f"  use them  memfit predict {quote(str(result.path))} IMAGE"))
    if (skipped := summary.skipped_images) > 0:
        were = "image was" if skipped == 1 else "images were"
        lines.append(Text(f"  {skipped} {were} left out: {result.path}/skipped.txt"))
    measured = summary.measured
    if measured is not None and measured.limit_bytes is not None:
        peak, limit = format_bytes(measured.reserved_bytes), format_bytes(measured.limit_bytes)
        lines.append(Text(f"  memory    {peak} of the virtual budget's {limit} at the peak"))
    elif measured is not None:
        lines += ["", _memory(summary, measured)]
    return Group(*lines)


def _resume_command(result: RunResult) -> str:
    """What goes on with the run, on as many processes and with the same limit."""
    ranks, limit = result.summary.world_size, result.summary.memory_bytes
    program = f"torchrun --nproc-per-node {ranks} -m memfit" if ranks > 1 else "memfit"
    memory = "" if limit is None else f" --memory {limit}"
    return f"{program} train --resume {quote(str(result.path))}{memory}"


def _memory(summary: RunSummary, measured: MemoryPeaks) -> RenderableType:
    predicted = summary.predicted
    table = Table(box=None, padding=(0, 2, 0, 0), title=None)
    table.add_column(f"Memory at micro-batch {summary.largest_micro_batch}")
    for name in ("predicted", "measured", "difference"):
        table.add_column(name, justify="right")
    allocated = _compared(predicted.allocated_bytes, measured.allocated_bytes)
    table.add_row("peak allocated", *allocated)
    table.add_row("peak reserved", *_compared(predicted.reserved_bytes, measured.reserved_bytes))
    return table


def _compared(predicted: int, measured: int) -> tuple[str, str, str]:
    difference = f"{(predicted - measured) / measured:+.1%}" if measured else ""
    return format_bytes(predicted), format_bytes(measured), difference


def render_evaluation(found: Evaluation, name: str, console: Console) -> Group:
    """The score as a whole, and of each class, value or label."""
    marks = marks_of(console)
    table = Table.grid(padding=(0, 2))
    facts = found.facts
    width = max(10, min(40, console.width - 40))
    for label, share in found.per_class.items():
        if share is None:
            table.add_row(f"  {label}", "no samples", "")
            continue
        bar = marks.bar[-1] * round(share * width) if facts.is_share else ""
        table.add_row(f"  {label}", f"{share:.1%}" if facts.is_share else f"{share:.4g}", bar)
    images = f"{found.samples:,} {split_word(found.split)} images"
    top = Text(f"{name}: {facts.shown(found.score)} on {images}", style="bold")
    pixels = ""
    if found.task == "masks" and found.accuracy is not None:
        pixels = f", {found.accuracy:.2%} of the pixels right"
    return Group(top, f"mean loss {found.loss:.4f}{pixels}", "", heading(facts.parts), table)


def render_predictions(
    predictions: list[tuple[str, list[tuple[str, float]]]], console: Console, task: Task = "classes"
) -> Group:
    """The likeliest classes or labels of each image, or its values."""
    marks = marks_of(console)
    table = Table.grid(padding=(0, 2))
    for name, answers in predictions:
        for rank, (label, share) in enumerate(answers):
            first = name if rank == 0 else ""
            if task == "values":
                table.add_row(first, label, f"{share:.4g}")
            else:
                bar = marks.bar[-1] * round(share * 20)
                table.add_row(first, label, f"{share:.1%}", bar)
    return Group(table)
