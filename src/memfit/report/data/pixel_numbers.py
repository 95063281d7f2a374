"""The numbers to normalise with, ready to paste, and histograms of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.data.facts.inspection import Inspection
from memfit.data.facts.statistics import PixelStatistics
from memfit.report.console.terminal import ASCII, Marks, heading
from memfit.report.data.words import list_text, trained_on

__all__ = ["pixel_numbers", "sparkline"]

_ASCII_LEVELS = ".:-=+*#"
#: A column of a sparkline is cut at this many times the median column.
_TALLEST = 4.0
_CHANNELS = {
    1: (("grey", "bright_black"),),
    3: (("red", "red"), ("green", "green"), ("blue", "blue")),
}


def pixel_numbers(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    """Mean and standard deviation to paste, and how values spread; None without any pixels."""
    statistics = inspection.statistics
    if statistics is None:
        return None
    about = f"all {statistics.pixels:,} pixels of {trained_on(inspection)}, scaled to 0..1"
    mean, std = (list_text(values) for values in (statistics.mean, statistics.std))
    code = f"v2.Normalize(mean={mean}, std={std})"
    if len(code) > width - 4:
        code = f"v2.Normalize(\n    mean={mean},\n    std={std},\n)"
    return Group(
        heading("Normalise with").append(f"  {about}", style="not bold dim"),
        Text("  PyTorch, after v2.ToDtype(torch.float32, scale=True)", style="dim"),
        Padding(Text(code, style="cyan", no_wrap=True), (0, 0, 0, 4)),
        Text("  recipe", style="dim"),
        Padding(Text(f"mean = {mean}\nstd = {std}", style="cyan", no_wrap=True), (0, 0, 0, 4)),
        "",
        _histograms(statistics, width, marks),
    )


def _histograms(statistics: PixelStatistics, width: int, marks: Marks) -> RenderableType:
    columns = max(16, min(64, width - 32))
    grid = Table.grid(padding=(0, 2, 0, 0))
    spread = "±" if marks is not ASCII else "+-"
    channels = _CHANNELS[len(statistics.mean)]
    for k, (name, colour) in enumerate(channels):
        numbers = f"{statistics.mean[k]:.4f} {spread} {statistics.std[k]:.4f}"
        line = sparkline(statistics.histograms[k], columns, marks)
        grid.add_row(f"  {name}", numbers, Text(line, style=colour, no_wrap=True))
    scale = "0" + "value of a pixel".center(columns - 4) + "255"
    grid.add_row("", "", Text(scale, style="dim", no_wrap=True))
    return grid


def sparkline(counts: Sequence[int], width: int, marks: Marks) -> str:
    """Counts as columns; square roots, cut at four times the median, so that rare values show.

    Args:
        counts: the mean of neighbours is drawn where there are more than columns.
        width: columns at most.
        marks: the characters to draw with.
    """
    width = min(width, len(counts))
    edges = [len(counts) * column // width for column in range(width + 1)]
    means = [sum(counts[a:b]) / (b - a) for a, b in pairwise(edges)]
    occurring = sorted(mean for mean in means if mean)
    if not occurring:
        return " " * width
    top = min(occurring[-1], _TALLEST * occurring[len(occurring) // 2])
    levels = _ASCII_LEVELS if marks is ASCII else marks.column
    return "".join(_level(mean / top, levels) for mean in means)


def _level(share: float, levels: str) -> str:
    if share <= 0:
        return " "
    return levels[max(0, round(min(1.0, share) ** 0.5 * len(levels)) - 1)]
