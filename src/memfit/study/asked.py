"""What a study is asked for, as it is typed: batch sizes and a budget of time."""

from __future__ import annotations

import re

from memfit.errors import UsageError

__all__ = ["parse_batch_sizes", "parse_budget"]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DOTS = ("...", "…")


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """``"16,64,256"``, or with dots for the sizes between: ``"16,32,...,1024"``.

    Raises:
        UsageError: it is no list of batch sizes.

    >>> parse_batch_sizes("16,32,...,128")
    (16, 32, 64, 128)
    """
    words = [word.strip() for word in text.split(",")]
    hint = "Write them like 16,32,64 or 16,32,...,1024."
    if any(not word.isdecimal() and word not in _DOTS for word in words):
        raise UsageError(f"{text!r} is no list of batch sizes.", hint=hint)
    sizes: list[int] = []
    for place, word in enumerate(words):
        if word not in _DOTS:
            sizes.append(int(word))
            continue
        after = words[place + 1] if place + 1 < len(words) else ""
        if len(sizes) < 2 or not 0 < sizes[-2] < sizes[-1] or not after.isdecimal():
            raise UsageError(f"{text!r}: the dots need two sizes before and one after.", hint=hint)
        factor = sizes[-1] / sizes[-2]
        while sizes[-1] * factor < int(after):
            sizes.append(round(sizes[-1] * factor))
    return tuple(sizes)


def parse_budget(text: str) -> float:
    """``"5m"``, ``"90s"``, ``"1.5h"`` or plain seconds, in seconds.

    Raises:
        UsageError: it is no time.

    >>> parse_budget("5m")
    300.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    if match is None or not float(match[1]):
        raise UsageError(f"{text!r} is no budget of time.", hint="Write it like 90s, 5m or 2h.")
    return float(match[1]) * _SECONDS[match[2]]
