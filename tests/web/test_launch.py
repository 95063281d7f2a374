"""``memfit serve`` as a person starts and ends it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from live_server import FAKE_WORKER, until

from memfit.commands.serve import serve
from memfit.errors import UsageError
from memfit.web.launch import bind

FOLDER = Path(__file__).parent
SCRIPT = f"""
import memfit.web.launch as launch
from functools import partial
from memfit.commands.serve import serve
launch.run_server = partial(launch.run_server, command={FAKE_WORKER!r})
serve(port=0, host=HOST)
"""


def started(host: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("HOST", repr(host))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_without_a_word(ending: signal.Signals) -> None:
    with started("127.0.0.1") as process:
        assert process.stdout is not None
        url = re.fullmatch(
            r"The page: (http://127\.0\.0\.1:(\d+))/#token=(\S{32})\n", process.stdout.readline()
        )
        assert url is not None
        tunnel = process.stdout.readline()
        assert f"ssh -N -L {url[2]}:127.0.0.1:{url[2]} " in tunnel
        header = {"Authorization": f"Bearer {url[3]}"}
        assert httpx.get(f"{url[1]}/api/about", headers=header, timeout=300).status_code == 200
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        process.send_signal(ending)
        _, messages = process.communicate(timeout=300)
        assert messages == ""
        assert process.returncode == (0 if ending == signal.SIGINT else -signal.SIGTERM)
        until(lambda: not any(worker.is_running() for worker in workers))


def test_all_addresses_are_warned_of_and_still_need_the_token() -> None:
    with started("0.0.0.0") as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1].partition("/#")[0]
        assert httpx.get(f"{address}/api/about", timeout=300).status_code == 401
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=300)
        assert messages.startswith("warning: 0.0.0.0 can be reached from other machines")
        assert messages.count("\n") == 1


def test_a_taken_port() -> None:
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"Cannot listen on 127.0.0.1:{port}"):
            bind("127.0.0.1", port)
        with closing(bind("127.0.0.1", None)) as next_free:
            assert next_free.getsockname()[1] >= 8642


def test_answers_are_not_held_back() -> None:
    """Without TCP_NODELAY every answer on a kept connection takes 40 ms longer."""
    with closing(bind("127.0.0.1", 0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # what asyncio looks at


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "--port"),
        ({"workers": 0}, "--workers"),
        ({"timeout": 0.0}, "--timeout"),
        ({"gpu": "no-such"}, "Unknown GPU"),
        ({"host": "not an address"}, "no address"),
    ],
)
def test_impossible_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        serve(**options)  # type: ignore[arg-type]


def test_a_recipe_is_no_model() -> None:
    with pytest.raises(UsageError, match="recipe"):
        serve("recipe.toml")


def test_a_mistyped_file_is_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"no file nowhere/own\.py"):
        serve("nowhere/own.py:build")
