"""The words and small tables that the reports about data share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from memfit.data.facts.inspection import Inspection
from memfit.data.facts.tally import Found
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, shorten

__all__ = [
    "counts_line", "found_line", "grid_of", "list_text", "number", "shape_text",
    "size_text", "trained_on",
]  # fmt: skip

#: Longer lines are hard to read, whatever the terminal's width.
_PROSE_WIDTH = 96


def grid_of(width: int, indent: int = 0) -> Table:
    """A narrow column and one that wraps under itself."""
    grid = Table.grid(padding=(0, 2 if indent else 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", max_width=min(width, _PROSE_WIDTH) - 4)
    return grid


def trained_on(inspection: Inspection) -> str:
    """The split that the numbers are of, in words."""
    name = inspection.statistics_of
    return "the set" if name == "all" else name


def number(count: int, one: str, many: str) -> str:
    """A count with its noun."""
    return f"{count:,} {one if count == 1 else many}"


def counts_line(counts: Mapping[str, int], between: str, *, every: bool = False) -> str:
    """Names with counts; a name alone when it is the only one."""
    if len(counts) == 1 and not every:
        return next(iter(counts))
    return between.join(f"{name}: {count:,}" for name, count in counts.items())


def found_line(found: Found, marks: Marks) -> str:
    """A count with the first few names."""
    names = ", ".join(shorten(clean(name), 40, marks) for name in found.examples)
    more = f"{marks.ellipsis}" if found.count > len(found.examples) else ""
    return f"{found.count:,} ({names}{', ' + more if more else ''})"


def size_text(size: tuple[int, int], marks: Marks) -> str:
    """Width and height."""
    return f"{size[0]}{marks.times}{size[1]}"


def shape_text(sizes: Sequence[int | None]) -> str:
    """A shape as Python writes it; a size that varies is its letter: ``(3, H, W)``."""
    letters = dict(zip(range(-1, -4, -1), ("W", "H", "C"), strict=True))
    named = [letters[k - len(sizes)] if n is None else str(n) for k, n in enumerate(sizes)]
    return f"({', '.join(named)})"


def list_text(values: Sequence[float]) -> str:
    """Numbers to paste, with four digits."""
    return f"[{', '.join(f'{value:.4f}' for value in values)}]"
