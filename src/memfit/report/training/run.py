"""What came of a run: accuracy, where the weights are, and memory beside the plan."""

from __future__ import annotations

from shlex import quote
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.memory.tape.parts import PARTS
from memfit.report.console.terminal import heading, marks_of
from memfit.trainer.run.run import RunResult
from memfit.trainer.step.evaluation import Evaluation
from memfit.units import format_bytes

__all__ = ["render_evaluation", "render_predictions", "render_run"]


def render_run(result: RunResult, console: Console) -> Group:
    """A run that has ended."""
    marks = marks_of(console)
    lines: list[RenderableType] = []
    if result.status == "stopped":
        lines.append(Text(f"{marks.maybe} Stopped after step {result.step:,}; nothing is lost."))
        lines.append(Text(f"  {_resume_command(result)}"))
        return Group(*lines)
    text = f"{marks.yes} Trained {result.step:,} steps"
    if result.evaluation is not None:
        text += f": test accuracy {result.evaluation.accuracy:.2%}"
        best = result.summary["best_accuracy"]
        if best is not None and best > result.evaluation.accuracy:
            text += f" (best {best:.2%})"
    lines.append(Text(text, style="bold"))
    which = "last" if result.summary["best_accuracy"] is None else "best"
    lines.append(Text(f"  weights   {result.path}/checkpoints/{which}.pt"))
    lines.append(Text(f"  use them  memfit predict {quote(str(result.path))} IMAGE"))
    if (skipped := result.summary["skipped_images"]) > 0:
        were = "image was" if skipped == 1 else "images were"
        lines.append(Text(f"  {skipped} {were} left out: {result.path}/skipped.txt"))
    measured = result.summary["memory"]["measured"]
    if measured is not None and "limit_bytes" in measured:
        peak, limit = (format_bytes(measured[f"{n}_bytes"]) for n in ("reserved", "limit"))
        lines.append(Text(f"  memory    {peak} of the virtual budget's {limit} at the peak"))
    elif measured is not None:
        lines += ["", _memory(result.summary)]
    return Group(*lines)


def _resume_command(result: RunResult) -> str:
    """What goes on with the run, on as many processes and with the same limit."""
    launched = result.summary["launched"]
    program = "memfit"
    if launched["world_size"] > 1:
        program = f"torchrun --nproc-per-node {launched['world_size']} -m memfit"
    limit = launched["memory_bytes"]
    memory = "" if limit is None else f" --memory {limit}"
    return f"{program} train --resume {quote(str(result.path))}{memory}"


def _memory(summary: dict[str, Any]) -> RenderableType:
    predicted, measured = summary["memory"]["predicted"], summary["memory"]["measured"]
    table = Table(box=None, padding=(0, 2, 0, 0), title=None)
    table.add_column(f"Memory at micro-batch {summary['largest_micro_batch']}")
    for name in ("predicted", "measured", "difference"):
        table.add_column(name, justify="right")
    rows = [("peak allocated", "allocated_bytes"), ("peak reserved", "reserved_bytes")]
    for label, key in rows:
        table.add_row(label, *_compared(predicted[key], measured[key]))
    for key, look in PARTS.items():
        found = measured.get("parts", {})
        if key in found and (predicted["parts"].get(key) or found[key]):
            table.add_row(f"  {look.name}", *_compared(predicted["parts"][key], found[key]))
    return table


def _compared(predicted: int, measured: int) -> tuple[str, str, str]:
    difference = f"{(predicted - measured) / measured:+.1%}" if measured else ""
    return format_bytes(predicted), format_bytes(measured), difference


def render_evaluation(found: Evaluation, name: str, console: Console) -> Group:
    """Accuracy as a whole and for each class."""
    marks = marks_of(console)
    table = Table.grid(padding=(0, 2))
    width = max(10, min(40, console.width - 40))
    for label, share in found.per_class.items():
        if share is None:
            table.add_row(f"  {label}", "no samples", "")
            continue
        table.add_row(f"  {label}", f"{share:.1%}", marks.bar[-1] * round(share * width))
    top = Text(f"{name}: accuracy {found.accuracy:.2%} on {found.samples:,} images", style="bold")
    return Group(top, f"mean loss {found.loss:.4f}", "", heading("Accuracy by class"), table)


def render_predictions(
    predictions: list[tuple[str, list[tuple[str, float]]]], console: Console
) -> Group:
    """The likeliest classes of each image."""
    marks = marks_of(console)
    table = Table.grid(padding=(0, 2))
    for name, answers in predictions:
        for rank, (label, share) in enumerate(answers):
            bar = marks.bar[-1] * round(share * 20)
            table.add_row(name if rank == 0 else "", label, f"{share:.1%}", bar)
    return Group(table)
