"""Some samples as pictures in the terminal: two pixels to a character."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

import numpy as np
from PIL import Image
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from memfit.data.images.decode import MAX_PIXELS, Pixels, pixels_of, reading_images
from memfit.data.samples.dataset import Dataset, Split
from memfit.errors import BadImage
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, marks_of, shorten

__all__ = ["preview", "readable_sample", "scaled", "spread_samples"]

_SIDE, _GAP, _MOST = 18, 2, 8
_UPPER_HALF = "▀"
#: Samples tried for each picture, should some be unreadable.
_TRIES = 8


def preview(dataset: Dataset, console: Console, *, max_pixels: int = MAX_PIXELS) -> Text | None:
    """One row of samples, spread over the classes of the training split.

    Args:
        dataset: to look at.
        console: where it will be printed.
        max_pixels: larger images are left out.

    Returns:
        None where the console shows no colours, or nothing can be read.
    """
    if not _shows_pictures(console) or not dataset.splits:
        return None
    count = min(_MOST, (console.width - 2 + _GAP) // (_SIDE + _GAP))
    train = dataset.train
    with reading_images():
        found = (
            readable_sample(train, range(row, len(train)), max_pixels=max_pixels)
            for row in spread_samples(train, count)
        )
        shown = [sample for sample in found if sample is not None]
    if not shown:
        return None
    marks, text = marks_of(console), Text("Samples", style="bold", no_wrap=True)
    pictures = [_fit(pixels) for _, pixels in shown]
    for line in range(_SIDE // 2):
        text.append("\n")
        for picture in pictures:
            text.append("  ")
            _append_line(text, picture, line)
    labels = "".join("  " + _label(dataset, row, marks) for row, _ in shown)
    return text.append(f"\n{labels.rstrip()}", style="not bold dim")


def spread_samples(split: Split, count: int) -> list[int]:
    """Sample numbers, a class each in turn while there are new ones, else evenly spread.

    Args:
        split: to choose from.
        count: of samples at most.

    >>> from memfit.data.samples.array_split import ArraySplit
    >>> images = np.zeros((6, 2, 2), dtype=np.uint8)
    >>> spread_samples(ArraySplit("train", images, np.array([0, 0, 0, 1, 1, 1])), 2)
    [0, 3]
    """
    if split.labels is None:
        return list(range(0, len(split), max(1, len(split) // max(1, count))))[:count]
    classes, first = np.unique(split.labels, return_index=True)
    if len(classes) > count:
        chosen = np.linspace(0, len(classes) - 1, count).round().astype(int)
        return [int(row) for row in first[chosen]]
    per_class, extra = divmod(count, len(classes) or 1)
    rows: list[int] = []
    for number, label in enumerate(classes):
        members = np.flatnonzero(split.labels == label)
        take = min(len(members), per_class + (number < extra))
        places = (np.arange(take) * len(members)) // max(1, take)
        rows += [int(row) for row in members[places]]
    return rows


def readable_sample(
    split: Split, rows: Iterable[int], channels: int = 3, *, max_pixels: int = MAX_PIXELS
) -> tuple[int, Pixels] | None:
    """The first of a few samples that can be read: its number and pixels ``(H, W, C)``.

    Args:
        split: to read from.
        rows: sample numbers, of which eight are tried.
        channels: 1 or 3.
        max_pixels: larger images are left out.
    """
    for row in islice(rows, _TRIES):
        with suppress(BadImage):
            image = split.image(row, max_pixels=max_pixels)
            return row, pixels_of(image, channels, split.sample_name(row), split.window)
    return None


def scaled(pixels: Pixels, side: int, resampling: Image.Resampling) -> Pixels:
    """Pixels ``(H, W)`` or ``(H, W, 3)`` as a picture whose longer side is ``side``."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def _shows_pictures(console: Console) -> bool:
    if not console.is_terminal or console.is_dumb_terminal or console.no_color:
        return False
    try:
        _UPPER_HALF.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return console.color_system in ("256", "truecolor")


def _fit(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """In a square: ``(side, side, 3)``, -1 where the picture does not reach."""
    is_large = max(pixels.shape[:2]) > _SIDE
    small = scaled(pixels, _SIDE, Image.Resampling.BOX if is_large else Image.Resampling.NEAREST)
    square = np.full((_SIDE, _SIDE, 3), -1, dtype=np.int16)
    height, width = small.shape[:2]
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    square[top : top + height, left : left + width] = small
    return square


def _append_line(
    text: Text, picture: np.ndarray[tuple[int, ...], np.dtype[np.int16]], line: int
) -> None:
    for upper, lower in zip(picture[2 * line], picture[2 * line + 1], strict=True):
        if upper[0] < 0 and lower[0] < 0:
            text.append(" ")
        elif upper[0] < 0:
            text.append("▄", Style(color=_colour(lower)))
        else:
            background = _colour(lower) if lower[0] >= 0 else None
            text.append(_UPPER_HALF, Style(color=_colour(upper), bgcolor=background))


def _colour(pixel: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> Color:
    return Color.from_rgb(*(int(value) for value in pixel))


def _label(dataset: Dataset, row: int, marks: Marks) -> str:
    split = dataset.train
    number = split.label(row)
    name = dataset.classes[number] if 0 <= number < len(dataset.classes) else split.sample_name(row)
    short = shorten(clean(name), _SIDE, marks)
    return short + " " * max(0, _SIDE - cell_len(short))
