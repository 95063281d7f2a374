"""An overlay over every writable file system: reads come from below, writes go to a folder apart.

``man 5 proc`` (mountinfo) and ``Documentation/filesystems/overlayfs.rst`` of Linux. A layer above
must not lie in the layer below it, so what would be written to ``/tmp`` goes to ``/var/tmp``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memfit.scripts.shelter.layers import layer_of
from memfit.scripts.shelter.linux import BIND, READ_ONLY, REMOUNT, mount

__all__ = ["cover_all"]

#: The kernel's own; nothing of a user's is in them.
_KERNELS = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class _Place:
    """Something to cover: a mounted file system, or a folder of the root's.

    Descriptors were opened before anything was mounted over what they mean.

    Args:
        path: of the place.
        is_writable: the mount allows it.
        below: descriptor of what was there before.
        layers: descriptors of the folders for what is written, and for the kernel's own work.
    """

    path: str
    is_writable: bool
    below: int
    layers: tuple[int, int] | None


def cover_all(rooms: Sequence[Path]) -> list[str]:
    """Cover every place of this mount namespace; what cannot be covered becomes read-only.

    Args:
        rooms: folders for what is written, the first where possible.

    Returns:
        What became read-only.

    Raises:
        OSError: not even read-only.
    """
    places = [
        _Place(path, writable, _open(path), _layers(path, rooms) if writable else None)
        for path, writable in _places()
    ]
    read_only = []
    for place in places:
        if not _cover(place):
            mount(_named(place.below), place.path, "", BIND)
            mount("none", place.path, "", BIND | REMOUNT | READ_ONLY)
            if place.is_writable:
                read_only.append(place.path)
    for place in places:
        for descriptor in (place.below, *(place.layers or ())):
            os.close(descriptor)
    mount("none", "/dev/shm", "tmpfs")
    return read_only


def _places() -> Iterator[tuple[str, bool]]:
    """What to cover and whether it can be written, parents first."""
    mounts = dict(_mounts())
    is_root_writable = mounts.pop("/", False)
    for path in Path("/").iterdir():
        if path.is_dir() and not path.is_symlink() and str(path) not in _KERNELS:
            mounts.setdefault(str(path), is_root_writable)
    for name in sorted(mounts):
        if os.access(name, os.R_OK):
            yield name, mounts[name]


def _mounts() -> Iterator[tuple[str, bool]]:
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        fields = line.split(" ")
        path = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if not any(path == kernels or path.startswith(f"{kernels}/") for kernels in _KERNELS):
            yield path, "rw" in fields[5].split(",")


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _named(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _layers(path: str, rooms: Sequence[Path]) -> tuple[int, int] | None:
    """Folders for what is written to a place, that do not lie in that place."""
    room = next((room for room in rooms if not room.is_relative_to(path)), None)
    if room is None or not Path(path).is_dir():
        return None
    upper = layer_of(room, path)
    work = upper.with_name("work")
    for folder in (upper, work):
        folder.mkdir(parents=True)
    upper.chmod(stat.S_IMODE(Path(path).stat().st_mode))
    return _open(str(upper)), _open(str(work))


def _cover(place: _Place) -> bool:
    if place.layers is None:
        return False
    upper, work = map(_named, place.layers)
    options = f"lowerdir={_named(place.below)},upperdir={upper},workdir={work},userxattr"
    try:
        mount("overlay", place.path, "overlay", 0, options)
    except OSError:
        return False
    return True
