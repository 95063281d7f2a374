"""Measurements in a process of their own: ``python -m memfit.measure.child``, JSON on stdin.

Each line asks for one measurement and is answered by one line of JSON on stdout; whatever the
model prints goes to stderr.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
import warnings
from typing import Any

__all__ = ["answer", "main"]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Measure what is asked; every end of it is an answer.

    Args:
        asked: as :class:`memfit.measure.process.Process` writes it.
    """
    from memfit.errors import MemfitError
    from memfit.trainer.recovery.out_of_memory import is_out_of_memory

    try:
        return {"status": "ok", **_measure(asked)}
    except MemfitError as error:
        return {"status": "crashed", "message": error.message}
    except Exception as error:  # whatever the model's own code or a library raises
        message = (str(error).strip().splitlines() or [""])[0]
        if is_out_of_memory(error):
            return {"status": "out_of_memory", "message": message}
        traceback.print_exc()
        return {"status": "crashed", "message": f"{type(error).__name__}: {message}"}


def _measure(asked: dict[str, Any]) -> dict[str, Any]:
    from memfit.measure.device import open_device
    from memfit.measure.steps import Subject, measure_plain, measure_recorded
    from memfit.measure.target import Target
    from memfit.step.job import resolve

    target = Target.of(asked["target"])
    job = resolve(**asked["recipe"], card=target.card)
    subject = Subject.of(job)
    device = open_device(target, job.recipe.allocator)
    if asked["is_recorded"]:
        return measure_recorded(subject, device, asked["batch_size"])
    return measure_plain(subject, device, asked["batch_size"], asked["steps"])


def main() -> int:
    """Read what is asked, measure, answer; then the next."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # what libraries and the model print is no answer
        warnings.filterwarnings("ignore")
        for line in sys.stdin:
            out.write(json.dumps(answer(json.loads(line))) + "\n")
            out.flush()
            gc.collect()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # all is said; threads of CUDA's libraries can end badly at a usual exit
