"""Run a script in a child, from outside: its time, its output, its end, and nothing left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from memfit.cards.catalogue import GPU
from memfit.errors import NoStubs
from memfit.places import is_users, shown
from memfit.scripts.shelter.layers import kept_of
from memfit.scripts.told.answer import Answer, Protection, Status, Step
from memfit.scripts.told.job import CARD_VARIABLE, EngineName, ScriptJob
from memfit.virtual_cuda.child import COUNT_VARIABLE, child_environment
from memfit.virtual_cuda.stubs import build_stubs

__all__ = ["chosen_engine", "on_card", "run_script"]

#: A layer of writes must not lie in what it covers: the second is for what is written to the first.
_ROOMS_IN = ("/tmp", "/var/tmp")
_ROOM = "memfit-run-"
#: After the child's own limit, which leaves it time to tell.
_GRACE_SECONDS = 20.0
_MOST_OUTPUT = 8000
#: Large temporaries of the host go back to the system when they are freed; glibc would learn to
#: keep them between small ones (``man mallopt``, M_MMAP_THRESHOLD).
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
_END_OF_FILE = b"\x04"
_TERMINAL = (24, 80)


def chosen_engine() -> tuple[EngineName, str]:
    """PyTorch itself where it can run without a GPU, else meta tensors and the reason why."""
    try:
        build_stubs()
    except NoStubs as error:
        return "meta", error.message
    return "pytorch", ""


def on_card(
    card: GPU, capacity_bytes: int | None = None, engine: EngineName = "pytorch"
) -> Mapping[str, str]:
    """The environment in which a script finds a card that is not there.

    Args:
        card: the GPU to play.
        capacity_bytes: what the allocator may take of it; what it has when None. On meta tensors
            memory has no end, and :attr:`Answer.tape` is replayed against the card.
        engine: of the job.

    Raises:
        NoStubs: this system has no CUDA build of PyTorch, or no compiler.
    """
    if engine == "meta":
        return {CARD_VARIABLE: json.dumps(card.to_dict())}
    return child_environment(build_stubs(), card, capacity_bytes=capacity_bytes)


def _cards(job: ScriptJob) -> dict[str, str]:
    """A rank finds a card for each of them, and uses its own."""
    return {} if job.ranks is None else {COUNT_VARIABLE: str(job.ranks)}


def run_script(
    job: ScriptJob,
    environment: Mapping[str, str],
    told: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Run a script in a child process that keeps nothing of it.

    Args:
        job: the script, and how far.
        environment: of the engine, such as :func:`on_card`; added to this process's.
        told: is given what the script prints.

    Raises:
        UsageError: the arguments want a batch and none is given.
        KeyboardInterrupt: after everything was put away.
    """
    _ = job.words  # a wrong question is asked of nobody
    begin = time.monotonic()
    with _rooms() as rooms, _child(job, rooms, {**environment, **_cards(job)}) as child:
        child.listen(job.limit_seconds + job.after_seconds + _GRACE_SECONDS, told)
        answer = replace(child.answer(), kept=kept_of(rooms, Path(job.folder).resolve()))
    return replace(answer, seconds=time.monotonic() - begin, engine=job.engine)


@contextmanager
def _rooms() -> Iterator[tuple[Path, ...]]:
    """Folders for what a script writes; nothing of them stays."""
    places = [place for place in _ROOMS_IN if os.access(place, os.W_OK)] or [tempfile.gettempdir()]
    _sweep(places)
    with ExitStack() as stack:
        rooms = []
        for place in places:
            room = Path(tempfile.mkdtemp(prefix=f"{_ROOM}{os.getpid()}-", dir=place))
            stack.callback(_remove, room)
            rooms.append(room)
        yield tuple(rooms)


def _sweep(places: list[str]) -> None:
    """What a process left that was killed."""
    for place in places:
        for room in Path(place).glob(f"{_ROOM}*"):
            number = room.name.removeprefix(_ROOM).partition("-")[0]
            if number.isdecimal() and room.stat().st_uid == os.getuid():
                try:
                    os.kill(int(number), 0)
                except ProcessLookupError:
                    _remove(room)
                except PermissionError:
                    continue


def _remove(room: Path) -> None:
    """A folder with all in it; the kernel's own folders in it allow nobody to read them."""
    for parent, folders, _ in os.walk(room):
        for name in folders:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(room, ignore_errors=True)


