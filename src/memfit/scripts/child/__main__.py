"""Run a script in a child process: ``python -P -m memfit.scripts.child PIPE ROOMS JOB``.

``PIPE`` is the number of a descriptor to which lines of JSON go, ``ROOMS`` are folders for what the
script writes, separated by colons, ``JOB`` is :class:`memfit.scripts.told.job.ScriptJob` as JSON.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import signal
import sys
import termios
from functools import partial
from pathlib import Path

from memfit.scripts.child.telling import tell
from memfit.scripts.shelter.processes import Shelter, enter, run_inside
from memfit.scripts.told.answer import Protection
from memfit.scripts.told.job import ScriptJob

__all__ = ["main"]


def main() -> None:
    """Make the shelter, run the script inside, tell what it left."""
    pipe, rooms = int(sys.argv[1]), tuple(Path(room) for room in sys.argv[2].split(":"))
    job = ScriptJob.of(json.loads(sys.argv[3]))
    os.set_inheritable(pipe, False)
    with contextlib.suppress(OSError):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    folder = Path(job.folder).resolve()
    os.chdir(folder)
    shelter = enter(rooms, folder, is_python_only=job.protection == "python")
    tell(pipe, protection=shelter.protection, notes=shelter.notes)
    code = run_inside(shelter, partial(_run_script, job, shelter, pipe))
    tell(pipe, ended=code)


def _run_script(job: ScriptJob, shelter: Shelter, pipe: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(pipe)  # lines that are no JSON: where it was, should a signal end it
    shadow = shelter.shadow if shelter.protection is Protection.PYTHON else None
    if shadow is not None:
        shadow.install()
    from memfit.scripts.child.session import run_session  # with torch: only in this process

    run_session(job, pipe, shadow)


if __name__ == "__main__":
    main()
