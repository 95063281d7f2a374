"""What stands before every request: who asks, from where, with what, and how much of it.

The page is for one person on one machine. Other pages in the same browser must not reach it
(Host against DNS rebinding, Origin and Sec-Fetch-Site against foreign pages), nor other users of
the machine (the token), nor a flood (sizes and times).
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memfit.web.asking.refusals import Refusal

__all__ = ["Guard", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a request may bring.

    Args:
        body_bytes: counted as they come, whatever Content-Length says.
        body_seconds: until the whole body is here.
        query_bytes: of the query.
        path_bytes: of the path.
        header_bytes: of all headers together.
        headers: how many.
    """

    body_bytes: int = 64 << 10
    body_seconds: float = 10.0
    query_bytes: int = 1024
    path_bytes: int = 1024
    header_bytes: int = 16 << 10
    headers: int = 64


_ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware that lets through only what is meant for the application.

    Args:
        app: sees only requests that passed.
        token: that every request below ``/api`` must bring.
        port: the server is bound to.
        hosts: names in lower case, without a port, that a browser may know the server by.
        policy: the Content-Security-Policy of every answer.
        limits: how much a request may bring.
        any_address: the server is bound to all addresses of this machine: the one that a
            connection came in at is a name of it, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        port: int,
        hosts: Sequence[str],
        policy: str,
        limits: Limits | None = None,
        any_address: bool = False,
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._port = port
        self._hosts = frozenset(hosts)
        self._policy = policy
        self._limits = limits or Limits()
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on with its whole body."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._answer_headers(scope, message["headers"])}
            await send(message)

        try:
            self._check_sizes(scope)
            host = self._check_host(scope)
            self._check_origin(scope, host)
            self._check_token(scope)
            body = await self._body(scope, receive)
        except Refusal as refusal:
            await _refuse(refusal, guarded)
            return
        except _LeftError:
            return
        await self._app(scope, _again(body, receive), guarded)

    # -- what is checked -------------------------------------------------------------------------

    def _check_sizes(self, scope: Scope) -> None:
        limits, headers = self._limits, scope["headers"]
        path = scope.get("raw_path") or scope["path"].encode(errors="surrogateescape")
        if len(path) > limits.path_bytes or len(scope["query_string"]) > limits.query_bytes:
            raise Refusal(400, "The address is too long.")
        size_bytes = sum(len(name) + len(value) for name, value in headers)
        if len(headers) > limits.headers or size_bytes > limits.header_bytes:
            raise Refusal(400, "The headers are too large.")

    def _check_host(self, scope: Scope) -> str:
        """A page of another name that resolves to this machine is not ours."""
        host = (_only(scope, b"host") or "").lower()
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, "80"
        hosts = self._hosts
        if self._any_address and scope.get("server"):
            address = scope["server"][0]
            hosts = hosts | {f"[{address}]" if ":" in address else address}
        if name not in hosts or port != str(self._port):
            raise Refusal(
                403,
                "This server does not answer to that host name.",
                hint=f"Open http://127.0.0.1:{self._port}; through a tunnel, use the same port.",
            )
        return host

    def _check_origin(self, scope: Scope, host: str) -> None:
        """Other pages must not use the server, and cannot hide where they are from."""
        origin = _only(scope, b"origin")
        if origin is not None and origin.lower() != f"http://{host}":
            raise Refusal(403, "Requests from other pages are refused.")
        site = _only(scope, b"sec-fetch-site")
        if site in (None, "same-origin", "none"):
            return
        is_link = _only(scope, b"sec-fetch-mode") == "navigate" and scope["path"] == "/"
        if not (is_link and _only(scope, b"sec-fetch-dest") == "document"):
            raise Refusal(403, "Requests from other pages are refused.")

    def _check_token(self, scope: Scope) -> None:
        if not _is_api(scope):
            return
        given = _only(scope, b"authorization") or ""
        scheme, _, token = given.partition(" ")
        is_right = hmac.compare_digest(token.strip().encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not is_right:
            raise Refusal(
                401,
                "The token is missing or wrong.",
                hint="Open the whole address that memfit serve printed, with #token=…",
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; no more of it is read than it may have."""
        largest = self._limits.body_bytes
        too_large = Refusal(413, f"The request is larger than {largest:,} bytes.")
        declared = _only(scope, b"content-length")
        if declared is not None and not (declared.isdecimal() and len(declared) < 20):
            raise Refusal(400, "Content-Length is no number.")
        if declared is not None and int(declared) > largest:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _LeftError
                    body += message.get("body", b"")
                    if len(body) > largest:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refusal(408, "The request took too long to arrive.") from None

    # -- answers ---------------------------------------------------------------------------------

    def _answer_headers(self, scope: Scope, headers: Any) -> list[tuple[bytes, bytes]]:
        added = {**_ALWAYS, "content-security-policy": self._policy}
        own = {bytes(name).lower() for name, _ in headers}
        if _is_api(scope) or b"cache-control" not in own:
            added["cache-control"] = "no-store"
            headers = [pair for pair in headers if bytes(pair[0]).lower() != b"cache-control"]
        return [*headers, *((name.encode(), value.encode()) for name, value in added.items())]


class _LeftError(Exception):
    """The client went away before its request was complete."""


def _is_api(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == "/api" or path.startswith("/api/")


def _only(scope: Scope, name: bytes) -> str | None:
    """The value of a header that may come once.

    Raises:
        Refusal: it comes twice: somebody on the way might read the other one.
    """
    values = [value for key, value in scope["headers"] if key.lower() == name]
    if len(values) > 1:
        raise Refusal(400, f"The header {name.decode()} comes twice.")
    return values[0].decode("latin-1") if values else None


def _again(body: bytes, receive: Receive) -> Receive:
    """``receive`` that has the body first, then what comes after it: that the client left."""
    is_told = False

    async def replay() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(refusal: Refusal, send: Send) -> None:
    """Answer without the application, and end the connection: its body may be unread."""
    content = json.dumps(refusal.to_dict()).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
