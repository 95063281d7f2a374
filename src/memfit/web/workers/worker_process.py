"""The server's end of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from memfit.web.asking.refusals import JobFailed, Refusal, WorkerEnded
from memfit.web.workers.channel import HEADER, LARGEST_FRAME_BYTES, Kind

__all__ = ["Asked", "ProgressListener", "WorkerProcess"]

#: Importing torch from a cold disk takes most of it.
_WARM_SECONDS = 180.0

#: Traces gain nothing from threads; nothing is ever fetched.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

ProgressListener = Callable[[bytes], None]


@dataclass(slots=True)
class Asked:
    """A request to a worker.

    Args:
        number: of the request.
        future: kind and payload of the last frame.
        listener: told of progress, as JSON.
    """

    number: int
    future: asyncio.Future[tuple[Kind, bytes]]
    listener: ProgressListener | None

    async def answer(self) -> tuple[Kind, bytes]:
        """The last frame; who stops waiting for it may wait again.

        Raises:
            JobFailed: the worker says why.
            WorkerEnded: it is gone.
        """
        kind, payload = await asyncio.shield(self.future)
        if kind is Kind.ERROR:
            error = json.loads(payload)
            raise JobFailed(error["message"], hint=error["hint"] or None)
        return kind, payload

    def fail(self, error: WorkerEnded) -> None:
        """There will be no answer."""
        self.future.set_exception(error)
        self.future.exception()  # nobody has to ask for it


class WorkerProcess:
    """One worker process and the requests that wait for it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = count(1)
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked: dict[int, Asked] = {}
        self._is_killed = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str]) -> WorkerProcess:
        """Start one; it gets warm meanwhile. In a session of its own: Ctrl-C is the server's."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )
        return cls(process)

    @property
    def is_alive(self) -> bool:
        """Whether it can still answer."""
        is_gone = self._is_killed or self._reader.done()
        return not is_gone and self._process.returncode is None

    @property
    def is_warm(self) -> bool:
        """Whether it is alive and has said hello."""
        return self.is_alive and self._hello.done()

    async def hello(self) -> dict[str, Any]:
        """What it says once it is warm.

        Raises:
            WorkerEnded: it did not get warm.
        """
        try:
            async with asyncio.timeout(_WARM_SECONDS):
                return await asyncio.shield(self._hello)
        except TimeoutError:
            self.kill()
            raise WorkerEnded(None) from None

    def begin(
        self, job: str, arguments: dict[str, Any], listener: ProgressListener | None = None
    ) -> Asked:
        """Send a request."""
        asked = Asked(next(self._numbers), asyncio.get_running_loop().create_future(), listener)
        if self.is_alive:
            self._asked[asked.number] = asked
            self._send({**arguments, "number": asked.number, "job": job})
        else:
            asked.fail(WorkerEnded(self._process.returncode))
        return asked

    async def stop_job(self, asked: Asked, grace_seconds: float) -> None:
        """Ask a job to stop; end the process when it does not."""
        asked.listener = None
        self._send({"number": asked.number, "job": "cancel"})
        try:
            async with asyncio.timeout(grace_seconds):
                await asked.answer()
        except TimeoutError:
            self.kill()
        except Refusal:
            pass  # it ended, one way or another

    def kill(self) -> None:
        """End the process now; nothing more is asked of it."""
        self._is_killed = True
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                self._process.kill()
            else:  # Process.kill would reap it, which asyncio's watcher does
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until the process is gone and everybody who waited for it knows."""
        await asyncio.wait([self._reader])
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _send(self, request: dict[str, Any]) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _read(self) -> None:
        """Hand every frame to who waits for it; at the end tell them that there are no more."""
        assert self._process.stdout is not None
        try:
            while True:
                header = await self._process.stdout.readexactly(HEADER.size)
                length, number, kind = HEADER.unpack(header)
                if length > LARGEST_FRAME_BYTES:
                    break
                self._take(number, Kind(kind), await self._process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.kill()
            self._fail_all(WorkerEnded(await self._process.wait()))

    def _take(self, number: int, kind: Kind, payload: bytes) -> None:
        if kind is Kind.HELLO:
            self._hello.set_result(json.loads(payload))
        elif kind is Kind.PROGRESS:
            asked = self._asked.get(number)
            if asked is not None and asked.listener is not None:
                asked.listener(payload)
        elif number in self._asked:
            self._asked.pop(number).future.set_result((kind, payload))

    def _fail_all(self, error: WorkerEnded) -> None:
        if not self._hello.done():
            self._hello.set_exception(error)
            self._hello.exception()  # nobody has to ask for it
        for asked in self._asked.values():
            asked.fail(error)
        self._asked.clear()
