"""``memfit train``: train a recipe."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from memfit.commands.shared.flags import (
    JsonFlag,
    MemoryFlags,
    Switch,
    TrainingFlags,
    training_recipe,
)
from memfit.commands.shared.output import has_terminal, show, write
from memfit.errors import ExitCode, UsageError
from memfit.units import parse_bytes

if TYPE_CHECKING:
    from memfit.trainer.run.listener import Listener

__all__ = ["train"]


def train(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    name: str | None = None,
    runs: Path = Path("runs"),
    resume: Path | None = None,
    device: str = "auto",
    memory: str | None = None,
    tensorboard: Switch = False,
    as_json: JsonFlag = False,
) -> int:
    """Train with the planned batch; out of memory never ends it, and it resumes to the bit.

    Without arguments: the built-in cnn on the generated shapes. The first SIGINT or SIGTERM
    finishes the step and writes a checkpoint. On several devices:
    torchrun --nproc-per-node N -m memfit train ...

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    name:
        Of the run's folder; made of date, model and data when omitted.
    runs:
        The folder of all runs.
    resume:
        Go on with a run: its folder. Everything else is as it was.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    memory:
        Play a smaller device, such as 8GiB: a share of the GPU, or a virtual budget on the CPU.
    tensorboard:
        Write TensorBoard events into the run's folder.
    as_json:
        Print JSON lines and nothing else.
    """
    changes = (memory_flags or MemoryFlags()).given() | (training_flags or TrainingFlags()).given()
    given = changes.keys() - {"shard"}
    if resume is not None and (model is not None or given or name is not None):
        raise UsageError(
            "--resume goes on with a run as it began.",
            hint="Give only --resume, --shard, --device and --memory; or start a new run.",
        )
    recipe = None if resume is not None else training_recipe(model, changes)
    memory_bytes = None if memory is None else parse_bytes(memory)

    from memfit.trainer.run.run import train as train_recipe

    reporter = _reporter(as_json)
    if tensorboard:
        from memfit.trainer.run.listener import Listeners
        from memfit.trainer.run.tensorboard import TensorBoardWriter

        reporter = Listeners([reporter, TensorBoardWriter()])
    try:
        with redirect_stdout(sys.stderr):  # what a user's own model prints
            result = train_recipe(
                recipe,
                name=name,
                runs=runs,
                resume=resume,
                device=device,
                memory_bytes=memory_bytes,
                listener=reporter,
                command=sys.argv,
                **(changes if resume is not None else {}),
            )
    finally:
        reporter.ended()
    if int(os.environ.get("RANK", "0")) != 0:
        return ExitCode.OK
    if as_json:
        from memfit.files.metrics_file import to_json

        ended = {"event": "ended", "status": result.status, "run": str(result.path)}
        write(to_json(ended | {"summary": result.summary.to_dict()}) + "\n")
    else:
        from memfit.report.training.run import render_run

        show(lambda console: render_run(result, console))
    return ExitCode.OK


def _reporter(as_json: bool) -> Listener:
    from memfit.report.training.progress import BarReporter, JsonReporter, LineReporter

    if as_json:
        return JsonReporter()
    if has_terminal():
        from rich.console import Console

        return BarReporter(Console(stderr=True))
    return LineReporter()
