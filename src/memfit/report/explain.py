"""A memory snapshot as text: why memory ran out first, then where the bytes were."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.explain.explained import Explained
from memfit.explain.out_of_memory import Cause, OutOfMemory
from memfit.files.names import clean
from memfit.memory.tape.parts import PARTS, UNKNOWN
from memfit.report.console.numbers import largest_remainders
from memfit.report.console.terminal import Marks, columns, heading, marks_of, shorten, spaced
from memfit.units import MIB, format_bytes

__all__ = ["render_explained"]

_PART_COLUMNS: tuple[JustifyMethod, ...] = ("left", "left", "right", "right", "left", "left")
_BIGGEST_COLUMNS: tuple[JustifyMethod, ...] = ("right", "right", "left", "left")
_BIGGEST = 8
_FRAMES = 3
#: Columns of a terminal below which only numbers and names are shown.
_NARROW = 60


def render_explained(explained: Explained, console: Console) -> Group:
    """Everything about one device of a snapshot, for a console's width and characters.

    Args:
        explained: what was found.
        console: where it will be printed.
    """
    width, marks = console.width, marks_of(console)
    sections = [
        _header(explained, width, marks),
        *(_failure(failure, width, marks) for failure in explained.out_of_memory[-1:]),
        _parts(explained, width, marks),
        _biggest(explained, width, marks),
        _fragmentation(explained),
        _notes(explained, marks),
    ]
    return spaced(sections)


def _header(explained: Explained, width: int, marks: Marks) -> RenderableType:
    facts = explained.facts
    line = [
        f"device {explained.device}",
        f"{facts['trace_entries']:,} recorded events",
        f"{facts['allocations']:,} allocations",
        f"{facts['steps']} {'step' if facts['steps'] == 1 else 'steps'}",
    ]
    others = [str(d) for d in explained.devices if d != explained.device]
    if others:
        line.append(f"also device {', '.join(others)} (--device N)")
    if explained.is_own:
        line.append("a plan, exported by memfit")
    return Group(
        Text(shorten(clean(explained.name), width, marks), style="bold"),
        Text(f" {marks.dot} ".join(line), style="dim"),
    )


# -- why memory ran out ----------------------------------------------------------------------------


def _failure(failure: OutOfMemory, width: int, marks: Marks) -> RenderableType:
    asked = f"Out of memory in {failure.phase}: {format_bytes(failure.requested_bytes)} asked"
    by = f" by {clean(failure.operator)}" if failure.operator else ""
    at = f" at {clean(failure.where)}" if failure.where else ""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(max_width=min(width, 96) - 2, overflow="fold")
    grid.add_row(Text(marks.no, style="bold red"), Text(f"{asked}{by}{at}.", style="bold"))
    for sentence in _reasons(failure):
        grid.add_row("", Text(sentence))
    for advice in failure.advice:
        grid.add_row(Text(marks.dot, style="green"), Text(advice))
    return grid


def _reasons(failure: OutOfMemory) -> Iterator[str]:
    free, cached = format_bytes(failure.device_free_bytes), format_bytes(failure.cached_free_bytes)
    largest = format_bytes(failure.largest_free_bytes)
    if failure.cause is Cause.FRAGMENTED:
        yield (
            f"Enough is free, in pieces that are too small: {free} on the device and {cached} in "
            f"the cache, of which the largest piece is {largest}."
        )
    else:
        yield (
            f"The card is full: {free} free on the device, {cached} in the cache (largest piece "
            f"{largest}); {format_bytes(failure.missing_bytes)} more were needed."
        )
    if failure.largest_part:
        size = failure.parts[failure.largest_part]
        share = size / max(1, sum(failure.parts.values()))
        name = PARTS[failure.largest_part].name
        yield f"Most of it: {name}, {format_bytes(size)} ({share:.0%} of what is in use).".replace(
            "%", " %"
        )
    if failure.device_free_bytes >= failure.requested_bytes:
        yield f"The allocator takes {format_bytes(failure.segment_bytes)} from the device for this."
    if failure.fits_bytes:
        yield (
            f"The largest request that would have found room: {format_bytes(failure.fits_bytes)}."
        )


# -- where the bytes are ---------------------------------------------------------------------------


def _parts(explained: Explained, width: int, marks: Marks) -> RenderableType:
    rows = [p for p in PARTS if p in explained.parts and (p != UNKNOWN or explained.parts[p])]
    sizes = [explained.parts[part] for part in rows]
    shares = largest_remainders([max(0, size) for size in sizes])
    bar_width = max(6, min(24, width - 66))
    sides = _PART_COLUMNS if width >= _NARROW else _PART_COLUMNS[:4]
    table = columns(header=False)
    for justify in sides:
        table.add_column(no_wrap=True, justify=justify)
    for part, size, share in zip(rows, sizes, shares, strict=True):
        look = PARTS[part]
        number, name = look.row_head
        bar = marks.bar[-1] * max(share * bar_width // max(1, *shares), 1 if share else 0)
        row = (
            Text(number, style="bold"), name, format_bytes(size), f"{share // 10}.{share % 10} %",
            Text(_how_sure(explained, part), style="dim"), Text(bar, style=look.terminal_colour),
        )  # fmt: skip
        table.add_row(*row[: len(sides)])
    total = format_bytes(explained.reserved_at_peak_bytes)
    table.add_row("", "reserved", total, "100.0 %" if sum(shares) else "", style="bold")
    where = f", {clean(explained.peak_where)}" if explained.peak_where else ""
    operator = f", {clean(explained.peak_operator)}" if explained.peak_operator else ""
    return Group(
        heading("Where the bytes were at the peak"),
        table,
        "",
        Text.assemble(("Peak", "bold"), f" in {explained.peak_phase}{where}{operator}"),
        Text(
            f"     allocated {format_bytes(explained.peak_allocated_bytes)}, "
            f"reserved at most {format_bytes(explained.peak_reserved_bytes)}",
            style="dim",
        ),
    )


def _how_sure(explained: Explained, part: str) -> str:
    """Certain, likely, or how much of it is."""
    levels = {name: size for name, size in explained.sure.get(part, {}).items() if size}
    if not levels or part == UNKNOWN:
        return ""
    if len(levels) == 1:
        return next(iter(levels))
    percent = 100 * levels.get("certain", 0) // sum(levels.values())
    return f"{percent} % certain" if percent else "likely"


def _biggest(explained: Explained, width: int, marks: Marks) -> RenderableType | None:
    if not explained.biggest:
        return None
    table = columns(header=False)
    is_narrow = width < _NARROW
    for justify in _BIGGEST_COLUMNS[is_narrow:]:
        table.add_column(no_wrap=True, justify=justify)
    room = max(12, width - (28 if is_narrow else 46))
    for item in explained.biggest[:_BIGGEST]:
        words = f" {marks.dot} ".join(word for word in (item.where, item.operator) if word)
        if not words:
            words = " < ".join(f.name for f in item.stack[:_FRAMES]) or "no stack recorded"
        times = f"{item.count:,} {marks.times}" if item.count > 1 else ""
        counted = () if is_narrow else (times,)
        made_by = shorten(clean(words), room, marks)
        table.add_row(format_bytes(item.size_bytes), *counted, PARTS[item.part].name, made_by)
    return Group(heading("The largest, by the code that made them"), table)


def _fragmentation(explained: Explained) -> RenderableType:
    free, facts = explained.fragmentation, explained.facts
    when = "when memory ran out" if explained.out_of_memory else "at the end"
    lines = [
        f"{format_bytes(free.free_bytes)} reserved and free {when}, in {free.block_count:,} pieces "
        f"of {free.segment_count:,} segments; the largest is {format_bytes(free.largest_bytes)}."
    ]
    if free.sparse_free_bytes > MIB:
        lines.append(
            f"{format_bytes(free.sparse_free_bytes)} cannot go back to the device: they are in "
            f"segments less than half full ({free.sparse_segments:,})."
        )
    if facts["cache_releases"]:
        lines.append(
            f"Cached memory was given back to go on ({facts['cache_releases']:,} x, "
            f"{format_bytes(facts['cache_released_bytes'])} in all); each time the GPU waits."
        )
    body = Padding(Group(*(Text(line) for line in lines)), (0, 0, 0, 2))
    return Group(heading("Fragmentation"), body)


def _notes(explained: Explained, marks: Marks) -> RenderableType | None:
    facts = explained.facts
    lines = []
    if facts["before_trace"]:
        lines.append(
            f"{facts['before_trace']:,} allocations were there when the trace began; "
            "record from the start of the program to see who made them."
        )
    if explained.parts[UNKNOWN]:
        size = format_bytes(explained.parts[UNKNOWN])
        lines.append(f"Of {size} nothing says what it is for.")
    if facts["unexplained_entries"]:
        lines.append(
            f"{facts['unexplained_entries']:,} events do not fit the ones before them: "
            "the trace has gaps."
        )
    if len(explained.out_of_memory) > 1:
        lines.append(f"Memory ran out {len(explained.out_of_memory)} times; shown is the last.")
    if not lines:
        return None
    return Group(*(Text(f"{marks.dot} {line}", style="dim") for line in lines))
