"""Errors that passed through the user's code: at which line, and a traceback without memfit's."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType

from memfit.places import OURS, is_users, shown

__all__ = ["own_traceback", "place_of_error"]


def place_of_error(error: BaseException) -> str:
    """The innermost line of the user's code that an exception came through."""
    place = ""
    at: TracebackType | None = error.__traceback__
    while at is not None:
        if is_users(at.tb_frame.f_code.co_filename):
            place = shown(at.tb_frame.f_code.co_filename, at.tb_lineno)
        at = at.tb_next
    return place


def own_traceback(error: BaseException) -> str:
    """As Python prints it, without the frames of memfit and of what ran the script."""
    found = traceback.TracebackException.from_exception(error)
    waiting: list[traceback.TracebackException | None] = [found]
    while waiting:
        one = waiting.pop()
        if one is not None:
            kept = [frame for frame in one.stack if not _is_runners(frame.filename)]
            one.stack = traceback.StackSummary.from_list(kept)
            waiting += [one.__cause__, one.__context__]
    return "".join(found.format())


def _is_runners(file: str) -> bool:
    is_runpy = file == "<frozen runpy>" or Path(file) == Path(sys.modules["runpy"].__file__ or "")
    return is_runpy or file.startswith(OURS)
