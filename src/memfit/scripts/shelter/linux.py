"""System calls of Linux that Python 3.11 has no function for."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
from pathlib import Path

__all__ = [
    "BIND", "RECURSIVE", "bring_loopback_up", "die_with_parent", "make_read_only", "mount",
    "mount_proc", "unshare_all",
]  # fmt: skip

# Constants of linux/sched.h, sys/mount.h, linux/prctl.h, net/if.h, linux/sockios.h.
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_READ_ONLY, _REMOUNT, BIND, RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
#: As ``statvfs`` states them and as ``mount`` takes them: nosuid, nodev, noexec, noatime,
#: nodiratime, relatime.
_RESTRICTIONS = ((2, 2), (4, 4), (8, 8), (1024, 1024), (2048, 2048), (4096, 1 << 21))
_PDEATHSIG = 1
_IFF_UP, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 1, 0x8913, 0x8914


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare_all() -> None:
    """Own mounts, network, processes and users; nobody's number changes.

    Root keeps its rights over other people's files where it may do without a user namespace.

    Raises:
        OSError: the system does not allow it.
    """
    own = _NEWNS | _NEWIPC | _NEWPID | _NEWNET
    user, group = os.geteuid(), os.getegid()
    is_allowed = user == 0 and _libc().unshare(own) == 0
    if not is_allowed:
        _check(_libc().unshare(own | _NEWUSER), "unshare")
        Path("/proc/self/setgroups").write_text("deny", encoding="utf-8")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="utf-8")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="utf-8")
    mount("none", "/", "", RECURSIVE | _PRIVATE)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """``mount(2)``.

    Raises:
        OSError: as the kernel says.
    """
    words = [word.encode() for word in (source, target, kind)]
    _check(_libc().mount(*words, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def make_read_only(path: str) -> None:
    """What is mounted there keeps its other restrictions, which a namespace may not lift.

    Raises:
        OSError: as the kernel says.
    """
    flags = os.statvfs(path).f_flag
    kept = sum(mounted for stated, mounted in _RESTRICTIONS if flags & stated)
    mount("none", path, "", BIND | _REMOUNT | _READ_ONLY | kept)


def mount_proc() -> None:
    """The processes of this namespace, in the first process of it."""
    mount("proc", "/proc", "proc")


def die_with_parent() -> None:
    """Killed when the thread that started this process is gone."""
    _check(_libc().prctl(_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")


def bring_loopback_up() -> None:
    """The one interface of a fresh network namespace; there is no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack("16xh22x", answer)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
