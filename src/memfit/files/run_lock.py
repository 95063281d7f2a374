"""One writer for each run: a lock that ends with the process that holds it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from memfit.errors import RunInUse

__all__ = ["RunLock"]

#: Disks that know no locks: the run goes on without one.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_held: set[int] = set()


class RunLock:
    """Held from construction to ``release`` or the end of the process, however it ends.

    Data loader workers that outlive a killed process do not hold it: they close it when they
    are forked. The file stays; without its process it locks nothing.

    Args:
        path: the lock file; made when missing.

    Raises:
        RunInUse: a live process holds it; names the process and the machine.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _lock(handle)
        except BlockingIOError:
            owner = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise RunInUse(
                f"{path.parent} is being written by {owner}.",
                hint="Wait for it, or stop it (it writes a checkpoint first), then resume.",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._handle: int | None = handle
        _held.add(handle)

    def release(self) -> None:
        """Let another process write; releasing twice is harmless."""
        if self._handle is not None and self._handle in _held:
            _held.discard(self._handle)
            os.close(self._handle)
        self._handle = None


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # beyond the text, which others may then read
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _forget_in_child() -> None:
        """flock(2) belongs to the open file, which a forked child shares."""
        for handle in _held:
            with suppress(OSError):
                os.close(handle)
        _held.clear()

    os.register_at_fork(after_in_child=_forget_in_child)
