"""Files that are either whole or not there, whatever moment the process or the machine dies at."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from memfit.units import format_bytes

__all__ = [
    "link_or_copy", "remove_leftovers", "replacing", "sync_folder", "why_not_written",
    "write_whole",
]  # fmt: skip

#: Ends the names of unfinished files; they start with a point.
UNFINISHED = ".unfinished"
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path`` that takes its place once it is written and on the disk.

    When the block raises, the new file is removed and the old one is as it was. The order is
    that of rename(2) and fsync(2): the content first, then the name, then the folder.

    Raises:
        OSError: the place cannot be written.
    """
    unfinished = _unfinished_beside(path)
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write ``path`` so that a reader sees the old or the new content, never a part.

    Raises:
        OSError: the place cannot be written.
    """
    with replacing(path) as file:
        file.write(content)


def link_or_copy(source: Path, target: Path) -> None:
    """Give the content of ``source`` a second name; a copy where the disk knows no hard links.

    Raises:
        OSError: the place cannot be written.
    """
    unfinished = _unfinished_beside(target)
    try:
        os.link(source, unfinished)
    except OSError:
        with replacing(target) as file, source.open("rb") as original:
            shutil.copyfileobj(original, file, 1 << 20)
        return
    try:
        unfinished.replace(target)
    finally:
        # rename(2) leaves both names when they are one file already
        unfinished.unlink(missing_ok=True)
    sync_folder(target.parent)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the unfinished files of killed processes; call it only as the one who writes here.

    Raises:
        OSError: the folder cannot be written.
    """
    leftovers = sorted(folder.glob(f".*{UNFINISHED}"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that a new file outlives a power cut.

    Raises:
        OSError: the disk failed.
    """
    if sys.platform == "win32":
        return  # folders cannot be opened there; NTFS journals names itself
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network and FUSE disks cannot flush folders
            raise
    finally:
        os.close(handle)


def why_not_written(error: OSError, folder: Path, needed_bytes: int | None = None) -> str:
    """The reason in words, with the needed and the free bytes when space is what lacks."""
    reason = error.strerror or str(error)
    if error.errno not in _OUT_OF_SPACE:
        return reason
    needed = f"about {format_bytes(needed_bytes)} needed, " if needed_bytes else ""
    try:
        free = f"{format_bytes(shutil.disk_usage(folder).free)} free on this disk"
    except OSError:
        free = "free space unknown"
    return f"{reason} ({needed}{free})"


def _unfinished_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
