"""Names of files and classes, as a terminal can print them."""

from __future__ import annotations

__all__ = ["clean"]


def clean(name: str) -> str:
    r"""A name without characters that move a terminal's cursor.

    >>> clean("two" + chr(10) + "lines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
