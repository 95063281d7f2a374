"""``memfit predict``: what a trained run sees in images."""

from __future__ import annotations

import sys
from pathlib import Path

from memfit.commands.shared.flags import JsonFlag
from memfit.commands.shared.output import show, show_json, working
from memfit.errors import BadImage, ExitCode

__all__ = ["predict"]


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
