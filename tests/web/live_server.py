"""A real server on a free port, and ways to talk to it."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from memfit.web.app import Site, make_app
from memfit.web.asking.security import Limits
from memfit.web.launch import bind, server_config
from memfit.web.workers.workers import WorkerPool

TOKEN = "the-token"
FAKE_WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@dataclass(frozen=True)
class Server:
    """One that runs, and ways to talk to it."""

    port: int
    client: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def plan(self, gpu: str | None = None, **recipe: Any) -> dict[str, Any]:
        """The last line of the answer."""
        return self.lines("/api/plan", {"recipe": {"model": "mlp", **recipe}, "gpu": gpu})[-1]

    def lines(self, path: str, body: Any) -> list[dict[str, Any]]:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=300)

    def raw(self, request: bytes) -> tuple[int, bytes]:
        """Status and everything that comes back for bytes as they are."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_answer(connection)

    def head(self, method: str, path: str, *lines: str, token: str | None = TOKEN) -> bytes:
        """The beginning of a request, ready for a body."""
        auth = [] if token is None else [f"Authorization: Bearer {token}"]
        own = [f"{method} {path} HTTP/1.1", *lines, *auth]
        if not any(line.lower().startswith("host:") for line in lines):
            own.insert(1, f"Host: 127.0.0.1:{self.port}")
        return ("\r\n".join(own) + "\r\n\r\n").encode("latin-1")


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    content = b""
    try:
        while True:
            piece = connection.recv(65536)
            content += piece
            if not piece or b'"error"' in content or content.endswith(b"0\r\n\r\n"):
                break
    except ConnectionResetError:
        pass
    return int(content.split()[1]) if content else 0, content


@contextmanager
def running(site: dict[str, Any], pool: WorkerPool, limits: Limits | None) -> Iterator[Server]:
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = make_app(Site(**{"token": TOKEN, "port": port, **site}), pool, limits)
        server = uvicorn.Server(server_config(app))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=300,
            ) as client:
                yield Server(port, client)
        finally:
            server.should_exit = True
            thread.join()


def until(holds: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
