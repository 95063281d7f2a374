"""Which line of the user's own code is running."""

from __future__ import annotations

import os
import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType

__all__ = ["OURS", "is_users", "place_of", "shown"]

OURS = str(Path(__file__).parent) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


@cache
def is_users(file: str) -> bool:
    """Whether a file is neither memfit's, nor Python's, nor that of an installed package."""
    if file.startswith(("<frozen", OURS, *_LIBRARIES)):
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
