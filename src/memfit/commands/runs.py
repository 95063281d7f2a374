"""``memfit train``, and what is done with a trained run."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from memfit.commands.flags import JsonFlag, MemoryFlags, TrainingFlags, training_recipe
from memfit.commands.output import has_terminal, show, show_json, working, write
from memfit.errors import ExitCode, UsageError
from memfit.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from memfit.trainer.run.listener import Listener

__all__ = ["evaluate", "export", "predict", "train"]


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
    tensorboard: Annotated[bool, Parameter(negative=())] = False,
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
    from memfit.trainer.run.run import train as train_recipe

    changes = {
        **(memory_flags or MemoryFlags()).given(), **(training_flags or TrainingFlags()).given()
    }  # fmt: skip
    given = changes.keys() - {"shard"}
    if resume is not None and (model is not None or given or name is not None):
        raise UsageError(
            "--resume goes on with a run as it began.",
            hint="Give only --resume, --shard, --device and --memory; or start a new run.",
        )
    recipe = None if resume is not None else training_recipe(model, changes)
    reporter = reporter_of(as_json)
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
                memory_bytes=None if memory is None else parse_bytes(memory),
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
        write(to_json(ended | {"summary": result.summary}) + "\n")
    else:
        from memfit.report.training.run import render_run

        show(lambda console: render_run(result, console))
    return ExitCode.OK


def predict(
    run: Path,
    images: list[Path],
    /,
    *,
    top: int = 3,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """The likeliest classes of images, by a trained run.

    Parameters
    ----------
    run:
        A run's folder.
    images:
        Image files.
    top:
        Classes for each image.
    device:
        auto, cpu or cuda.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.errors import BadImage
    from memfit.trainer.run.trained import open_trained

    found, unreadable = [], []
    trained = working("loading", lambda: open_trained(run, device=device))
    for image in images:
        try:
            found += trained.predict([image], top)
        except BadImage as error:
            unreadable.append(error)
    if as_json:
        rows = [
            {"image": name, "classes": [{"class": c, "probability": p} for c, p in answers]}
            for name, answers in found
        ]
        show_json({"schema_version": 1, "predictions": rows})
    elif found:
        from memfit.report.training.run import render_predictions

        show(lambda console: render_predictions(found, console))
    for bad in unreadable:
        print(f"error: {bad.message}", file=sys.stderr)
    return ExitCode.ERROR if unreadable else ExitCode.OK


def evaluate(
    run: Path,
    *,
    split: str | None = None,
    figure: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """How good a trained run is: accuracy, by class, and who is taken for whom.

    Parameters
    ----------
    run:
        A run's folder.
    split:
        Of the run's data; test when omitted.
    figure:
        Write the confusion matrix: a .png, .pdf or .svg file.
    force:
        Overwrite the figure.
    device:
        auto, cpu or cuda.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.trainer.run.trained import open_trained

    if figure is not None:
        from memfit.report.figures import check_figure_path

        check_figure_path(figure, force=force)
    found = working("evaluating", lambda: open_trained(run, device=device).evaluate(split))
    if figure is not None:
        from memfit.report.training.confusion import confusion_figure

        confusion_figure(found, figure, force=force)
    if as_json:
        show_json(found.to_dict())
    else:
        from memfit.report.training.run import render_evaluation

        show(lambda console: render_evaluation(found, str(run), console))
    return ExitCode.OK


def export(
    run: Path,
    target: Path,
    /,
    *,
    which: Literal["best", "last"] = "best",
    average: Annotated[bool, Parameter(negative_bool=("no-",))] = True,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write a run's weights, and nothing else, to a .safetensors or .pt file.

    Parameters
    ----------
    run:
        A run's folder.
    target:
        Ends in .safetensors or .pt.
    which:
        Checkpoint: best or last.
    average:
        The moving average of the weights, where the run kept one.
    force:
        Overwrite.
    """
    from memfit.trainer.run.export import export_weights
    from memfit.trainer.run.run_folder import RunFolder

    done = export_weights(RunFolder.open(run), target, force, which=which, average=average)
    kind = "averaged weights" if done.averaged else "weights"
    write(f"{done.path}: {kind}, {done.tensors} tensors, {format_bytes(done.size_bytes)}\n")
    return ExitCode.OK


def reporter_of(as_json: bool) -> Listener:
    from memfit.report.training.progress import BarReporter, JsonReporter, LineReporter

    if as_json:
        return JsonReporter()
    if has_terminal():
        from rich.console import Console

        return BarReporter(Console(stderr=True))
    return LineReporter()
