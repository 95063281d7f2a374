"""Which ``torchrun`` started this process, so that a restart finds the run it began."""

from __future__ import annotations

import os
import socket

import psutil

__all__ = ["launch", "restarts"]


def launch() -> str | None:
    """Machine and process of the ``torchrun`` above, the same for all its restarts; None without.

    ``TORCHELASTIC_RUN_ID`` does not tell two of them apart: it is "none" unless given.
    """
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return None
    parent = psutil.Process(os.getppid())
    return f"{socket.gethostname()} {parent.pid} {parent.create_time():.2f}"


def restarts() -> int:
    """How often ``torchrun --max-restarts`` has started the ranks again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
