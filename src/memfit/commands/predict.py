"""``memfit predict``: what a trained run sees in images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.commands.shared.flags import JsonFlag
from memfit.commands.shared.output import show, show_json, working, write
from memfit.errors import BadImage, DataError, ExitCode

if TYPE_CHECKING:
    from PIL.Image import Image

    from memfit.recipe.fields import Task

__all__ = ["predict"]


def predict(
    run: Path,
    images: list[Path],
    /,
    *,
    top: int = 3,
    masks: Path = Path("masks"),
    device: str = "auto",
    as_json: JsonFlag = False,
) -> int:
    """What a trained run sees in images: classes, labels or values; masks are written as files.

    Parameters
    ----------
    run:
        A run's folder.
    images:
        Image files.
    top:
        Classes or labels for each image.
    masks:
        Where masks are written, a .png for each image, in the size that the model gets.
    device:
        auto, cpu or cuda.
    as_json:
        Print JSON and nothing else.
    """
    from memfit.trainer.run.trained import open_trained

    found, written, unreadable = [], [], []
    trained = working("loading", lambda: open_trained(run, device=device))
    for image in images:
        try:
            if trained.task == "masks":
                (answer,) = trained.predict_masks([image])
                written.append((str(image), _write_mask(masks, image, answer[1])))
            else:
                found += trained.predict([image], top)
        except BadImage as error:
            unreadable.append(error)
    if as_json:
        rows = [{"image": name, **_plain(trained.task, answers)} for name, answers in found]
        rows += [{"image": name, "mask": str(path)} for name, path in written]
        show_json({"schema_version": 1, "predictions": rows})
    elif written:
        write("".join(f"{name}  {path}\n" for name, path in written))
    elif found:
        from memfit.report.training.run import render_predictions

        show(lambda console: render_predictions(found, console, trained.task))
    for bad in unreadable:
        print(f"error: {bad.message}", file=sys.stderr)
    return ExitCode.ERROR if unreadable else ExitCode.OK


def _plain(task: Task, answers: list[tuple[str, float]]) -> dict[str, Any]:
    if task == "values":
        return {"values": dict(answers)}
    word, many = ("class", "classes") if task == "classes" else ("label", "labels")
    return {many: [{word: name, "probability": share} for name, share in answers]}


def _write_mask(folder: Path, image: Path, mask: Image) -> Path:
    """Write a mask under the name of its image.

    Raises:
        DataError: it cannot be written.
    """
    path = folder / f"{image.stem}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mask.save(path)
    except OSError as error:
        raise DataError(f"Cannot write {path}: {error.strerror or error}.") from None
    return path
