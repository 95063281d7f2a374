"""``memfit evaluate``: how good a trained run is."""

from __future__ import annotations

from pathlib import Path

from memfit.commands.shared.flags import JsonFlag, Switch
from memfit.commands.shared.output import show, show_json, working
from memfit.errors import ExitCode
from memfit.files.output_path import check_figure_path

__all__ = ["evaluate"]


def evaluate(
    run: Path,
    *,
    split: str | None = None,
    figure: Path | None = None,
    force: Switch = False,
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
    if figure is not None:
        check_figure_path(figure, force=force)

    from memfit.trainer.run.trained import open_trained

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
