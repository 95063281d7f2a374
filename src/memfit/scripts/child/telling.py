"""The pipe to the parent: lines of JSON, and a watchdog that tells when nobody else does."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Watchdog", "tell"]

#: From the moment a script is asked to end until it is told without being asked any more.
_GRACE_SECONDS = 5.0


def tell(descriptor: int, **values: Any) -> None:
    """Write a line."""
    left = memoryview((json.dumps(values) + "\n").encode())
    while left:
        left = left[os.write(descriptor, left) :]


class Watchdog:
    """Ends the script of the main thread when its time is over.

    First an exception is raised in it; code that does not let go is left where it is.

    Args:
        is_over: whether the time is over; asked again and again.
        ask: the exception that ends the script.
        give_up: tells what is known, and ends the process; gets the main thread's frame.
    """

    def __init__(
        self,
        is_over: Callable[[float], bool],
        ask: type[BaseException],
        give_up: Callable[[], None],
    ) -> None:
        self.frame: Any = None  # where the main thread was when its time was over
        self._is_over = is_over
        self._ask = ask
        self._give_up = give_up
        self._main = threading.get_ident()
        self._is_off = threading.Event()

    def start(self) -> None:
        """Watch from now on."""
        threading.Thread(target=self._watch, name="memfit-watchdog", daemon=True).start()

    def stop(self) -> None:
        """The script has ended."""
        self._is_off.set()

    def _watch(self) -> None:
        begin = time.monotonic()
        while not self._is_over(time.monotonic() - begin):
            if self._is_off.wait(0.2):
                return
        self.frame = sys._current_frames().get(self._main)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._main), ctypes.py_object(self._ask)
        )
        if not self._is_off.wait(_GRACE_SECONDS):
            self._give_up()
