"""An overlay over every writable file system: reads come from below, writes go to a folder apart.

``man 5 proc`` (mountinfo) and ``Documentation/filesystems/overlayfs.rst`` of Linux. A layer above
must not lie in the layer below it, so what would be written to ``/tmp`` goes to ``/var/tmp``.
Whatever takes no overlay becomes read-only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from memfit.scripts.shelter.layers import layer_of
from memfit.scripts.shelter.linux import BIND, RECURSIVE, make_read_only, mount

__all__ = ["cover_all"]

#: The kernel's own; nothing of a user's is in them.
_KERNELS = ("/proc", "/sys", "/dev")


def cover_all(rooms: Sequence[Path], folders: Sequence[Path]) -> list[str]:
    """Cover everything in this mount namespace that can be written.

    Args:
        rooms: folders for what is written, the first where possible.
        folders: covered for themselves, too: an overlay copies a folder before it is written to,
            which it may not where somebody else owns one on the way.

    Returns:
        What became read-only.

    Raises:
        OSError: not even read-only.
    """
    cover = _Cover(rooms, folders)
    for path in cover.places():
        cover.cover(path)
    mount("none", "/dev/shm", "tmpfs")
    make_read_only("/")
    return cover.read_only


class _Cover:
    """The file systems as they were, reached by descriptors that no mount can hide.

    Args:
        rooms: folders for what is written.
        folders: covered for themselves, too.
    """

    def __init__(self, rooms: Sequence[Path], folders: Sequence[Path]) -> None:
        self.read_only: list[str] = []
        self._rooms = [(room, Path(_opened(str(room)))) for room in rooms]
        self._is_writable = dict(_mounts())
        own = {str(folder) for folder in folders if os.access(folder, os.W_OK)}
        places = (self._is_writable.keys() | own) - {"/"}
        self._below = {path: _opened(path) for path in places if os.access(path, os.R_OK)}

    def places(self) -> list[str]:
        """The root's folders and all mounts, parents first."""
        folders = _folders_of("/") if self._is_writable.get("/") else ()
        return sorted({*folders, *self._below} - set(_KERNELS))

    def cover(self, path: str) -> None:
        """Put an overlay over a place, or over its folders where mounts in it forbid that."""
        is_writable = self._is_writable.get(path, True)
        if is_writable and self._overlay(path):
            return
        if path in self._below:  # maybe hidden by now
            mount(self._below[path], path, "", BIND | RECURSIVE)
            make_read_only(path)
        if not is_writable:
            return
        if any(other.startswith(f"{path}/") for other in self._is_writable):
            for folder in sorted(set(_folders_of(path)) - self._below.keys()):
                self.cover(folder)
        else:
            self.read_only.append(path)

    def _overlay(self, path: str) -> bool:
        if not Path(path).is_dir():
            return False
        room = next((seen for room, seen in self._rooms if not room.is_relative_to(path)), None)
        if room is None:
            return False
        upper = layer_of(room, path)
        work = upper.with_name("work")
        for folder in (upper, work):
            folder.mkdir(parents=True)
        upper.chmod(stat.S_IMODE(Path(path).stat().st_mode))
        lower = self._below.get(path, path)
        words = {"lowerdir": lower, "upperdir": str(upper), "workdir": str(work)}
        options = ",".join(f"{name}={_escaped(value)}" for name, value in words.items())
        try:
            mount("overlay", path, "overlay", 0, f"{options},userxattr")
        except OSError:
            return False
        return True


def _opened(path: str) -> str:
    """A name for what is there now; the descriptor is this process's to the end."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_CLOEXEC)}"


def _escaped(path: str) -> str:
    return re.sub(r"([\\,:])", r"\\\1", path)


def _folders_of(path: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(path))
    except OSError:  # not ours to read
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield entry.path


def _mounts() -> Iterator[tuple[str, bool]]:
    """Each mount and whether it can be written; of several at one place, the last."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        fields = line.split(" ")
        path = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if not any(path == kernels or path.startswith(f"{kernels}/") for kernels in _KERNELS):
            yield path, "rw" in fields[5].split(",")
