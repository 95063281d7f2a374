"""Start the server: find a port, say where it is, serve until Ctrl-C."""

from __future__ import annotations

import getpass
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import uvicorn

from memfit.errors import MemfitError, UsageError
from memfit.web.app import Site, make_app
from memfit.web.workers.workers import PLANNING_WORKER, WorkerPool

__all__ = ["DEFAULT_PORT", "bind", "new_token", "run_server", "server_config", "site_hosts"]

DEFAULT_PORT = 8642
_PORTS_TRIED = 50

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def new_token() -> str:
    """192 random bits as text for an address."""
    return secrets.token_urlsafe(24)


def bind(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name or an address of this machine.
        port: 0 is any free one; None is 8642 or the next free one.

    Raises:
        UsageError: the port is taken, or the host is none of this machine.
    """
    if port is not None:
        return _bind(host, port)
    for tried in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED):
        with suppress(UsageError):
            return _bind(host, tried)
    return _bind(host, DEFAULT_PORT)  # says why not


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # without the protocol asyncio does not turn Nagle's delay off (40 ms on every answer)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host!r} is no address of this machine: {error.strerror}.") from None
    try:
        if sys.platform != "win32":  # there it would let two servers have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            hint="Choose another --port; without one the next free port is taken.",
        ) from None
    return listener


def site_hosts(host: str) -> tuple[tuple[str, ...], bool]:
    """Names that a browser may know the server by, and whether it has all of the addresses."""
    name = f"[{host}]" if ":" in host else host.lower()
    if host not in ("0.0.0.0", "::", ""):
        return tuple(dict.fromkeys((*_LOOPBACK_NAMES, name))), False
    own = (socket.gethostname().lower(), socket.getfqdn().lower())
    return tuple(dict.fromkeys((*_LOOPBACK_NAMES, *own))), True


def run_server(
    site: Site,
    listener: socket.socket,
    *,
    host: str,
    workers: int = 2,
    timeout_seconds: float = 60.0,
    open_browser: bool = False,
    command: Sequence[str] = PLANNING_WORKER,
) -> None:
    """Serve until Ctrl-C.

    Args:
        site: what is served; its port and hosts are set here.
        listener: from :func:`bind`.
        host: as it was asked for.
        workers: processes that plan, at most.
        timeout_seconds: what one plan may take.
        open_browser: open the page.
        command: of a worker process.

    Raises:
        MemfitError: the server could not start.
    """
    port: int = listener.getsockname()[1]
    hosts, any_address = site_hosts(host)
    site = replace(site, port=port, hosts=hosts, any_address=any_address)
    pool = WorkerPool(command, size=workers, timeout_seconds=timeout_seconds)
    server = uvicorn.Server(server_config(make_app(site, pool)))
    _warn(host)
    url = _announce(site, host)
    if open_browser:
        webbrowser.open(url)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # the usual end
    except SystemExit:
        raise MemfitError("The server could not start.") from None
    finally:
        listener.close()


def server_config(app: object) -> uvicorn.Config:
    """How uvicorn runs the application: plain HTTP/1.1, silent, trusting no proxy."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application
        http="h11", ws="none", lifespan="on", log_level="critical", access_log=False,
        proxy_headers=False, server_header=False, limit_concurrency=100,
        timeout_graceful_shutdown=1, h11_max_incomplete_event_size=32 << 10,
    )  # fmt: skip


def _announce(site: Site, host: str) -> str:
    shown = "127.0.0.1" if site.any_address else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{site.port}/#token={site.token}"
    tunnel = f"ssh -N -L {site.port}:{shown}:{site.port} {_user()}@{socket.gethostname()}"
    print(f"The page: {url}")
    print(f"From another machine, first: {tunnel}")
    print("Ctrl-C ends it.", flush=True)
    return url


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "user"


def _warn(host: str) -> None:
    if _is_loopback(host):
        return
    print(
        f"warning: {host} can be reached from other machines, and nothing is encrypted: who sees "
        "the address with its token can use this server. The SSH tunnel is safer.",
        file=sys.stderr,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
