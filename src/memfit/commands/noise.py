"""``memfit noise``: the gradient noise scale of a recipe."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from memfit.commands.shared.flags import (
    JsonFlag,
    MemoryFlags,
    Switch,
    TrainingFlags,
    Whole,
    training_recipe,
)
from memfit.commands.shared.output import counting, show, show_json
from memfit.errors import ExitCode
from memfit.files.output_path import check_figure_path

__all__ = ["noise"]


def noise(
    model: str | None = None,
    *,
    memory_flags: MemoryFlags | None = None,
    training_flags: TrainingFlags | None = None,
    micro_batch: Whole = None,
    micro_batches: Whole = None,
    every: int = 1,
    by_layer: Switch = False,
    figure: Path | None = None,
    force: Switch = False,
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
    if figure is not None:
        check_figure_path(figure, force=force)
    changes = (memory_flags or MemoryFlags()).given() | (training_flags or TrainingFlags()).given()
    steps = changes.pop("steps", 200)
    recipe = training_recipe(model, changes)

    from memfit.step.job import resolve
    from memfit.study.measuring.noise import measure_noise, micro_batches_of

    small, number = micro_batches_of(recipe, micro_batch, micro_batches)
    with redirect_stdout(sys.stderr):  # what a user's own model prints
        measured = counting("steps", lambda step: measure_noise(
            resolve(recipe), steps=steps, micro_batch=small, micro_batches=number, every=every,
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
