"""What is wrong with images: duplicates, hazards, files that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.data.facts.duplicates import DuplicateGroup
from memfit.data.facts.hazards import Hazard
from memfit.data.facts.inspection import Inspection
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, heading, shorten
from memfit.report.data.words import grid_of

__all__ = ["duplicates", "hazards", "problems", "unreadable"]

#: Lists in the terminal stop here; JSON has all.
_LISTED = 10
_GROUPS_SHOWN = 3


def duplicates(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    """The first groups of equal images; None without any."""
    found = inspection.duplicates
    if not found:
        return None
    grid = grid_of(width, indent=2)
    for kind, groups in (
        ("in two splits", found.leaked_examples),
        ("several labels", found.mislabelled_examples),
        ("copies", found.copied_examples),
    ):
        for row, group in enumerate(groups[:_GROUPS_SHOWN]):
            label = kind if row == 0 else ""
            grid.add_row(
                Text(f"  {label}", style="dim"), Text(_group(group, inspection.classes, marks))
            )
    return Group(heading("Exact duplicates"), grid)


def _group(group: DuplicateGroup, classes: Sequence[str], marks: Marks) -> str:
    names = [shorten(clean(name), 40, marks) for name in group.names]
    if len(set(group.names)) == 1:
        return f"{names[0]} is listed {group.count:,} times"
    if len(set(group.labels)) > 1:
        labels = (
            shorten(clean(classes[n]), 20, marks) if 0 <= n < len(classes) else "none"
            for n in group.labels
        )
        names = [f"{name} ({label})" for name, label in zip(names, labels, strict=True)]
    more = group.count - len(names)
    return " = ".join(names) + (f" and {more:,} more" if more else "")


def hazards(found: Sequence[Hazard], width: int, marks: Marks) -> RenderableType | None:
    """What the usual loaders would ruin; None when nothing."""
    if not found:
        return None
    grid = grid_of(width)
    for hazard in found:
        kind = hazard.kind[0].upper() + hazard.kind[1:]
        title = Text.assemble((f"{kind}: {hazard.count:,}", "bold"))
        if hazard.example:
            title.append(f"  {shorten(clean(hazard.example), 48, marks)}", style="dim")
        grid.add_row(Text(marks.maybe, style="bold yellow"), title)
        grid.add_row("", Text.assemble(("usually  ", "dim"), hazard.usually))
        grid.add_row("", Text.assemble(("memfit   ", "dim"), hazard.here))
    return Group(heading("Warnings"), grid)


def unreadable(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    """Files that cannot be read, with reasons; None without any."""
    files = inspection.overall.unreadable
    if not files:
        return None
    rows = [
        (file.name, file.reason + (f" ({file.rows:,} rows)" if file.rows > 1 else ""))
        for file in files
    ]
    return _listed(f"Cannot be read: {len(files):,}", rows, width, marks)


def problems(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    """What is wrong with the source as a whole; None when nothing."""
    if not inspection.problems:
        return None
    rows = [(problem.name, problem.reason) for problem in inspection.problems]
    return _listed("Problems with the source", rows, width, marks)


def _listed(
    title: str, rows: Sequence[tuple[str, str]], width: int, marks: Marks
) -> RenderableType:
    room = max(20, min(60, width // 2))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, reason in rows[:_LISTED]:
        grid.add_row(f"  {shorten(clean(name), room, marks)}", clean(reason))
    lines: list[RenderableType] = [heading(title), grid]
    if len(rows) > _LISTED:
        lines.append(Text(f"  and {len(rows) - _LISTED:,} more; --json lists all", style="dim"))
    return Group(*lines)
