"""The user's own code: which line runs, and a traceback without memfit's frames."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType

__all__ = ["is_users", "own_traceback", "place_of", "place_of_error", "shown"]

_OURS = str(Path(__file__).parents[2]) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


@cache
def is_users(file: str) -> bool:
    """Whether a file is neither memfit's, nor Python's, nor that of an installed package."""
    if file.startswith(("<frozen", _OURS, *_LIBRARIES)):
        return False
    return not {"site-packages", "dist-packages"} & set(Path(file).parts)


@cache
def shown(file: str, line: int) -> str:
    """``"train.py:31"``, relative to the working folder."""
    path, folder = Path.cwd() / file, Path.cwd()
    return f"{path.relative_to(folder) if path.is_relative_to(folder) else path}:{line}"


def place_of(frame: FrameType | None) -> str:
    """The innermost line of the user's code; empty where there is none."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            return shown(file, frame.f_lineno)
        frame = frame.f_back
    return ""


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
    return is_runpy or file.startswith(_OURS)