class _Child:
    """The child process, its terminal and its pipe.

    Args:
        process: the keeper of the script's process.
        terminal: the other side of what the script sees as its terminal.
        pipe: lines of JSON come from it.
    """

    def __init__(self, process: subprocess.Popen[bytes], terminal: int, pipe: int) -> None:
        self._process = process
        self._terminal = terminal
        self._pipe = pipe
        self._lines = bytearray()
        self._output = bytearray()
        self._is_late = False

    def listen(self, seconds: float, told: Callable[[str], None]) -> None:
        """Take what comes until the process has ended or its time is over."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._terminal, selectors.EVENT_READ)
            selector.register(self._pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(0.1)
                if not ready and self._process.poll() is not None:
                    break
                if time.monotonic() > deadline:
                    self._is_late = True
                    break
                for key, _ in ready:
                    content = _read(key.fd)
                    if not content:
                        selector.unregister(key.fd)
                    elif key.fd == self._pipe:
                        self._lines += content
                    else:
                        self._output = (self._output + content)[-_MOST_OUTPUT:]
                        told(content.decode("utf-8", "replace"))
        self.end()

    def interrupt(self, seconds: float = 3.0) -> None:
        """Ctrl-C for the script; whoever does not end by it is killed."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def end(self) -> None:
        """Nothing of it runs any more."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def answer(self) -> Answer:
        """What it told; what it could not tell is seen from outside."""
        told: dict[str, Any] = {"notes": []}
        for line in self._lines.splitlines():
            with contextlib.suppress(ValueError):  # the last one may be cut off
                told |= json.loads(line)
        output = self._output.decode("utf-8", "replace")
        answer = Answer.of(told["answer"]) if "answer" in told else self._silent(told, output)
        return replace(
            answer,
            notes=(*told["notes"], *answer.notes),
            protection=Protection(told.get("protection", Protection.PYTHON)),
            output=output,
        )

    def _silent(self, told: dict[str, Any], output: str) -> Answer:
        if self._is_late:
            return Answer(Status.TIMED_OUT, "It did not end in time, nor when it was asked to.")
        code = int(told.get("ended", self._process.wait()))
        steps = tuple(Step(**step) for step in told.get("steps", ()))
        if code < 0:
            place = self._place_of_fault()
            where = f" at {place}" if place else ""
            message = f"Its process was killed by {_signal(-code)}{where}."
            return Answer(Status.CRASHED, message, steps, place=place)
        last = (output.strip().splitlines() or ["no message"])[-1]
        message = f"Its process ended with {code}: {last}"
        return Answer(Status.CRASHED, message, steps, exit_code=code)

    def _place_of_fault(self) -> str:
        """The user's line that Python's fault handler wrote to the pipe."""
        text = self._lines.decode("utf-8", "replace")
        for file, line in re.findall(r'^  File "(.*)", line (\d+) in ', text, re.MULTILINE):
            if is_users(file):
                return shown(file, int(line))
        return ""


@contextmanager
def _child(
    job: ScriptJob, rooms: tuple[Path, ...], environment: dict[str, str]
) -> Iterator[_Child]:
    """A started child; it is gone when the context is left."""
    terminal, seen = pty.openpty()
    pipe, told = os.pipe()
    try:
        _set_terminal(terminal, seen)
        words = [str(told), ":".join(map(str, rooms)), json.dumps(job.to_dict())]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "memfit.scripts.child", *words],
            stdin=seen,
            stdout=seen,
            stderr=seen,
            pass_fds=[told],
            start_new_session=True,
            env=_ALLOCATION | os.environ | environment,
        )
    except BaseException:
        os.close(terminal)
        os.close(pipe)
        raise
    finally:
        os.close(seen)
        os.close(told)
    child = _Child(process, terminal, pipe)
    try:
        yield child
    except KeyboardInterrupt:
        child.interrupt()
        raise
    finally:
        child.end()
        os.close(terminal)
        os.close(pipe)


def _set_terminal(terminal: int, seen: int) -> None:
    """A terminal of the usual size whose keyboard nobody sits at."""
    settings = termios.tcgetattr(seen)
    settings[1] &= ~termios.OPOST  # lines end as they were written
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(seen, termios.TCSANOW, settings)
    fcntl.ioctl(seen, termios.TIOCSWINSZ, struct.pack("HHHH", *_TERMINAL, 0, 0))
    os.write(terminal, 16 * _END_OF_FILE)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # a terminal that nobody holds any more
        return b""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
