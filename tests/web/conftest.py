"""Servers whose workers answer at once, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from live_server import FAKE_WORKER, Server, running

from memfit.web.asking.security import Limits
from memfit.web.workers.workers import WorkerPool


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Start servers with fake workers."""
    with ExitStack() as stack:

        def start(
            *, limits: Limits | None = None, site: dict[str, Any] | None = None, **pool: Any
        ) -> Server:
            workers = WorkerPool(**{"command": FAKE_WORKER, "size": 1, **pool})
            return stack.enter_context(running(site or {}, workers, limits))

        yield start


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all tests that leave it as it was."""
    pool = WorkerPool(FAKE_WORKER, size=2, timeout_seconds=300)
    site = {"models": ("my.py:build",), "data": ("/some/where/images",)}
    with running(site, pool, Limits(body_seconds=3)) as started:
        yield started
