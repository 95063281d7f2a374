"""How a script ended, told in one sentence."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memfit.scripts.child.places import own_traceback, place_of_error
from memfit.scripts.child.watch import Enough
from memfit.scripts.told.answer import Status
from memfit.scripts.told.job import ScriptJob
from memfit.trainer.recovery.out_of_memory import is_out_of_memory

__all__ = ["Ending", "exited", "replace_exit", "run_to_its_end"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a script ended.

    Args:
        status: in a word.
        message: in a sentence.
        place: the user's file and line, where there is one.
        traceback: of the script's own error.
        exit_code: of the script.
    """

    status: Status
    message: str = ""
    place: str = ""
    traceback: str = ""
    exit_code: int = 0


def run_to_its_end(job: ScriptJob, missing: Callable[[BaseException], str]) -> Ending:
    """Run a script as ``python script.py`` does, and say how it ended.

    Args:
        job: the script.
        missing: what the engine lacks where a script raised; empty where the script is to blame.
    """
    try:
        _run(job)
    except Enough:
        return Ending(Status.STOPPED)
    except SystemExit as error:
        return exited(error.code)
    except KeyboardInterrupt as error:
        return Ending(
            Status.EXITED, "It was interrupted.", place_of_error(error), "", 128 + signal.SIGINT
        )
    except BaseException as error:
        return _raised(error, missing(error))
    return Ending(Status.ENDED)


def _raised(error: BaseException, missing: str) -> Ending:
    place = place_of_error(error)
    if is_out_of_memory(error):
        return Ending(
            Status.OUT_OF_MEMORY, str(error).strip(), place, own_traceback(error), exit_code=1
        )
    if missing:
        return Ending(Status.FAILED, missing, place, exit_code=1)
    first = (str(error).strip().splitlines() or [""])[0]
    message = f"{type(error).__name__}: {first}".removesuffix(": ")
    return Ending(Status.FAILED, message, place, own_traceback(error), 1)


def exited(code: object) -> Ending:
    """What ``sys.exit`` was given: nothing, a number, or words that mean 1."""
    if code is None or code == 0:
        return Ending(Status.ENDED)
    if not isinstance(code, int):
        return Ending(Status.EXITED, str(code), exit_code=1)
    message = f"The script ended with exit code {code}."
    if code == 2:
        message += " Most scripts mean by 2 that they want other arguments."
    return Ending(Status.EXITED, message, exit_code=code)


def _run(job: ScriptJob) -> None:
    """``__main__``, ``sys.argv`` and ``sys.path[0]`` are as Python sets them."""
    if job.is_module:
        sys.argv = [job.script, *job.words]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(job.script, run_name="__main__", alter_sys=True)
        return
    sys.argv = [job.script, *job.words]
    sys.path.insert(0, str(Path(job.script).resolve().parent))
    runpy.run_path(job.script, run_name="__main__")


def replace_exit(told: Callable[[Ending], None]) -> None:
    """``os._exit`` tells how it ended first; not in processes that the script forked."""
    leave = os._exit
    process = os.getpid()

    def leave_and_tell(status: int) -> None:
        if os.getpid() == process:
            told(exited(status))
        leave(status)

    os._exit = leave_and_tell  # type: ignore[assignment]
