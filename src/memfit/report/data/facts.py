"""What the images are, what the loader delivers, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.data.facts.inspection import Inspection
from memfit.data.facts.tally import Sizes
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, heading
from memfit.report.data.pixel_numbers import sparkline
from memfit.report.data.words import (
    counts_line,
    found_line,
    grid_of,
    shape_text,
    size_text,
    trained_on,
)
from memfit.units import format_bytes

__all__ = ["cost", "delivered", "what_they_are"]


def what_they_are(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    """Colour, modes, sizes, formats; None when nothing is readable."""
    if not inspection.overall.readable:
        return None
    grid = grid_of(width, indent=2)
    for name, value in _facts(inspection, marks):
        grid.add_row(Text(f"  {name}", style="dim"), value)
    return Group(heading("What they are"), grid)


def _facts(inspection: Inspection, marks: Marks) -> Iterator[tuple[str, Text]]:
    overall, dot = inspection.overall, f" {marks.dot} "
    yield "colour", _colour(inspection)
    yield "modes", Text(counts_line(overall.modes, dot))
    yield "depth", Text(counts_line({f"{bits} bit": n for bits, n in overall.bits.items()}, dot))
    assert overall.sizes is not None
    for name, line in _sizes(overall.sizes, marks):
        yield name, line
    yield "formats", Text(counts_line(overall.formats, dot))
    if overall.profiles:
        profiles = {clean(name): count for name, count in overall.profiles.items()}
        yield "profiles", Text(counts_line(profiles, dot, every=True))
    if overall.orientations:
        turned = {f"EXIF {n}": count for n, count in overall.orientations.items()}
        yield "turned", Text(counts_line(turned, dot, every=True))
    for name, trait in (
        ("animated", "animated"), ("see-through", "transparent"), ("misnamed", "extension"),
    ):  # fmt: skip
        found = {str(key): value for key, value in overall.found.items()}.get(trait)
        if found is not None:
            yield name, Text(found_line(found, marks))


def _colour(inspection: Inspection) -> Text:
    overall = inspection.overall
    grey, colour = overall.channels.get(1, 0), overall.channels.get(3, 0)
    parts = [f"{colour:,} in colour"] * bool(colour) + [f"{grey:,} grey"] * bool(grey)
    same = overall.found.get("grey as colour")
    if same is not None:
        parts[0] += f" ({same.count:,} of them hold only grey pixels)"
    return Text(", ".join(parts))


def _sizes(sizes: Sizes, marks: Marks) -> Iterator[tuple[str, Text]]:
    if not sizes.vary:
        yield "size", Text(size_text(sizes.median, marks))
        return
    ends = f"{size_text(sizes.smallest, marks)} to {size_text(sizes.largest, marks)}"
    yield (
        "sizes",
        Text(f"{ends}, median {size_text(sizes.median, marks)}, {sizes.distinct:,} different"),
    )
    common = {size_text((s.width, s.height), marks): s.count for s in sizes.common[:4]}
    yield "", Text(f"most common: {counts_line(common, f' {marks.dot} ', every=True)}")
    bins = [bin_.count for bin_ in sizes.histogram]
    line = Text(f"longer side {sizes.histogram[0].low} ")
    line.append(sparkline(bins, len(bins), marks), style="cyan")
    yield "", line.append(f" {sizes.histogram[-1].high}")
    if sizes.outliers.count:
        yield "outliers", Text(f"{found_line(sizes.outliers, marks)}: {sizes.outlier_rule}")


def delivered(inspection: Inspection, batch_size: int, marks: Marks) -> RenderableType | None:
    """Shapes, types and ranges of a sample and a batch; None when nothing is readable.

    Args:
        inspection: what was found.
        batch_size: of the batch shown.
        marks: the characters to draw with.
    """
    sample, statistics = inspection.delivered, inspection.statistics
    if sample is None:
        return None
    shape = shape_text(sample.shape)
    batch = shape_text((batch_size, *sample.batch_shape))
    before = after = ""
    if statistics is not None:
        before = f"{statistics.lowest}..{statistics.highest}"
        ends = statistics.normalised_range
        after = f"{ends[0]:.2f}..{ends[1]:.2f}" if ends else "a channel is constant"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("  sample", shape, "uint8", before)
    table.add_row("  normalised", shape, "float32", after)
    table.add_row("  batch", batch, "float32", f"and {batch_size:,} {_target_words(inspection)}")
    lines: list[RenderableType] = [heading("What the loader delivers (C, H, W)"), table]
    if sample.height is None:
        note = (
            f"Sizes vary: the recipe's input_shape decides; here {marks.times.join(['224'] * 2)}."
        )
        lines.append(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    return Group(*lines)


def _target_words(inspection: Inspection) -> str:
    """What comes with each image."""
    name = inspection.task.name
    return name if name in ("masks", "values") else "labels"


def cost(
    inspection: Inspection, batch_size: int, memory_bytes: int | None
) -> RenderableType | None:
    """Bytes of an image and of a batch; None when nothing is readable.

    Args:
        inspection: what was found.
        batch_size: of the batch shown.
        memory_bytes: of this machine; None when unknown.
    """
    bytes_of = inspection.cost
    if bytes_of is None:
        return None
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row(
        heading("What it costs"), Text("one image", "dim"), Text(f"batch of {batch_size:,}", "dim")
    )
    stored = (("on disk", bytes_of.on_disk_bytes), ("decoded, uint8", bytes_of.decoded_bytes))
    for name, mean in stored:
        if mean is not None:
            sizes = (round(mean), round(mean * batch_size))
            table.add_row(f"  {name}", *map(format_bytes, sizes))
    for name, half in (("float32", False), ("half", True)):
        sizes = (bytes_of.inputs_bytes(1, half=half), bytes_of.inputs_bytes(batch_size, half=half))
        table.add_row(f"  {name}", *map(format_bytes, sizes))
    inputs, labels = bytes_of.inputs_bytes(batch_size), bytes_of.labels_bytes(batch_size)
    batch = Text("  Data batch", style="bold")
    target = _target_words(inspection)
    batch.append(f": {inputs:,} + {target} {labels:,} = {inputs + labels:,} bytes", "not bold")
    resized = ", at 224x224" if bytes_of.is_resized else ""
    train = _in_memory(bytes_of.train_bytes, memory_bytes)
    return Group(
        table,
        batch,
        Text(f"  (the third part of memfit plan{resized})", style="dim"),
        Padding(Text(f"All of {trained_on(inspection)}, decoded: {train}"), (0, 0, 0, 2)),
    )


def _in_memory(train_bytes: int, memory_bytes: int | None) -> str:
    size = format_bytes(train_bytes)
    if memory_bytes is None:
        return size
    fits = "fits in" if train_bytes < memory_bytes // 2 else "too much for"
    return f"{size}, {fits} this machine's {format_bytes(memory_bytes)}"
