"""``memfit serve``: the page, live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from memfit.commands.shared.flags import Whole
from memfit.errors import ExitCode, UsageError

__all__ = ["serve"]

_LARGEST_PORT = 65535


def serve(
    *models: str,
    gpu: str | None = None,
    host: str = "127.0.0.1",
    port: Whole = None,
    data: Annotated[list[str] | None, Parameter(negative=())] = None,
    studies: Path = Path("studies"),
    runs: Path = Path("runs"),
    workers: int = 2,
    timeout: float = 60.0,
    open_browser: Annotated[bool, Parameter(name="--open", negative=())] = False,
) -> int:
    """The page in a browser: plans while you ask, and the data, studies and runs of this machine.

    Parameters
    ----------
    models:
        Your own, such as path/to/file.py:build; those of the libraries are there anyway.
    gpu:
        The card to begin with, such as rtx-3060, or a size such as 11GiB; the local one if omitted.
    host:
        The address to listen on; others than this machine's own can reach what is not loopback.
    port:
        8642 or the next free one when omitted; 0 is any.
    data:
        Also show this data: a named set or a path; may be repeated.
    studies:
        The folder of all studies.
    runs:
        The folder of all runs.
    workers:
        Processes that plan, at most.
    timeout:
        Seconds that one plan may take.
    open_browser:
        Open the page.
    """
    _check(models, port, workers, timeout)

    from memfit.web.app import Site
    from memfit.web.asking.cards import card_of, local_card
    from memfit.web.launch import bind, new_token, run_server

    card = card_of(gpu, None)
    local = local_card()
    if card is None and local is not None:
        card = local[0]
    listener = bind(host, port)
    site = Site(
        token=new_token(), port=listener.getsockname()[1], models=models, data=tuple(data or ()),
        studies=studies, runs=runs, gpu=None if card is None else card.key,
    )  # fmt: skip
    run_server(
        site, listener, host=host, workers=workers, timeout_seconds=timeout,
        open_browser=open_browser,
    )  # fmt: skip
    return ExitCode.OK


def _check(models: tuple[str, ...], port: int | None, workers: int, timeout: float) -> None:
    for model in models:
        if Path(model).suffix == ".toml":
            raise UsageError(f"{model} is a recipe; name models.", hint="Such as my.py:build")
        file, colon, _ = model.rpartition(":")
        if colon and Path(file).suffix == ".py" and not Path(file).is_file():
            raise UsageError(f"There is no file {file}.")
    if port is not None and not 0 <= port <= _LARGEST_PORT:
        raise UsageError(f"--port is {port}; it must be 0 to {_LARGEST_PORT}.")
    if not 1 <= workers <= 64:
        raise UsageError(f"--workers is {workers}; it must be 1 to 64.")
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout is {timeout}; it must be positive.")
