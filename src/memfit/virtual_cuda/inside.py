"""What the stub libraries know of themselves, asked in a process behind them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

__all__ = ["not_counted"]


def not_counted() -> Iterator[str]:
    """Libraries that the process called and whose workspaces count as nothing: ``"cuFFT"``."""
    at = ctypes.CDLL(None).memfit_not_counted_at
    at.restype = ctypes.c_char_p
    number = 0
    while (name := at(number)) is not None:
        yield name.decode()
        number += 1
