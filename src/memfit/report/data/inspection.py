"""An inspection as text: whether the images are sound, the numbers to use, then the details."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from memfit.data.facts.inspection import Inspection
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, marks_of, shorten, spaced
from memfit.report.data.asked import task_line
from memfit.report.data.class_counts import class_table
from memfit.report.data.facts import cost, delivered, what_they_are
from memfit.report.data.pixel_numbers import pixel_numbers
from memfit.report.data.problems import duplicates, hazards, problems, unreadable
from memfit.report.data.words import grid_of, number, size_text, trained_on
from memfit.units import format_bytes

__all__ = ["render_inspection"]

#: Largest over smallest class: up to here classes count as balanced, or nearly.
_NEARLY_BALANCED = 1.5


def render_inspection(
    inspection: Inspection,
    console: Console,
    *,
    batch_size: int = 64,
    preview: RenderableType | None = None,
    memory_bytes: int | None = None,
) -> Group:
    """Everything about a source of images for a console's width and characters.

    Args:
        inspection: what was found.
        console: where it will be printed.
        batch_size: of the batch whose bytes are shown.
        preview: pictures of some samples; None to leave them out.
        memory_bytes: of this machine; None when unknown.
    """
    width, marks = console.width, marks_of(console)
    sections = [
        _header(inspection, marks),
        _answer(inspection, width, marks),
        pixel_numbers(inspection, width, marks),
        preview,
        what_they_are(inspection, width, marks),
        class_table(inspection, width, marks),
        delivered(inspection, batch_size, marks),
        cost(inspection, batch_size, memory_bytes),
        duplicates(inspection, width, marks),
        hazards(inspection.hazards, width, marks),
        unreadable(inspection, width, marks),
        problems(inspection, width, marks),
    ]
    return spaced(sections)


# -- the answer ------------------------------------------------------------------------------------


def _header(inspection: Inspection, marks: Marks) -> RenderableType:
    facts = [number(inspection.overall.images, "image", "images")]
    if inspection.classes:
        one, many = {"masks": ("mask value", "mask values"), "labels": ("label", "labels")}.get(
            inspection.task.name or "", ("class", "classes")
        )
        facts.append(number(len(inspection.classes), one, many))
    if len(inspection.splits) > 1:
        facts.append(", ".join(f"{split.name} {split.images:,}" for split in inspection.splits))
    if inspection.bytes_on_disk:
        facts.append(f"{format_bytes(inspection.bytes_on_disk)} on disk")
    title = Text(clean(inspection.name), style="bold")
    title.append(f"  {inspection.layout}", style="not bold dim")
    return Group(title, Text(f" {marks.dot} ".join(facts), style="dim"))


def _answer(inspection: Inspection, width: int, marks: Marks) -> RenderableType:
    good, bad = (marks.yes, "green"), (marks.maybe, "bold yellow")
    grid = grid_of(width)
    for is_good, line in _verdicts(inspection, marks):
        mark, style = good if is_good else bad
        if not inspection.overall.readable:
            mark, style = marks.no, "bold red"
        grid.add_row(Text(mark, style=style), line)
    return grid


def _verdicts(inspection: Inspection, marks: Marks) -> Iterator[tuple[bool, Text]]:
    """The few things one wants to know, and whether each is as it should be."""
    overall = inspection.overall
    if not overall.readable:
        yield False, Text(f"None of {overall.images:,} images can be read.", style="bold")
        return
    yield _readable(inspection, marks)
    if inspection.task.reason or inspection.task.name in ("masks", "values", "labels"):
        yield True, Text(task_line(inspection))
    if overall.readable > 1:
        yield _twice(inspection)
    balance = _balance(inspection, marks)
    if balance is not None:
        yield balance
    if overall.unlabelled:
        yield False, Text(f"{number(overall.unlabelled, 'image has', 'images have')} no label.")
    if inspection.hazards:
        kinds = len(inspection.hazards)
        words = "1 warning" if kinds == 1 else f"{kinds} warnings"
        yield False, Text(f"{words}, below: what the usual loaders would do to these images.")
    if inspection.problems:
        count = len(inspection.problems)
        yield False, Text(f"{number(count, 'problem', 'problems')} with the source, below.")


def _readable(inspection: Inspection, marks: Marks) -> tuple[bool, Text]:
    overall = inspection.overall
    kinds = {1: "grey", 3: "colour"}
    words = " and ".join(kinds[channels] for channels in sorted(overall.channels, reverse=True))
    sizes = overall.sizes
    size = "of different sizes"
    if sizes is not None and not sizes.vary:
        size = size_text(sizes.median, marks)
    what = f"{words.capitalize()}, {size}"
    missing = overall.images - overall.readable
    if missing:
        return False, Text.assemble(
            (f"{missing:,} of {overall.images:,} images cannot be read, ", "bold"),
            f"listed below. The others: {words}, {size}.",
        )
    every = "; every image can be read."
    if inspection.problems:
        every = f"; all {overall.images:,} images that were found can be read."
    return True, Text.assemble((what, "bold"), every)


def _twice(inspection: Inspection) -> tuple[bool, Text]:
    found, parts = inspection.duplicates, []
    for leak in found.leaks:
        parts.append(
            f"{number(leak.count, 'image', 'images')} of {leak.split} also in {leak.known_from}"
        )
    copies = sum(found.copies.values())
    if copies:
        parts.append(f"{number(copies, 'repeats', 'repeat')} an image of the same split")
    if found.mislabelled_groups:
        pictures = number(found.mislabelled_groups, "picture has", "pictures have")
        parts.append(f"{pictures} several labels")
    if parts:
        return False, Text(f"Exact duplicates: {'; '.join(parts)}.")
    splits = " or in two splits" if len(inspection.splits) > 1 else ""
    return True, Text(f"No image is there twice{splits}.")


def _balance(inspection: Inspection, marks: Marks) -> tuple[bool, Text] | None:
    balance = inspection.imbalance
    if balance is None:
        return None
    largest, smallest = (
        shorten(clean(name), 28, marks) for name in (balance.largest, balance.smallest)
    )
    if balance.ratio is None:
        return False, Text(f"Class {smallest} has no image in {trained_on(inspection)}.")
    if balance.ratio == 1:
        return True, Text(
            f"Classes are balanced: {number(balance.largest_count, 'image', 'images')} each."
        )
    between = (
        f"from {balance.smallest_count:,} ({smallest}) to {balance.largest_count:,} ({largest})"
    )
    if balance.ratio <= _NEARLY_BALANCED:
        return True, Text(f"Classes are nearly balanced: {between}.")
    return False, Text(f"The largest class is {balance.ratio:,.1f} times the smallest: {between}.")
