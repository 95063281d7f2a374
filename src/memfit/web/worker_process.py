"""The server's end of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from memfit.web.channel import HEADER, LARGEST_FRAME_BYTES, Kind
from memfit.web.refusals import JobFailed, Refusal, WorkerEnded

__all__ = ["ProgressListener", "WorkerProcess"]

#: Importing torch from a cold disk takes most of it.
_WARM_SECONDS = 180.0

#: Traces gain nothing from threads; nothing is ever fetched.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

ProgressListener = Callable[[bytes], None]


class WorkerProcess:
    """One worker process and the requests that wait for it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = count(1)
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[tuple[Kind, bytes]]] = {}
        self._listeners: dict[int, ProgressListener] = {}
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
        return not self._reader.done() and self._process.returncode is None

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

    def begin(self, job: str, arguments: dict[str, Any], listener: ProgressListener | None) -> int:
        """Send a request; returns its number."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        if listener is not None:
            self._listeners[number] = listener
        self._send({**arguments, "number": number, "job": job})
        return number

    async def answer(self, number: int) -> tuple[Kind, bytes]:
        """The last frame of a request.

        Raises:
            JobFailed: the worker says why.
            WorkerEnded: it is gone.
        """
        if not self.is_alive and not self._answers[number].done():
            await self._process.wait()
            raise WorkerEnded(self._process.returncode)
        try:
            kind, payload = await asyncio.shield(self._answers[number])
        finally:
            if self._answers[number].done():
                del self._answers[number]
                self._listeners.pop(number, None)
        if kind is Kind.ERROR:
            error = json.loads(payload)
            raise JobFailed(error["message"], hint=error["hint"] or None)
        return kind, payload

    async def stop_job(self, number: int, grace_seconds: float) -> None:
        """Ask a job to stop; end the process when it does not."""
        self._listeners.pop(number, None)
        self._send({"number": number, "job": "cancel"})
        try:
            async with asyncio.timeout(grace_seconds):
                await self.answer(number)
        except TimeoutError:
            self.kill()
        except Refusal:
            pass  # it ended, one way or another

    def kill(self) -> None:
        """End the process now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

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
            if number in self._listeners:
                self._listeners[number](payload)
        elif number in self._answers and not self._answers[number].done():
            self._answers[number].set_result((kind, payload))

    def _fail_all(self, error: WorkerEnded) -> None:
        waiting: list[asyncio.Future[Any]] = [self._hello, *self._answers.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody has to ask for it
