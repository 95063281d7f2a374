"""Names of files and classes, as terminals and JSON can carry them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["clean", "printable", "shown"]


def clean(name: str) -> str:
    r"""A name without characters that move a terminal's cursor.

    >>> clean("two" + chr(10) + "lines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def printable(path: str) -> str:
    """A path that any terminal and JSON can carry: bytes that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def shown(path: Path) -> str:
    """A path as a terminal can print it."""
    return clean(printable(str(path)))
