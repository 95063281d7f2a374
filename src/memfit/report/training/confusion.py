"""Who is taken for whom: the confusion matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memfit.errors import UsageError
from memfit.files.output_path import check_figure_path
from memfit.report.figures import write_figure
from memfit.report.training.words import split_word
from memfit.trainer.step.evaluation import Evaluation

__all__ = ["confusion_figure"]

#: More classes than this get no numbers in their cells.
_MOST_NUMBERS = 20


def confusion_figure(found: Evaluation, path: Path, *, force: bool) -> None:
    """Draw the confusion matrix: rows are true classes, columns are answers.

    Args:
        found: with its confusion.
        path: ends in ``.png``, ``.pdf`` or ``.svg``.
        force: overwrite.

    Raises:
        UsageError: another ending, the file exists, or the answers are no classes.
        DataError: it cannot be written.
    """
    check_figure_path(path, force=force)
    if not found.confusion:
        raise UsageError(f"The answers are {found.task}, which are not taken for each other.")
    from matplotlib.figure import Figure

    counts = np.asarray(found.confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(16.0, 2.5 + 0.5 * len(counts))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    images = f"{found.samples:,} {split_word(found.split)} images"
    axes.set_title(f"{found.facts.shown(found.score)} on {images}")
    places = range(len(counts))
    axes.set_xticks(places, found.classes, rotation=60, ha="right")
    axes.set_yticks(places, found.classes)
    if len(counts) <= _MOST_NUMBERS:
        for row in places:
            for column in places:
                if counts[row, column]:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    text = f"{counts[row, column]:,}"
                    axes.text(column, row, text, ha="center", va="center", color=colour, size=8)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    write_figure(figure, path)
