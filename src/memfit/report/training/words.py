"""Words that a run is told in."""

from __future__ import annotations

__all__ = ["split_word"]


def split_word(split: str) -> str:
    """How a split is called: ``validation`` for ``val``, every other as it is.

    >>> split_word("val"), split_word("test")
    ('validation', 'test')
    """
    return {"val": "validation"}.get(split, split)
