"""``memfit noise`` and ``memfit study``: what batch size changes."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from memfit.commands.flags import JsonFlag, MemoryFlags, TrainingFlags, Whole, training_recipe
from memfit.commands.output import counting, has_terminal, show, show_json, write
from memfit.errors import ExitCode

if TYPE_CHECKING:
    from memfit.study.trials.listener import StudyListener

__all__ = ["noise", "study"]


def noise(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    micro_batch: Whole = None,
    micro_batches: Whole = None,
    every: int = 1,
    by_layer: Annotated[bool, Parameter(negative=())] = False,
    figure: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """The gradient noise scale B_simple of a recipe, from one short training.

    --steps is the length of this training, 200 when omitted; the learning rate follows the
    schedule of the recipe's own.

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    micro_batch:
        Samples behind each small gradient; an eighth of the global batch when omitted.
    micro_batches:
        How many make the large gradient, which is one optimizer step; 8 when omitted.
    every:
        Measure one of so many steps.
    by_layer:
        Also for each top-level module.
    figure:
        Write the noise scale over the training: a .png, .pdf or .svg file.
    force:
        Overwrite the figure.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.study.measuring.noise import measure_noise, micro_batches_of

    if figure is not None:
        from memfit.report.figures import check_figure_path

        check_figure_path(figure, force=force)
    changes = {
        **(memory_flags or MemoryFlags()).given(), **(training_flags or TrainingFlags()).given()
    }  # fmt: skip
    steps = changes.pop("steps", 200)
    recipe = training_recipe(model, changes)
    small, number = micro_batches_of(recipe, micro_batch, micro_batches)
    with redirect_stdout(sys.stderr):  # what a user's own model prints
        measured = counting("steps", lambda step: measure_noise(
            recipe, steps=steps, micro_batch=small, micro_batches=number, every=every,
            device=device, by_layer=by_layer, progress=step,
        ))  # fmt: skip
    if int(os.environ.get("RANK", "0")) != 0:
        return ExitCode.OK
    content = measured.to_dict()
    if figure is not None:
        from memfit.report.study.noise import noise_figure

        noise_figure(content, figure, force=force)
        print(f"wrote {figure}", file=sys.stderr)
    if as_json:
        show_json(content)
    else:
        from memfit.report.study.noise import render_noise

        show(lambda console: render_noise(content, console))
    return ExitCode.OK


def study(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    batch_sizes: str | None = None,
    seeds: int = 3,
    budget: str | None = None,
    goal: str | None = None,
    folder: Path | None = None,
    gpu: str | None = None,
    by_layer: Annotated[bool, Parameter(negative=())] = False,
    demo: Annotated[bool, Parameter(negative=())] = False,
    ray: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=(0, 1))] = None,
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """What batch size changes here: speed, memory, noise, steps to a goal, learning rate.

    Ends in one recommendation. Every trial is an ordinary run in the study's folder: interrupted,
    the same command goes on; with more batch sizes it reuses what is there.

    Parameters
    ----------
    model:
        As for memfit plan; or a recipe file ending in .toml.
    batch_sizes:
        Global ones, such as 16,64,256 or 16,32,...,1024.
    seeds:
        Whole trials of each batch size.
    budget:
        Time for everything, such as 5m; trials become shorter than the recipe's epochs.
    goal:
        accuracy=0.95 or loss=0.3, on the test images; what all sizes reach when omitted.
    folder:
        Of the study; studies/MODEL-DATA when omitted.
    gpu:
        The card whose memory is the ceiling; the local one when omitted.
    by_layer:
        Measure the gradient noise of each top-level module, too.
    demo:
        A small network on the generated shapes, in about two minutes.
    ray:
        Run the trials on Ray: a local one, or the cluster at this address.
    device:
        auto (a GPU where there is one), cpu, cuda or cuda:1.
    as_json:
        Print the study as JSON and nothing else.
    """
    from memfit.commands.study_words import study_asked, study_folder, write_reports
    from memfit.study.study import run_study

    changes = {
        **(memory_flags or MemoryFlags()).given(), **(training_flags or TrainingFlags()).given()
    }  # fmt: skip
    asked = study_asked(
        None if model is None and demo else training_recipe(model, changes),
        batch_sizes, seeds=seeds, budget=budget, goal=goal, demo=demo, has_flags=bool(changes),
    )  # fmt: skip
    listener = study_listener()
    try:
        with redirect_stdout(sys.stderr):  # what a user's own model prints
            found = run_study(
                **asked,
                folder=folder or study_folder(asked["recipe"], demo=demo),
                device=device,
                gpu=gpu,
                by_layer=by_layer,
                ray=False if ray is None else (ray[0] if ray else True),
                listener=listener,
            )
            write_reports(found)
    except KeyboardInterrupt:
        listener.note("Stopped; what ran is kept. The same command goes on.")
        raise
    finally:
        listener.ended()
    if as_json:
        from memfit.files.metrics_file import to_json

        write(to_json(found.to_dict(), indent=2) + "\n")
    else:
        from memfit.report.study.text import render_study

        show(lambda console: render_study(found, console))
    return ExitCode.OK


def study_listener() -> StudyListener:
    from memfit.report.study.progress import StudyBar, StudyLines

    if has_terminal():
        from rich.console import Console

        return StudyBar(Console(stderr=True))
    return StudyLines()
