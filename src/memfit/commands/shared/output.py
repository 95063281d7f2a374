"""Where results and messages go: stdout is the result, stderr is progress."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

from memfit.errors import MemfitError
from memfit.progress import SILENT, Tell

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "counting",
    "has_terminal",
    "on_cards",
    "show",
    "show_json",
    "staged",
    "working",
    "write",
]

T = TypeVar("T")


def has_terminal() -> bool:
    """Whether progress can be drawn on stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def working(words: str, work: Callable[[], T]) -> T:
    """Do something that takes a second or two; say so on a terminal's stderr.

    What a user's own model prints meanwhile is a message, too: stdout is for the result.
    """
    with redirect_stdout(sys.stderr):
        if not has_terminal():
            return work()
        from rich.console import Console

        with Console(stderr=True).status(f"{words} ..."):
            return work()


def staged(work: Callable[[Callable[[str], None]], T]) -> T:
    """Do something that tells what it is at; say so on a terminal's stderr."""
    if not has_terminal():
        return work(lambda _: None)
    from rich.console import Console

    with Console(stderr=True).status("...") as status:
        return work(lambda words: status.update(f"{words} ..."))


def counting(things: str, work: Callable[[Tell], T]) -> T:
    """Do something that counts as it goes; draw its progress on a terminal's stderr."""
    if not has_terminal():
        return work(SILENT)
    from rich.console import Console

    from memfit.report.console.progress import Bar

    bar = Bar(Console(stderr=True), things)

    def tell(done: int, total: int) -> None:
        bar.at(done, total, facts=f"{bar.speed:,.0f} {things}/s" if bar.speed else "")

    try:
        return work(tell)
    finally:
        bar.ended()


def show(render: Callable[[Console], RenderableType]) -> None:
    """Print what is drawn for the width and the characters of stdout."""
    from rich.console import Console

    from memfit.report.console.terminal import as_text

    columns = os.environ.get("COLUMNS", "")
    piped_width = None if sys.stdout.isatty() or columns.isdigit() else 100
    console = Console(highlight=False, emoji=False, markup=False, width=piped_width)
    try:
        text = as_text(console, working("drawing", lambda: render(console)))
    except BrokenPipeError:
        return
    except OSError as error:
        raise _unwritten(error) from None
    write(text)


def show_json(content: dict[str, Any]) -> None:
    """Print a result as JSON and nothing else."""
    write(json.dumps(content, indent=2) + "\n")


def on_cards(plans: list[dict[str, Any]]) -> dict[str, Any]:
    """Plans of the same training on several cards, as one result for JSON."""
    return {"schema_version": 1, "fits": any(plan["fits"] for plan in plans), "cards": plans}


def write(text: str) -> None:
    """To stdout; a reader that went away (``| head``) changes no exit code."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise _unwritten(error) from None


def _unwritten(error: OSError) -> MemfitError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at the end
    return MemfitError(f"The result cannot be written: {error.strerror}.")
