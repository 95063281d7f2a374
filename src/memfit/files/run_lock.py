"""One writer for each run: a lock that ends with the process that holds it."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from memfit.errors import RunInUse

__all__ = ["RunLock", "writer_of"]

#: Disks that know no locks: the run goes on without one.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class RunLock:
    """Held from construction to ``release`` or the end of the process, however it ends.

    Data loader workers that outlive a killed process do not hold it: filelock closes it when they
    are forked. The file stays; without its process it locks nothing.

    Args:
        path: the lock file; made when missing.

    Raises:
        RunInUse: a live process holds it; names the process and the machine.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(
            path, blocking=False, thread_local=False, preserve_lock_file=True, on_acquired=_sign
        )
        try:
            self._lock.acquire()
        except Timeout:
            writer = writer_of(path)
            name = "another process" if writer is None else "process {} on {}".format(*writer)
            raise RunInUse(
                f"{path.parent} is being written by {name}.",
                hint="Wait for it, or stop it (it writes a checkpoint first), then resume.",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            path.write_bytes(_signature())

    def release(self) -> None:
        """Let another process write; releasing twice is harmless."""
        self._lock.release()


def writer_of(path: Path) -> tuple[int, str] | None:
    """The process that held the lock last, and its machine; None where nobody is named."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(1)  # Windows lets nobody read the byte that is locked
        if found := re.match(rb"process (\d+) on (\S+)", file.read(200)):
            return int(found[1]), found[2].decode(errors="replace")
    return None


def _sign(handle: int) -> None:
    os.truncate(handle, 0)
    os.write(handle, _signature())


def _signature() -> bytes:
    return f"\nprocess {os.getpid()} on {socket.gethostname()}\n".encode()
