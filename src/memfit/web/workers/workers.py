"""A bounded pool of worker processes: warm, with time limits, and replaceable at any moment.

The main thread of a worker does one job at a time. A job that nobody waits for is asked to stop;
one that does not within the grace, or takes longer than it may, loses its process.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from memfit.web.asking.refusals import Busy, JobFailed, JobTooLong, WorkerEnded
from memfit.web.workers.channel import Kind
from memfit.web.workers.worker_process import Asked, ProgressListener, WorkerProcess

__all__ = ["PLANNING_WORKER", "WorkerPool"]

#: The command of a worker that plans. ``-P`` keeps the current folder off the import path.
PLANNING_WORKER = (sys.executable, "-P", "-m", "memfit.web.workers.planning")


class WorkerPool:
    """At most ``size`` worker processes, and a bounded queue before them.

    Args:
        command: of a worker process.
        size: how many at most; one is started at once, others when all are at work.
        timeout_seconds: what a job may take once a worker has it.
        queue_limit: how many jobs may wait for a worker.
        grace_seconds: what a job may take to stop when nobody waits for it.
    """

    def __init__(
        self,
        command: Sequence[str] = PLANNING_WORKER,
        *,
        size: int = 2,
        timeout_seconds: float = 60.0,
        queue_limit: int = 8,
        grace_seconds: float = 2.0,
    ) -> None:
        self._command = command
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._queue_limit = queue_limit
        self._grace_seconds = grace_seconds
        self._workers: set[WorkerProcess] = set()
        self._starting = 0
        self._idle: list[WorkerProcess] = []
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: dict[str, Any] | None = None
        self._hellos: list[asyncio.Future[dict[str, Any]]] = []
        self._is_closed = False

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the first worker; returns at once."""
        self._add_worker()

    async def close(self) -> None:
        """End all workers, and all jobs with them."""
        self._is_closed = True
        while self._starting:
            await asyncio.sleep(0.01)
        for worker in self._workers:
            worker.kill()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def check_room(self) -> None:
        """Whether a job can at least wait.

        Raises:
            Busy: enough others do.
        """
        if not self._idle and len(self._waiting) >= self._queue_limit:
            raise Busy

    async def hello(self) -> dict[str, Any]:
        """What a warm worker knows; waits for the first one.

        Raises:
            WorkerEnded: no worker gets warm.
        """
        if self._known is None:
            if not self._workers:
                self._add_worker()
            future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._hellos.append(future)
            return await future
        return self._known

    # -- jobs ------------------------------------------------------------------------------------

    async def run(
        self,
        job: str,
        arguments: dict[str, Any],
        listener: ProgressListener | None = None,
        prefer: WorkerProcess | None = None,
    ) -> tuple[bytes, WorkerProcess]:
        """Do a job on some worker.

        Args:
            job: its name.
            arguments: plain values.
            listener: told of progress, as JSON.
            prefer: the worker to take when it is free.

        Returns:
            What came out, and the worker that did it.

        Raises:
            Refusal: too many wait, it took too long, the worker ended, or the job failed.
        """
        worker = await self._take(prefer)
        asked = worker.begin(job, arguments, listener)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, payload = await asked.answer()
        except TimeoutError:
            worker.kill()
            raise JobTooLong(self._timeout_seconds) from None
        except asyncio.CancelledError:
            self._spawn(self._settle(worker, asked))
            raise
        except JobFailed:
            self._give_back(worker)
            raise
        self._give_back(worker)
        return payload, worker

    async def ask(
        self, worker: WorkerProcess, question: str, arguments: dict[str, Any]
    ) -> bytes | None:
        """Ask what a worker answers at once, whatever job it has; None: only a job can answer."""
        if not worker.is_alive:
            return None
        asked = worker.begin(question, arguments)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                kind, payload = await asked.answer()
        except (WorkerEnded, TimeoutError):
            return None
        return payload if kind is Kind.RESULT else None

    async def ask_any(self, question: str, arguments: dict[str, Any]) -> bytes:
        """Ask any warm worker what each of them answers at once; waits for the first one.

        Raises:
            Refusal: it says why not, or no worker gets warm.
        """
        for _ in range(2):  # one may end just now
            await self.hello()
            for worker in [worker for worker in self._workers if worker.is_warm]:
                found = await self.ask(worker, question, arguments)
                if found is not None:
                    return found
            self._known = None  # all of them are gone: wait for the next
        raise WorkerEnded(None)

    async def _settle(self, worker: WorkerProcess, asked: Asked) -> None:
        await worker.stop_job(asked, self._grace_seconds)
        self._give_back(worker)

    # -- who is free -----------------------------------------------------------------------------

    async def _take(self, prefer: WorkerProcess | None) -> WorkerProcess:
        free = [worker for worker in self._idle if worker.is_alive]
        if free:
            worker = prefer if prefer is not None and prefer in free else free[-1]
            self._idle.remove(worker)
            return worker
        if self._is_closed or len(self._waiting) >= self._queue_limit:
            raise Busy
        self._add_worker()
        waiter: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())
            raise

    def _give_back(self, worker: WorkerProcess) -> None:
        if not worker.is_alive:
            return  # its keeper sees to another one
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    def _add_worker(self) -> None:
        if len(self._workers) + self._starting < self._size and not self._is_closed:
            self._starting += 1
            self._spawn(self._keep_worker())

    async def _keep_worker(self) -> None:
        """Start a worker, let it in once it is warm, and see to another one when it ends."""
        try:
            worker = await WorkerProcess.start(self._command)
            self._workers.add(worker)
        finally:
            self._starting -= 1
        try:
            self._welcome(await worker.hello())
            self._give_back(worker)
            error = None
        except WorkerEnded as ended:
            error = ended
        await worker.ended()
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if self._is_closed or (error is not None and not self._workers and not self._starting):
            self._give_up(error or WorkerEnded(None))
        elif self._waiting or not self._workers:
            self._add_worker()

    def _welcome(self, known: dict[str, Any]) -> None:
        self._known = known
        for future in self._hellos:
            if not future.done():
                future.set_result(known)
        self._hellos.clear()

    def _give_up(self, error: WorkerEnded) -> None:
        """No worker gets warm: whoever waits is told, and the next request tries again."""
        waiting: list[asyncio.Future[Any]] = [*self._hellos, *self._waiting]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
        self._hellos.clear()
        self._waiting.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
