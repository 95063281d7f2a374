"""The keeper of a script's process: makes its shelter, outlives it, and tells what it left.

Three processes: the keeper, which stays outside the namespace of processes; the first process
inside, whose end ends all the others; and the one that runs the script.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memfit.scripts.shelter import linux
from memfit.scripts.shelter.layers import layer_of
from memfit.scripts.shelter.overlay import cover_all
from memfit.scripts.shelter.shadow import Shadow
from memfit.scripts.told.answer import Protection

__all__ = ["Shelter", "enter", "run_inside"]


@dataclass(frozen=True)
class Shelter:
    """What protects the user's files.

    Args:
        protection: how.
        rooms: folders for what the script writes.
        notes: what is otherwise than a script may expect.
    """

    protection: Protection
    rooms: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def shadow(self) -> Shadow:
        """Files by Python's own functions, where the kernel does not help."""
        return Shadow(layer_of(self.rooms[0], "/"))


def enter(rooms: tuple[Path, ...], folder: Path, *, is_python_only: bool = False) -> Shelter:
    """Put this process where what it writes reaches no user's disk.

    Args:
        rooms: empty folders on disk, which whoever made them deletes.
        folder: the working folder.
        is_python_only: try no namespaces.
    """
    own = (folder, Path.home(), *(room.parent for room in rooms))
    if sys.platform == "linux":
        linux.die_with_parent()
    if is_python_only or sys.platform != "linux" or not _is_allowed(rooms, own):
        return Shelter(Protection.PYTHON, rooms)
    linux.unshare_all()
    read_only = cover_all(rooms, own)
    linux.bring_loopback_up()
    os.chdir(folder)
    notes = tuple(f"{path} can be read and not written." for path in read_only)
    return Shelter(Protection.NAMESPACES, rooms, notes)


def _is_allowed(rooms: tuple[Path, ...], own: tuple[Path, ...]) -> bool:
    """Whether the system lets a process do all of it, tried in one."""

    def attempt() -> None:
        linux.unshare_all()
        trials = tuple(room / "trial" for room in rooms)
        for trial in trials:
            trial.mkdir()
        read_only = cover_all(trials, own)
        if any(place.is_relative_to(path) for place in own for path in read_only):
            raise OSError("the file system below takes no overlay")
        linux.bring_loopback_up()
        if _wait(_fork(linux.mount_proc)):
            raise OSError("no /proc of its own")

    return _wait(_fork(attempt)) == 0


def run_inside(shelter: Shelter, run: Callable[[], None]) -> int:
    """Run something in a process that ends with all it has started.

    Args:
        shelter: that this process has entered.
        run: does not come back.

    Returns:
        The exit code; the number of a signal, negative, where one killed it.
    """

    def first() -> None:
        if shelter.protection is Protection.NAMESPACES:
            linux.mount_proc()
        main = _fork(run)
        while (ended := os.wait())[0] != main:  # reaps whoever lost a parent
            pass
        code = os.waitstatus_to_exitcode(ended[1])
        os._exit(code if code >= 0 else 128 - code)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the script's to handle
    code = _wait(_fork(first))
    return code if code <= 128 else 128 - code


def _fork(run: Callable[[], None]) -> int:
    """The number of a new process, in which a function runs."""
    child = os.fork()
    if child:
        return child
    code = 1
    if sys.platform == "linux":
        linux.die_with_parent()
    with contextlib.suppress(BaseException):
        run()
        code = 0
    os._exit(code)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
