"""What a terminal can show: its marks, and text that reaches a pipe clean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = [
    "ASCII", "PROSE_WIDTH", "UNICODE", "Marks", "as_text", "bar", "columns", "heading", "marks_of",
    "shorten", "spaced",
]  # fmt: skip

#: Longer lines are hard to read, whatever the terminal's width.
PROSE_WIDTH = 96


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that are not letters, in one of two alphabets.

    Args:
        bar: parts of a horizontal bar's cell, from the thinnest to the full one.
        column: parts of a vertical bar's cell, from the thinnest to the full one.
        cached: a cell that is reserved and holds nothing.
        line: a horizontal line.
        axis: a vertical line.
        corner: where the axes meet.
        tick: on the horizontal axis.
        pointer: from below to a place on the horizontal axis.
        dot: between two facts on one line.
        times: between two sizes.
        ellipsis: for what was left out.
        yes: it fits.
        no: it does not.
        maybe: it fits with a reservation.
    """

    bar: str
    column: str
    cached: str
    line: str
    axis: str
    corner: str
    tick: str
    pointer: str
    dot: str
    times: str
    ellipsis: str
    yes: str
    no: str
    maybe: str


UNICODE = Marks(
    bar="▏▎▍▌▋▊▉█", column="▁▂▃▄▅▆▇█", cached="░", line="─", axis="│", corner="└", tick="┴",
    pointer="▲", dot="·", times="×", ellipsis="…", yes="✔", no="✘", maybe="!",
)  # fmt: skip
ASCII = Marks(
    bar="#", column="#", cached=":", line="-", axis="|", corner="+", tick="+",
    pointer="^", dot="-", times="x", ellipsis="..", yes="OK", no="NO", maybe="!",
)  # fmt: skip


def marks_of(console: Console) -> Marks:
    """The marks that the console's encoding can carry."""
    try:
        "".join((UNICODE.bar, UNICODE.column, UNICODE.yes, UNICODE.no)).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def as_text(console: Console, renderable: RenderableType) -> str:
    """What to write for a renderable: no spaces at the ends of lines, no unknown characters."""
    with console.capture() as captured:
        console.print(renderable)
    lines = captured.get().splitlines()
    return _encodable("".join(f"{line.rstrip()}\n" for line in lines), console.encoding)


def shorten(text: str, width: int, marks: Marks) -> str:
    """``text`` in at most ``width`` columns; what is left out is its middle."""
    if len(text) <= width:
        return text
    room = max(2, width - len(marks.ellipsis))
    tail = (room + 1) // 2
    return f"{text[: room - tail]}{marks.ellipsis}{text[-tail:]}"[:width]


def heading(text: str) -> Text:
    """The title of a section."""
    return Text(text, style="bold")


def spaced(sections: Iterable[RenderableType | None]) -> Group:
    """The sections that there are, an empty line between two."""
    lines = [line for section in sections if section is not None for line in ("", section)]
    return Group(*lines[1:])


def columns(*, header: bool = True) -> Table:
    """A table without lines, two spaces between its columns."""
    return Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_header=header
    )


def bar(share: float, width: int, marks: Marks) -> str:
    """A horizontal bar, full at 1; what is not nothing shows at least a little.

    Args:
        share: of the full width.
        width: in cells.
        marks: the characters to draw with.
    """
    if share <= 0 or not width:
        return ""
    steps = len(marks.bar)
    full, rest = divmod(max(1, round(share * width * steps)), steps)
    return marks.bar[-1] * full + (marks.bar[rest - 1] if rest else "")


def _encodable(text: str, encoding: str) -> str:
    """What the encoding has no character for becomes a question mark, never an error."""
    try:
        return text.encode(encoding, errors="replace").decode(encoding)
    except LookupError:
        return text
