"""Some samples as pictures in the terminal: two pixels to a character."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from memfit.data.images.decode import MAX_PIXELS, Pixels, pixels_of, reading_images
from memfit.data.sets.dataset import Dataset, Split
from memfit.errors import BadImage
from memfit.files.names import clean
from memfit.report.console.terminal import Marks, marks_of, shorten

__all__ = ["preview", "spread_samples"]

_SIDE, _GAP, _MOST = 18, 2, 8
_UPPER_HALF = "▀"
#: Samples tried for each one shown, should some be unreadable.
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
    with reading_images():
        shown = list(_readable(dataset.train, count, max_pixels))
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

    >>> from memfit.data.sets.dataset import ArraySplit
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


def _shows_pictures(console: Console) -> bool:
    if not console.is_terminal or console.is_dumb_terminal or console.no_color:
        return False
    try:
        _UPPER_HALF.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return console.color_system in ("256", "truecolor")


def _readable(split: Split, count: int, max_pixels: int) -> Iterator[tuple[int, Pixels]]:
    """The samples, or where one cannot be read, the next that can."""
    for row in spread_samples(split, count):
        for other in range(row, min(row + _TRIES, len(split))):
            try:
                image = split.image(other, max_pixels=max_pixels)
                yield other, pixels_of(image, 3, split.sample_name(other))
                break
            except BadImage:
                continue


def _fit(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """In a square: ``(side, side, 3)``, -1 where the picture does not reach."""
    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    filter_ = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    small = np.asarray(Image.fromarray(pixels).resize(size, filter_))
    square = np.full((_SIDE, _SIDE, 3), -1, dtype=np.int16)
    top, left = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
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
