"""A worker process: one job at a time on its main thread, quick questions beside it.

Its standard input and output are the channel to the server; what a model's own code prints goes
to stderr. When the server is gone, so is the worker.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from memfit.errors import MemfitError
from memfit.progress import Progress
from memfit.web.workers.channel import Kind, frame

__all__ = ["Cancelled", "Desk", "JobProgress", "work"]

_SECONDS_BETWEEN_REPORTS = 0.1


class Cancelled(BaseException):
    """Nobody waits for this job any more; no ``except Exception`` on the way keeps it."""


class JobProgress(Progress):
    """What a job says of itself while it runs, and where it learns that nobody waits.

    Attributes:
        at_stage: ``building``, ``tracing``, ``verifying`` or ``tabling``.
        batch: the micro-batch of the trace at work.
        operators: tells how many ran so far.
    """

    def __init__(self) -> None:
        self.at_stage = "building"
        self.batch: int | None = None
        self.operators: Callable[[], int] = int
        self._cancelled = threading.Event()

    def stage(self, name: str) -> None:
        """A stage begins.

        Raises:
            Cancelled: nobody waits.
        """
        self.check()
        self.at_stage, self.batch, self.operators = name, None, int

    def check(self) -> None:
        """A good moment to stop.

        Raises:
            Cancelled: nobody waits.
        """
        if self._cancelled.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Let the job stop at its next good moment."""
        self._cancelled.set()

    def to_json(self) -> bytes:
        """As the page reads it."""
        content = {"stage": self.at_stage, "batch": self.batch, "operators": self.operators()}
        return json.dumps(content).encode()


class Desk(Protocol):
    """What a worker can do."""

    @property
    def jobs(self) -> Mapping[str, Callable[[dict[str, Any], JobProgress], bytes]]:
        """By name: what takes a while; on the main thread, one at a time."""

    @property
    def questions(self) -> Mapping[str, Callable[[dict[str, Any]], bytes | None]]:
        """By name: what is answered at once, also during a job; None: only a job can."""

    def hello(self) -> dict[str, Any]:
        """Get warm; what the server shall know, as plain values."""


def work(desk: Desk) -> None:
    """Serve until the server closes the channel.

    Args:
        desk: does what is asked.
    """
    requests, answers = _take_channel()
    out = _Answers(answers)
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    running = _Running()
    reader = threading.Thread(target=_read, args=(requests, desk, out, jobs, running), daemon=True)
    reader.start()
    out.send(Kind.HELLO, 0, json.dumps(desk.hello()).encode())
    while True:
        _run(desk, jobs.get(), out, running)


def _take_channel() -> tuple[BinaryIO, BinaryIO]:
    """The channel for us alone: prints of anybody's code become messages, reads find nothing."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


class _Answers:
    """Whole frames, one after the other, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        with self._lock:
            try:
                self._stream.write(frame(kind, number, payload))
                self._stream.flush()
            except OSError:
                os._exit(0)  # the server is gone


class _Running:
    """The job at work; it may be cancelled before it begins, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number: int | None = None
        self._progress = JobProgress()
        self._cancelled: set[int] = set()

    def begin(self, number: int) -> JobProgress:
        with self._lock:
            self._number, self._progress = number, JobProgress()
            if number in self._cancelled:
                self._progress.cancel()
            self._cancelled.clear()
            return self._progress

    def cancel(self, number: int) -> None:
        with self._lock:
            if self._number == number:
                self._progress.cancel()
            else:
                self._cancelled.add(number)


def _read(
    requests: BinaryIO,
    desk: Desk,
    out: _Answers,
    jobs: queue.SimpleQueue[dict[str, Any]],
    running: _Running,
) -> None:
    for line in requests:
        request = json.loads(line)
        if request["job"] == "cancel":
            running.cancel(request["number"])
        elif request["job"] in desk.questions:
            _answer(desk, request, out)
        else:
            jobs.put(request)
    os._exit(0)  # the server is gone; whatever runs is for nobody


def _answer(desk: Desk, request: dict[str, Any], out: _Answers) -> None:
    try:
        found = desk.questions[request["job"]](request)
    except Exception as error:
        out.send(Kind.ERROR, request["number"], _said(error))
        return
    kind = Kind.ABSENT if found is None else Kind.RESULT
    out.send(kind, request["number"], found or b"")


def _run(desk: Desk, request: dict[str, Any], out: _Answers, running: _Running) -> None:
    number = request["number"]
    progress = running.begin(number)
    ended = threading.Event()
    watcher = threading.Thread(target=_report, args=(progress, number, out, ended), daemon=True)
    watcher.start()
    try:
        kind, payload = Kind.RESULT, desk.jobs[request["job"]](request, progress)
    except Cancelled:
        kind, payload = Kind.CANCELLED, b""
    except (Exception, SystemExit) as error:
        kind, payload = Kind.ERROR, _said(error)
    ended.set()
    watcher.join()  # no progress after the answer
    out.send(kind, number, payload)


def _report(progress: JobProgress, number: int, out: _Answers, ended: threading.Event) -> None:
    said = b""
    while not ended.is_set():
        content = progress.to_json()
        if content != said:
            out.send(Kind.PROGRESS, number, content)
            said = content
        ended.wait(_SECONDS_BETWEEN_REPORTS)


def _said(error: BaseException) -> bytes:
    """An error as the page reads it; one that memfit did not foresee is told on stderr, too."""
    if isinstance(error, MemfitError):
        content = {"message": error.message, "hint": error.hint or ""}
    else:
        traceback.print_exception(error)
        content = {
            "message": f"memfit failed here: {type(error).__name__}: {error}"[:2000],
            "hint": "The terminal of memfit serve shows where.",
        }
    return json.dumps(content).encode()
