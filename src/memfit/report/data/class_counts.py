"""How many images each class has, as bars."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memfit.data.facts.inspection import Inspection
from memfit.data.facts.split_facts import SplitFacts
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, bar, heading, shorten

__all__ = ["class_table"]

#: More classes than this are shown by their largest and smallest.
_SHOWN, _LARGEST, _SMALLEST = 20, 10, 5
_SPLITS = 3


def class_table(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    """Classes with their counts in each split, and a bar for the split to train on.

    None without labels.
    """
    splits = [split for split in inspection.splits if split.class_counts is not None][:_SPLITS]
    if not inspection.classes or not splits:
        return None
    train = next((s for s in splits if s.name == inspection.statistics_of), splits[0])
    chosen = _chosen(train)
    room = max(8, min(28, width - 12 * len(splits) - 14))
    names = [shorten(clean(inspection.classes[n]), room, marks) for n in chosen if n is not None]
    bar_width = max(8, min(32, width - max(map(len, names)) - 11 * len(splits) - 4))
    top = max(_counts(train)) or 1
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for _ in splits:
        table.add_column(justify="right", no_wrap=True, min_width=7)
    table.add_row(heading("Classes"), *(Text(split.name, style="dim") for split in splits))
    for number in chosen:
        if number is None:
            between = len(inspection.classes) - _LARGEST - _SMALLEST
            table.add_row(Text(f"  {marks.ellipsis} {between:,} between", style="dim"))
            continue
        name = shorten(clean(inspection.classes[number]), room, marks)
        numbers = [_number(_counts(split)[number]) for split in splits]
        drawn = bar(_counts(train)[number] / top, bar_width, marks)
        table.add_row(f"  {name}", *numbers, Text(drawn, style="cyan"))
    return table


def _counts(split: SplitFacts) -> tuple[int, ...]:
    assert split.class_counts is not None
    return split.class_counts


def _chosen(train: SplitFacts) -> list[int | None]:
    """Class numbers to show; None where some are left out."""
    counts = _counts(train)
    if len(counts) <= _SHOWN:
        return list(range(len(counts)))
    by_size = sorted(range(len(counts)), key=lambda number: (-counts[number], number))
    return [*by_size[:_LARGEST], None, *by_size[-_SMALLEST:]]


def _number(count: int) -> Text:
    return Text(f"{count:,}", style="" if count else "bold yellow")
