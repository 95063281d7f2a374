"""Plans that were asked for: shared while they are made, kept for the next who asks.

The document of a plan is kept here; the plan itself stays in the worker that made it, which
answers for its sizes. When that worker is gone, another makes the plan again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from memfit.web.asking.refusals import Refusal
from memfit.web.asking.requests import PlanRequest
from memfit.web.workers.worker_process import ProgressListener, WorkerProcess
from memfit.web.workers.workers import WorkerPool

__all__ = ["Plans"]

_FIRST = b'{"progress":{"stage":"building","batch":null,"operators":0}}\n'


@dataclass(slots=True)
class _Kept:
    """A plan that was made."""

    request: PlanRequest
    document: bytes
    worker: WorkerProcess
    options: bytes | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.document) + len(self.options or b"")


class Plans:
    """Documents of plans, their sizes, options and snapshots.

    Args:
        pool: the workers.
        largest_count: how many documents are kept.
        largest_bytes: how much they may take together; the last one is always kept.
    """

    def __init__(
        self, pool: WorkerPool, *, largest_count: int = 32, largest_bytes: int = 128 << 20
    ) -> None:
        self._pool = pool
        self._largest_count = largest_count
        self._largest_bytes = largest_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._shared: dict[str, _SharedJob] = {}

    # -- what the page asks ----------------------------------------------------------------------

    def plan(self, request: PlanRequest) -> AsyncIterator[bytes]:
        """Lines of JSON: progress, then the plan's name and document, or an error.

        Raises:
            Busy: too many wait already.
        """
        kept = self._recall(request.name)
        if kept is not None:
            return _only(kept.document)
        return self._follow(f"plan {request.name}", lambda said: self._make(request, said))

    def options(self, name: str) -> AsyncIterator[bytes]:
        """Lines of JSON: progress, then the ways to fit more, or an error.

        Raises:
            Refusal: no such plan, or too many wait already.
        """
        kept = self._named(name)
        if kept.options is not None:
            return _only(kept.options)
        return self._follow(f"options {name}", lambda said: self._make_options(kept, said))

    async def sizes(self, name: str, batch: int) -> bytes:
        """JSON: the exact sizes at a batch, or the whole tape where batches are traced.

        Raises:
            Refusal: no such plan, or the job was refused.
        """
        kept = self._named(name)
        asked = {"plan": name, "batch": batch}
        found = await self._pool.ask(kept.worker, "sizes_now", asked)
        return found if found is not None else await self._job("sizes", kept, {"batch": batch})

    async def snapshot(self, name: str, batch: int) -> bytes:
        """The step at a batch as a memory snapshot of PyTorch.

        Raises:
            Refusal: no such plan, or the job was refused.
        """
        return await self._job("snapshot", self._named(name), {"batch": batch})

    # -- jobs ------------------------------------------------------------------------------------

    async def _make(self, request: PlanRequest, said: ProgressListener) -> bytes:
        document, worker = await self._pool.run("plan", request.to_dict(), said)
        line = b'{"plan":%s,"document":%s}\n' % (json.dumps(request.name).encode(), document)
        self._keep(_Kept(request, line, worker))
        return line

    async def _make_options(self, kept: _Kept, said: ProgressListener) -> bytes:
        found = await self._job("options", kept, {}, said)
        kept.options = b'{"options":%s}\n' % found
        return kept.options

    async def _job(
        self, job: str, kept: _Kept, more: dict[str, Any], said: ProgressListener | None = None
    ) -> bytes:
        arguments = {**kept.request.to_dict(), **more}
        found, kept.worker = await self._pool.run(job, arguments, said, prefer=kept.worker)
        return found

    def _follow(
        self, key: str, work: Callable[[ProgressListener], Coroutine[Any, Any, bytes]]
    ) -> AsyncIterator[bytes]:
        job = self._shared.get(key)
        if job is None:
            self._pool.check_room()
            job = self._shared[key] = _SharedJob(work, lambda: self._forget(key, job))
        return job.lines()

    def _forget(self, key: str, job: _SharedJob | None) -> None:
        if self._shared.get(key) is job:
            del self._shared[key]

    # -- what is kept ----------------------------------------------------------------------------

    def _named(self, name: str) -> _Kept:
        kept = self._recall(name)
        if kept is None:
            raise Refusal(404, "There is no such plan any more.", hint="Ask for it again.")
        return kept

    def _recall(self, name: str) -> _Kept | None:
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def _keep(self, kept: _Kept) -> None:
        self._kept[kept.request.name] = kept
        self._kept.move_to_end(kept.request.name)
        while len(self._kept) > 1 and (
            len(self._kept) > self._largest_count
            or sum(each.size_bytes for each in self._kept.values()) > self._largest_bytes
        ):
            self._kept.popitem(last=False)


class _SharedJob:
    """One job and all who wait for it; when the last one leaves, it is cancelled.

    Args:
        work: the job, given whom to tell of progress.
        ended: called once it is over, or given up.
    """

    def __init__(
        self,
        work: Callable[[ProgressListener], Coroutine[Any, Any, bytes]],
        ended: Callable[[], None],
    ) -> None:
        self._said = _FIRST
        self._news = asyncio.Event()
        self._followers = 0
        self._ended = ended
        self._task = asyncio.create_task(work(self._say))
        self._task.add_done_callback(self._is_over)

    async def lines(self) -> AsyncIterator[bytes]:
        """Progress as it comes (a slow reader gets only the newest), then the last line."""
        self._followers += 1
        seen = b""
        try:
            while True:
                news, said = self._news, self._said
                if said is not seen:
                    seen = said
                    yield said
                if self._task.done():
                    yield self._last_line()
                    return
                if news is self._news:
                    await news.wait()
        finally:
            self._followers -= 1
            if not self._followers and not self._task.done():
                self._ended()
                self._task.cancel()

    def _last_line(self) -> bytes:
        if self._task.cancelled():
            return _error_line(Refusal(503, "The server is ending."))
        error = self._task.exception()
        if error is None:
            return self._task.result()
        if isinstance(error, Refusal):
            return _error_line(error)
        raise error

    def _say(self, progress: bytes) -> None:
        self._said = b'{"progress":%s}\n' % progress
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _is_over(self, task: asyncio.Task[bytes]) -> None:
        self._ended()
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # its followers tell it
        self._wake()


def _error_line(refusal: Refusal) -> bytes:
    return json.dumps(refusal.to_dict()).encode() + b"\n"


async def _only(line: bytes) -> AsyncIterator[bytes]:
    yield line
