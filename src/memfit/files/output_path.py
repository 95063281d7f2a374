"""Whether a result can be written where somebody wants it; asked before any long work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from memfit.errors import DataError, UsageError
from memfit.files.durable import write_whole
from memfit.files.names import shown

__all__ = ["FIGURE_SUFFIXES", "check_figure_path", "check_output_path", "write_output"]

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def check_output_path(
    path: str | Path, *, what: str, suffixes: Sequence[str] = (), force: bool = False
) -> Path:
    """Whether a file can be written there.

    Args:
        path: of the file to write.
        what: will be in it, such as ``"figure"``.
        suffixes: that it may have, such as ``".png"``; any when empty.
        force: overwrite it.

    Raises:
        UsageError: the suffix is none of ``suffixes``.
        DataError: the file exists, or its folder does not or takes no files.
    """
    path = Path(path)
    name = shown(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(
            f"No {what} can be written as {path.suffix or 'a file without a suffix'}: {name}.",
            hint=f"Use {'one of ' if len(suffixes) > 1 else ''}{', '.join(suffixes)}.",
        )
    try:
        _check_place(path, force=force)
    except OSError as error:  # a name that is too long, a folder that lets nobody in
        raise DataError(f"{name} cannot be written: {error.strerror}.") from None
    return path


def check_figure_path(path: str | Path, *, force: bool = False) -> Path:
    """Whether a figure can be written there; asked before any long work.

    Args:
        path: of the file to write.
        force: overwrite it.

    Raises:
        UsageError: the suffix is none of :data:`FIGURE_SUFFIXES`.
        DataError: the file exists, or its folder does not or takes no files.
    """
    return check_output_path(path, what="figure", suffixes=FIGURE_SUFFIXES, force=force)


def _check_place(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise DataError(f"{shown(path)} is a folder.", hint="Name a file in it.")
    if os.path.lexists(path) and not force:  # a link to nowhere would be replaced, too
        raise DataError(f"{shown(path)} exists.", hint="Overwrite it with --force.")
    if not path.parent.is_dir():
        raise DataError(f"{shown(path.parent)} is no folder.", hint="Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{shown(path.parent)} takes no files: permission denied.")


def write_output(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be written: {error.strerror}.") from None
