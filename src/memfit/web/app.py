"""The routes of the page: files, what there is, plans, and what lies on the disk."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Send

from memfit.errors import UnknownName
from memfit.web.about import about_document
from memfit.web.asking.names import KnownNames, listed
from memfit.web.asking.openapi import OPENAPI
from memfit.web.asking.refusals import Refusal
from memfit.web.asking.requests import read_batch, read_number, read_plan_request
from memfit.web.asking.security import Guard, Limits
from memfit.web.assets import Asset, PageAssets
from memfit.web.plans import Plans
from memfit.web.workers.workers import WorkerPool

__all__ = ["Site", "make_app"]

_MOST_ROWS = 10**12

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What one server serves, and to whom.

    Args:
        token: that requests below ``/api`` must bring.
        port: it is bound to.
        hosts: names, in lower case, that a browser may know it by.
        any_address: it is bound to all addresses of this machine.
        models: that the person who started it named.
        data: data sets that this person named.
        studies: the folder of studies.
        runs: the folder of runs.
        gpu: the key of the card to begin with.
    """

    token: str
    port: int
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")
    any_address: bool = False
    models: Sequence[str] = ()
    data: Sequence[str] = ()
    studies: Path = Path("studies")
    runs: Path = Path("runs")
    gpu: str | None = None


def make_app(site: Site, pool: WorkerPool, limits: Limits | None = None) -> ASGIApp:
    """The application behind its guard.

    Args:
        site: what it serves.
        pool: the workers; opened when the application starts and closed when it ends.
        limits: how much a request may bring.
    """
    files = PageAssets.read()
    pages = _Pages(site, pool, files)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await pool.open()
        try:
            yield
        finally:
            await pool.close()

    app = Starlette(
        routes=pages.routes(),
        lifespan=lifespan,
        exception_handlers={
            Refusal: _on_refusal, HTTPException: _on_http_exception, Exception: _on_error,
        },
    )  # fmt: skip
    app.router.redirect_slashes = False
    return Guard(
        app, token=site.token, port=site.port, hosts=site.hosts, policy=files.policy,
        limits=limits, any_address=site.any_address,
    )  # fmt: skip


class _Pages:
    """One method for each route."""

    def __init__(self, site: Site, pool: WorkerPool, files: PageAssets) -> None:
        self._site = site
        self._pool = pool
        self._files = files
        self._plans = Plans(pool)
        self._learn = b""

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/assets/{name:path}", self.asset),
            Route("/api/about", self.about),
            Route("/api/openapi.json", self.openapi),
            Route("/api/learn", self.learn),
            Route("/api/plan", self.plan, methods=["POST"]),
            Route("/api/plan/{plan}/sizes", self.sizes),
            Route("/api/plan/{plan}/options", self.options, methods=["POST"]),
            Route("/api/plan/{plan}/snapshot", self.snapshot),
            Route("/api/data/{name:path}", self.data),
            Route("/api/studies/{name}", self.study),
            Route("/api/runs/{name}", self.run),
        ]

    # -- files -----------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        return _file(request, self._files.page)

    async def asset(self, request: Request) -> Response:
        found = self._files.files.get(request.path_params["name"])
        if found is None:
            raise Refusal(404, "There is no such file.")
        return _file(request, found)

    # -- what there is ---------------------------------------------------------------------------

    async def about(self, _request: Request) -> Response:
        names = await self._names()
        return _answer(about_document(names, self._site.gpu, **await self._folders()))

    async def openapi(self, _request: Request) -> Response:
        return _answer(OPENAPI)

    async def learn(self, request: Request) -> Response:
        if not self._learn:
            self._learn, _ = await _unless_gone(request, self._pool.run("learn", {}))
        return _json(self._learn)

    # -- plans -----------------------------------------------------------------------------------

    async def plan(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "The request must be application/json.")
        body = await request.body()
        return _Lines(self._plans.plan(read_plan_request(body, await self._names())))

    async def sizes(self, request: Request) -> Response:
        batch = read_batch(request.query_params.get("batch"))
        return _json(await _unless_gone(request, self._plans.sizes(_plan_name(request), batch)))

    async def options(self, request: Request) -> Response:
        return _Lines(self._plans.options(_plan_name(request)))

    async def snapshot(self, request: Request) -> Response:
        batch = read_batch(request.query_params.get("batch"))
        found = await _unless_gone(request, self._plans.snapshot(_plan_name(request), batch))
        headers = {"content-disposition": f'attachment; filename="memfit-batch-{batch}.pickle"'}
        return Response(found, media_type="application/octet-stream", headers=headers)

    # -- what lies on the disk -------------------------------------------------------------------

    async def data(self, request: Request) -> Response:
        name = _one_of("data set", request, (await self._names()).datasets)
        found, _ = await _unless_gone(request, self._pool.run("data", {"name": name}))
        return _json(found)

    async def study(self, request: Request) -> Response:
        name = _one_of("study", request, (await self._folders())["studies"])
        folder = str(self._site.studies / name)
        return _json(await self._pool.ask_any("study", {"folder": folder}))

    async def run(self, request: Request) -> Response:
        after = read_number("after", request.query_params.get("after", "0"), _MOST_ROWS)
        name = _one_of("run", request, (await self._folders())["runs"])
        folder = str(self._site.runs / name)
        return _json(await self._pool.ask_any("run", {"folder": folder, "after": after}))

    async def _names(self) -> KnownNames:
        return KnownNames.of(await self._pool.hello(), self._site.models, self._site.data)

    async def _folders(self) -> dict[str, list[str]]:
        """Names of the studies and runs that are there now."""
        folders = {"studies": str(self._site.studies), "runs": str(self._site.runs)}
        found: dict[str, list[str]] = json.loads(await self._pool.ask_any("names", folders))
        return found


class _Lines(StreamingResponse):
    """Lines of JSON; who leaves in the middle is noticed at once."""

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")

    async def stream_response(self, send: Send) -> None:
        async with aclosing(cast(Any, self.body_iterator)):
            await super().stream_response(send)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """What comes out of some work, which ends when the client leaves.

    Raises:
        Refusal: nobody is there to read it.
    """
    job = asyncio.create_task(work)
    gone = asyncio.create_task(_until_gone(request.receive))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise Refusal(408, "The client left.")
        return job.result()
    finally:
        for task in (job, gone):
            task.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _plan_name(request: Request) -> str:
    name: str = request.path_params["plan"]
    return name


def _one_of(kind: str, request: Request, names: Sequence[str]) -> str:
    try:
        return listed(kind, request.path_params["name"], names)
    except UnknownName as error:
        raise Refusal(404, error.message, hint=error.hint) from None


def _file(request: Request, asset: Asset) -> Response:
    headers = {"etag": asset.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == asset.tag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


def _answer(content: Any, status: int = 200) -> Response:
    return _json(json.dumps(content, allow_nan=False).encode(), status)


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    answer = _answer(error.to_dict(), error.status)
    if error.status == 503:
        answer.headers["retry-after"] = "2"
    return answer


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{error.detail}.")
    answer = _answer(refusal.to_dict(), refusal.status)
    answer.headers.update(error.headers or {})
    return answer


async def _on_error(_request: Request, error: Exception) -> Response:
    """What nobody foresaw: told on the terminal, not to the browser."""
    traceback.print_exception(error, file=sys.stderr)
    refusal = Refusal(500, "The server failed.", hint="Its terminal shows where.")
    return _answer(refusal.to_dict(), 500)
