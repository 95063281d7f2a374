"""An inspection as text: whether the images are sound, the numbers to use, then the details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.data.duplicates import DuplicateGroup
from memfit.data.hazards import Hazard
from memfit.data.inspection import Inspection
from memfit.data.statistics import PixelStatistics
from memfit.data.tally import Found, Sizes
from memfit.report.class_counts import class_table
from memfit.report.names import clean
from memfit.report.terminal import ASCII, Marks, heading, marks_of, shorten
from memfit.units import format_bytes

__all__ = ["render_inspection", "sparkline"]

#: Longer lines are hard to read, whatever the terminal's width.
_PROSE_WIDTH = 96
#: Lists in the terminal stop here; JSON has all.
_LISTED = 10
_GROUPS_SHOWN = 3
#: Largest over smallest class: up to here classes count as balanced, or nearly.
_NEARLY_BALANCED = 1.5
_ASCII_LEVELS = ".:-=+*#"
#: A column of a sparkline is cut at this many times the median column.
_TALLEST = 4.0
_CHANNELS = {
    1: (("grey", "bright_black"),),
    3: (("red", "red"), ("green", "green"), ("blue", "blue")),
}


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
        _numbers(inspection, width, marks),
        preview,
        _what_they_are(inspection, width, marks),
        class_table(inspection, width, marks),
        _delivered(inspection, batch_size, marks),
        _cost(inspection, batch_size, memory_bytes),
        _duplicates(inspection, width, marks),
        _hazards(inspection.hazards, width, marks),
        _unreadable(inspection, width, marks),
        _problems(inspection, width, marks),
    ]
    spaced: list[RenderableType] = []
    for section in sections:
        if section is not None:
            spaced += [*([""] if spaced else []), section]
    return Group(*spaced)


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


# -- the answer ------------------------------------------------------------------------------------


def _header(inspection: Inspection, marks: Marks) -> RenderableType:
    facts = [f"{inspection.overall.images:,} images"]
    if inspection.classes:
        facts.append(_number(len(inspection.classes), "class", "classes"))
    if len(inspection.splits) > 1:
        facts.append(", ".join(f"{split.name} {split.images:,}" for split in inspection.splits))
    if inspection.bytes_on_disk:
        facts.append(f"{format_bytes(inspection.bytes_on_disk)} on disk")
    title = Text(clean(inspection.name), style="bold")
    title.append(f"  {inspection.layout}", style="not bold dim")
    return Group(title, Text(f" {marks.dot} ".join(facts), style="dim"))


def _answer(inspection: Inspection, width: int, marks: Marks) -> RenderableType:
    good, bad = (marks.yes, "green"), (marks.maybe, "bold yellow")
    grid = _grid(width)
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
    yield _twice(inspection)
    balance = _balance(inspection, marks)
    if balance is not None:
        yield balance
    if overall.unlabelled:
        yield False, Text(f"{overall.unlabelled:,} images have no label.")
    if inspection.hazards:
        kinds = len(inspection.hazards)
        words = "1 warning" if kinds == 1 else f"{kinds} warnings"
        yield False, Text(f"{words}, below: what the usual loaders would do to these images.")
    if inspection.problems:
        count = len(inspection.problems)
        yield False, Text(f"{_number(count, 'problem', 'problems')} with the source, below.")


def _readable(inspection: Inspection, marks: Marks) -> tuple[bool, Text]:
    overall = inspection.overall
    kinds = {1: "grey", 3: "colour"}
    words = " and ".join(kinds[channels] for channels in sorted(overall.channels, reverse=True))
    sizes = overall.sizes
    size = "of different sizes"
    if sizes is not None and not sizes.vary:
        size = _size(sizes.median, marks)
    what = f"{words.capitalize()}, {size}"
    missing = overall.images - overall.readable
    if missing:
        return False, Text.assemble(
            (f"{missing:,} of {overall.images:,} images cannot be read, ", "bold"),
            f"listed below. The others: {words}, {size}.",
        )
    return True, Text.assemble((what, "bold"), "; every image can be read.")


def _twice(inspection: Inspection) -> tuple[bool, Text]:
    duplicates, parts = inspection.duplicates, []
    for leak in duplicates.leaks:
        parts.append(f"{leak.count:,} of {leak.split} are in {leak.known_from}, too")
    copies = sum(duplicates.copies.values())
    if copies:
        parts.append(f"{copies:,} repeat an image of their own split")
    if duplicates.mislabelled_groups:
        pictures = _number(duplicates.mislabelled_groups, "picture has", "pictures have")
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
        return False, Text(f"Class {smallest} has no image in {_trained_on(inspection)}.")
    if balance.ratio == 1:
        return True, Text(f"Classes are balanced: {balance.largest_count:,} images each.")
    between = (
        f"from {balance.smallest_count:,} ({smallest}) to {balance.largest_count:,} ({largest})"
    )
    if balance.ratio <= _NEARLY_BALANCED:
        return True, Text(f"Classes are nearly balanced: {between}.")
    return False, Text(f"The largest class is {balance.ratio:,.1f} times the smallest: {between}.")


# -- the numbers -----------------------------------------------------------------------------------


def _numbers(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    statistics = inspection.statistics
    if statistics is None:
        return None
    about = f"all {statistics.pixels:,} pixels of {_trained_on(inspection)}, scaled to 0..1"
    mean, std = (_list(values) for values in (statistics.mean, statistics.std))
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


# -- what they are ---------------------------------------------------------------------------------


def _what_they_are(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    if not inspection.overall.readable:
        return None
    grid = _grid(width, indent=2)
    for name, value in _facts(inspection, marks):
        grid.add_row(Text(f"  {name}", style="dim"), value)
    return Group(heading("What they are"), grid)


def _facts(inspection: Inspection, marks: Marks) -> Iterator[tuple[str, Text]]:
    overall, dot = inspection.overall, f" {marks.dot} "
    yield "colour", _colour(inspection)
    yield "modes", Text(_counts(overall.modes, dot))
    yield "depth", Text(_counts({f"{bits} bit": n for bits, n in overall.bits.items()}, dot))
    assert overall.sizes is not None
    for name, line in _sizes(overall.sizes, marks):
        yield name, line
    yield "formats", Text(_counts(overall.formats, dot))
    if overall.profiles:
        profiles = {clean(name): count for name, count in overall.profiles.items()}
        yield "profiles", Text(_counts(profiles, dot, every=True))
    if overall.orientations:
        turned = {f"EXIF {n}": count for n, count in overall.orientations.items()}
        yield "turned", Text(_counts(turned, dot, every=True))
    for name, trait in (
        ("animated", "animated"), ("see-through", "transparent"), ("misnamed", "extension"),
    ):  # fmt: skip
        found = {str(key): value for key, value in overall.found.items()}.get(trait)
        if found is not None:
            yield name, Text(_found(found, marks))


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
        yield "size", Text(_size(sizes.median, marks))
        return
    ends = f"{_size(sizes.smallest, marks)} to {_size(sizes.largest, marks)}"
    yield (
        "sizes",
        Text(f"{ends}, median {_size(sizes.median, marks)}, {sizes.distinct:,} different"),
    )
    common = {_size((s.width, s.height), marks): s.count for s in sizes.common[:4]}
    yield "", Text(f"most common: {_counts(common, f' {marks.dot} ', every=True)}")
    bins = [bin_.count for bin_ in sizes.histogram]
    line = Text(f"longer side {sizes.histogram[0].low} ")
    line.append(sparkline(bins, len(bins), marks), style="cyan")
    yield "", line.append(f" {sizes.histogram[-1].high}")
    if sizes.outliers.count:
        yield "outliers", Text(f"{_found(sizes.outliers, marks)}: {sizes.outlier_rule}")


# -- delivered, cost -------------------------------------------------------------------------------


def _delivered(inspection: Inspection, batch_size: int, marks: Marks) -> RenderableType | None:
    delivered, statistics = inspection.delivered, inspection.statistics
    if delivered is None:
        return None
    shape = _shape(delivered.shape)
    batch = _shape((batch_size, *delivered.batch_shape))
    before = after = ""
    if statistics is not None:
        before = f"{statistics.lowest}..{statistics.highest}"
        ends = statistics.normalised_range
        after = f"{ends[0]:.2f}..{ends[1]:.2f}" if ends else "a channel is constant"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("  sample", shape, "uint8", before)
    table.add_row("  normalised", shape, "float32", after)
    table.add_row("  batch", batch, "float32", f"and {batch_size:,} labels")
    lines: list[RenderableType] = [heading("What the loader delivers (C, H, W)"), table]
    if delivered.height is None:
        note = (
            f"Sizes vary: the recipe's input_shape decides; here {marks.times.join(['224'] * 2)}."
        )
        lines.append(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    return Group(*lines)


def _cost(
    inspection: Inspection, batch_size: int, memory_bytes: int | None
) -> RenderableType | None:
    cost = inspection.cost
    if cost is None:
        return None
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row(
        heading("What it costs"), Text("one image", "dim"), Text(f"batch of {batch_size:,}", "dim")
    )
    rows: list[tuple[str, float | None]] = [
        ("on disk", cost.on_disk_bytes),
        ("decoded, uint8", cost.decoded_bytes),
    ]
    for name, size in rows:
        if size is not None:
            table.add_row(f"  {name}", _bytes(size), _bytes(size * batch_size))
    for name, half in (("float32", False), ("half", True)):
        sizes = (cost.inputs_bytes(n, half=half) for n in (1, batch_size))
        table.add_row(f"  {name}", *(format_bytes(size) for size in sizes))
    inputs, labels = cost.inputs_bytes(batch_size), cost.labels_bytes(batch_size)
    batch = Text("  Data batch", style="bold")
    batch.append(f": {inputs:,} + labels {labels:,} = {inputs + labels:,} bytes", "not bold")
    resized = ", at 224x224" if cost.is_resized else ""
    train = _in_memory(cost.train_bytes, memory_bytes)
    return Group(
        table,
        batch,
        Text(f"  (the third part of memfit plan{resized})", style="dim"),
        Padding(Text(f"All of {_trained_on(inspection)}, decoded: {train}"), (0, 0, 0, 2)),
    )


def _in_memory(train_bytes: int, memory_bytes: int | None) -> str:
    size = format_bytes(train_bytes)
    if memory_bytes is None:
        return size
    fits = "fits in" if train_bytes < memory_bytes // 2 else "too much for"
    return f"{size}, {fits} this machine's {format_bytes(memory_bytes)}"


# -- what is wrong ---------------------------------------------------------------------------------


def _duplicates(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    duplicates = inspection.duplicates
    if not duplicates:
        return None
    grid = _grid(width, indent=2)
    for kind, groups in (
        ("in two splits", duplicates.leaked_examples),
        ("several labels", duplicates.mislabelled_examples),
        ("copies", duplicates.copied_examples),
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


def _hazards(hazards: Sequence[Hazard], width: int, marks: Marks) -> RenderableType | None:
    if not hazards:
        return None
    grid = _grid(width)
    for hazard in hazards:
        kind = hazard.kind[0].upper() + hazard.kind[1:]
        title = Text.assemble((f"{kind}: {hazard.count:,}", "bold"))
        if hazard.example:
            title.append(f"  {shorten(clean(hazard.example), 48, marks)}", style="dim")
        grid.add_row(Text(marks.maybe, style="bold yellow"), title)
        grid.add_row("", Text.assemble(("usually  ", "dim"), hazard.usually))
        grid.add_row("", Text.assemble(("memfit   ", "dim"), hazard.here))
    return Group(heading("Warnings"), grid)


def _unreadable(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
    files = inspection.overall.unreadable
    if not files:
        return None
    rows = [
        (file.name, file.reason + (f" ({file.rows:,} rows)" if file.rows > 1 else ""))
        for file in files
    ]
    return _listed(f"Cannot be read: {len(files):,}", rows, width, marks)


def _problems(inspection: Inspection, width: int, marks: Marks) -> RenderableType | None:
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


# -- words and numbers -----------------------------------------------------------------------------


def _grid(width: int, indent: int = 0) -> Table:
    """A narrow column and one that wraps under itself."""
    grid = Table.grid(padding=(0, 2 if indent else 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", max_width=min(width, _PROSE_WIDTH) - 4)
    return grid


def _trained_on(inspection: Inspection) -> str:
    name = inspection.statistics_of
    return "the set" if name == "all" else name


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _counts(counts: Mapping[str, int], between: str, *, every: bool = False) -> str:
    """Names with counts; a name alone when it is the only one."""
    if len(counts) == 1 and not every:
        return next(iter(counts))
    return between.join(f"{name}: {count:,}" for name, count in counts.items())


def _found(found: Found, marks: Marks) -> str:
    names = ", ".join(shorten(clean(name), 40, marks) for name in found.examples)
    more = f"{marks.ellipsis}" if found.count > len(found.examples) else ""
    return f"{found.count:,} ({names}{', ' + more if more else ''})"


def _size(size: tuple[int, int], marks: Marks) -> str:
    return f"{size[0]}{marks.times}{size[1]}"


def _shape(sizes: Sequence[int | None]) -> str:
    letters = dict(zip(range(-1, -4, -1), ("W", "H", "C"), strict=True))
    named = [letters[k - len(sizes)] if n is None else str(n) for k, n in enumerate(sizes)]
    return f"({', '.join(named)})"


def _list(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4f}' for value in values)}]"


def _bytes(size_bytes: float) -> str:
    return format_bytes(round(size_bytes))
