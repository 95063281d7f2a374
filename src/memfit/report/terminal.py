"""What a terminal can show: its marks, its width, and text that reaches a pipe clean."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

__all__ = ["ASCII", "UNICODE", "Marks", "console", "heading", "marks_of", "shorten", "write"]


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


def console(stream: TextIO | None = None, *, width: int | None = None) -> Console:
    """A console for a stream: colours only on a terminal that has them, no guessing of emphasis.

    Args:
        stream: standard output when omitted.
        width: columns; the terminal's, else ``COLUMNS``, else 80 when omitted.
    """
    return Console(
        file=stream or sys.stdout, width=width, highlight=False, markup=False, emoji=False
    )


def marks_of(target: Console) -> Marks:
    """The marks that the console's encoding can carry."""
    try:
        "".join((UNICODE.bar, UNICODE.column, UNICODE.yes, UNICODE.no)).encode(target.encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def write(target: Console, renderable: RenderableType) -> None:
    """Write without the spaces at the ends of lines that tables are padded with."""
    with target.capture() as capture:
        target.print(renderable)
    text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    target.file.write(_encodable(text, target.encoding))
    target.file.flush()


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


def _encodable(text: str, encoding: str) -> str:
    """What the encoding has no character for becomes a question mark, never an error."""
    try:
        return text.encode(encoding, errors="replace").decode(encoding)
    except LookupError:
        return text
