"""A sheet of samples: a row per class, one image channel by channel, and how values spread."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import MAX_PIXELS, Pixels, reading_images
from memfit.data.samples.dataset import Dataset, Split
from memfit.errors import DataError
from memfit.files.names import clean
from memfit.files.output_path import check_figure_path, write_output
from memfit.report.console.terminal import UNICODE, shorten
from memfit.report.data.preview import readable_sample, scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from memfit.data.facts.inspection import Inspection
    from memfit.data.facts.statistics import PixelStatistics

__all__ = ["samples_figure", "write_figure"]

_COLUMNS, _CLASSES, _ROWS_WITHOUT_CLASSES = 12, 16, 6
_CELL, _GAP = 96, 8  # pixels of a sample in the mosaic, and between two
_WIDTH, _MARGIN, _CHARACTER = 10.0, 0.35, 0.088  # inches
_TITLE, _PANELS = 0.85, 2.75  # inches
_SIDE, _BETWEEN = 1.3, 0.1  # inches of a channel's picture, and between two
_DPI = 160
_NAME_LENGTH = 22
_INK, _FAINT = "#20242a", "#6b7280"
#: Grey of a cell around its picture, so that white pictures have an edge.
_PAPER = 240
_COLOURS = {1: ("#4b5563",), 3: ("#dc2626", "#16a34a", "#2563eb")}
_CHANNEL_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}

_Mosaic = NDArray[np.uint8]


def samples_figure(
    dataset: Dataset,
    inspection: Inspection,
    path: str | Path,
    *,
    force: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """Write the sheet of samples; the same data give the same picture.

    Args:
        dataset: whose training split is shown.
        inspection: of that data set.
        path: of the file: ``.png``, ``.pdf`` or ``.svg``.
        force: overwrite it.
        max_pixels: larger images are left out.

    Returns:
        The path.

    Raises:
        UsageError: the suffix is unknown.
        DataError: the file exists or cannot be written, or no image can be read.
    """
    path = check_figure_path(path, force=force)
    if inspection.statistics is None:
        raise DataError(f"Nothing to draw: no image of {inspection.statistics_of} can be read.")
    with reading_images(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in any script
        figure = _sheet(dataset, inspection, max_pixels)
        write_figure(figure, path)
    return path


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all.

    Args:
        figure: of matplotlib.
        path: ends in ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        DataError: it cannot be written.
    """
    import matplotlib as mpl

    date = {".pdf": "CreationDate", ".svg": "Date"}.get(path.suffix.lower())
    metadata: dict[str, Any] = {date: None} if date else {}
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "memfit"}):
        figure.savefig(content, format=path.suffix[1:].lower(), dpi=_DPI, metadata=metadata)
    write_output(path, content.getvalue())


# -- the sheet -------------------------------------------------------------------------------------


def _sheet(dataset: Dataset, inspection: Inspection, max_pixels: int) -> Figure:
    from matplotlib.figure import Figure

    labels, rows = _rows(dataset, max_pixels)
    mosaic = _mosaic(rows)
    left = _MARGIN + max(map(len, labels), default=0) * _CHARACTER + 0.15 * any(labels)
    grid_width = _WIDTH - left - _MARGIN
    grid_height = grid_width * mosaic.shape[0] / mosaic.shape[1]
    height = _TITLE + grid_height + _PANELS
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    _title(figure, dataset, inspection, len(rows), height)
    _draw_mosaic(_axes(figure, left, _PANELS, grid_width, grid_height), mosaic, labels)
    assert inspection.statistics is not None
    channels = len(inspection.statistics.mean)
    _draw_channels(figure, _telling(rows), channels)
    left = _MARGIN + (channels + (channels > 1)) * (_SIDE + _BETWEEN) + 0.55
    _heading(figure, left, f"Pixel values of {dataset.train.name}")
    axes = _axes(figure, left, 0.45, _WIDTH - _MARGIN - left, _PANELS - 1.35)
    _draw_histogram(axes, inspection.statistics)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """A place on the sheet, in inches."""
    all_width, all_height = figure.get_size_inches()
    box = (left / all_width, bottom / all_height, width / all_width, height / all_height)
    return figure.add_axes(box)


def _heading(figure: Figure, left: float, words: str) -> None:
    x, y = left / _WIDTH, (_PANELS - 0.5) / figure.get_size_inches()[1]
    figure.text(x, y, words, size=11, weight="bold", color=_INK)


def _title(
    figure: Figure, dataset: Dataset, inspection: Inspection, rows: int, height: float
) -> None:
    name = shorten(clean(dataset.name), 64, UNICODE)
    facts = [f"{len(dataset.train):,} images in {dataset.train.name}"]
    count = len(dataset.classes)
    if count > _CLASSES:
        facts.append(f"{rows} of {count:,} classes, evenly spread")
    elif count:
        facts.append(f"{count} classes")
    delivered = inspection.delivered
    if delivered is not None and delivered.height is not None:
        facts.append(f"each ({delivered.channels}, {delivered.height}, {delivered.width})")
    elif delivered is not None:
        facts.append("sizes vary: scaled to fit")
    left, top = _MARGIN / _WIDTH, 1 - 0.32 / height
    figure.text(left, top, name, size=15, weight="bold", color=_INK, va="center", parse_math=False)
    words = "   ·   ".join(facts)
    figure.text(left, top - 0.27 / height, words, size=9.5, color=_FAINT, va="center")


# -- samples ---------------------------------------------------------------------------------------

_Cells = list[tuple[int, Pixels]]


def _rows(dataset: Dataset, max_pixels: int) -> tuple[list[str], list[_Cells]]:
    """A label and samples for each line; each cell has the sample's number and its pixels."""
    split = dataset.train
    if split.labels is None or not dataset.classes:
        everything = np.arange(len(split))
        cells = list(_samples(split, everything, _COLUMNS * _ROWS_WITHOUT_CLASSES, max_pixels))
        lines = [cells[k : k + _COLUMNS] for k in range(0, len(cells), _COLUMNS)]
        return [""] * len(lines), lines
    count = len(dataset.classes)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _CLASSES)).round().astype(int))
    labels = [shorten(clean(dataset.classes[k]), _NAME_LENGTH, UNICODE) for k in chosen]
    members = (np.flatnonzero(split.labels == k) for k in chosen)
    return labels, [list(_samples(split, rows, _COLUMNS, max_pixels)) for rows in members]


def _samples(
    split: Split, rows: NDArray[np.int64], count: int, max_pixels: int
) -> Iterator[tuple[int, Pixels]]:
    """Evenly spread over ``rows``; for one that cannot be read, the next that can."""
    count = min(count, len(rows))
    ends = [len(rows) * place // count for place in range(count + 1)] if count else [0]
    for start, end in pairwise(ends):
        found = readable_sample(split, rows[start:end].tolist(), max_pixels=max_pixels)
        if found is not None:
            row, pixels = found
            is_large = max(pixels.shape[:2]) > _CELL
            yield row, scaled(pixels, _CELL, Image.Resampling.LANCZOS) if is_large else pixels


def _mosaic(rows: Sequence[_Cells]) -> _Mosaic:
    """All samples in one picture on white: ``(H, W, 3)``."""
    columns = _COLUMNS
    step = _CELL + _GAP
    size = (max(1, len(rows)) * step - _GAP, columns * step - _GAP, 3)
    mosaic = np.full(size, 255, dtype=np.uint8)
    for line, cells in enumerate(rows):
        for column, (_, pixels) in enumerate(cells):
            picture = scaled(pixels, _CELL, Image.Resampling.NEAREST)
            height, width = picture.shape[:2]
            top, left = line * step, column * step
            mosaic[top : top + _CELL, left : left + _CELL] = _PAPER
            top, left = top + (_CELL - height) // 2, left + (_CELL - width) // 2
            mosaic[top : top + height, left : left + width] = picture
    return mosaic


def _draw_mosaic(axes: Axes, mosaic: _Mosaic, labels: Sequence[str]) -> None:
    axes.imshow(mosaic, interpolation="none", aspect="auto")
    axes.set_axis_off()
    for line, label in enumerate(labels):
        y = line * (_CELL + _GAP) + _CELL / 2
        axes.text(
            -14, y, label, size=9.5, color=_INK, ha="right", va="center", parse_math=False,
            clip_on=False,
        )  # fmt: skip
        if mosaic[line * (_CELL + _GAP) :][:_CELL].min() == 255:
            axes.text(0, y, "no image", size=9, color=_FAINT, va="center", style="italic")


# -- panels ----------------------------------------------------------------------------------------


def _telling(rows: Sequence[_Cells]) -> Pixels:
    """The sample whose channels differ most: a grey one would show nothing."""
    cells = [pixels for line in rows for _, pixels in line]
    if not cells:
        return np.full((1, 1, 3), 255, dtype=np.uint8)
    return max(cells, key=lambda pixels: float(np.ptp(pixels.astype(np.int16), axis=2).mean()))


def _draw_channels(figure: Figure, pixels: Pixels, channels: int) -> None:
    """One sample as it looks, then what the model gets: each channel by itself."""
    panels = [("as it looks", pixels)] if channels == 3 else []
    for k, name in enumerate(_CHANNEL_NAMES[channels]):
        tint = np.arange(3) == k if channels == 3 else np.ones(3)
        panels.append((f"channel {k}: {name}", (pixels[..., k : k + 1] * tint).astype(np.uint8)))
    _heading(figure, _MARGIN, "Channel by channel")
    for place, (name, picture) in enumerate(panels):
        left = _MARGIN + place * (_SIDE + _BETWEEN)
        axes = _axes(figure, left, 0.45, _SIDE, _PANELS - 1.35)
        axes.imshow(picture, interpolation="nearest")
        axes.set_anchor("NW")
        axes.set_axis_off()
        axes.set_title(name, size=8.5, color=_FAINT, loc="left", pad=4)


def _draw_histogram(axes: Axes, statistics: PixelStatistics) -> None:
    """Share of each value; dashed: the mean, bar: one standard deviation to each side."""
    channels = len(statistics.mean)
    shares = np.array(statistics.histograms) / statistics.pixels * 100
    top = _top(shares)
    for k, colour in enumerate(_COLOURS[channels]):
        _draw_channel_histogram(axes, statistics, k, shares[k], top, colour)
    for value, at, side in ((0, 3, "left"), (255, 252, "right")):
        share = shares[:, value].max()
        if share > top:  # cut: the number stands in for it
            axes.text(at, top * 0.80, f"{share:.0f} %", size=8, color=_INK, ha=side, va="top")
    axes.set(xlim=(-1, 256), ylim=(0, top), xticks=[0, 64, 128, 192, 255])
    axes.set_ylabel("% of pixels", size=8, color=_FAINT)
    axes.tick_params(labelsize=8, colors=_FAINT, length=3)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#c7ccd3")


def _draw_channel_histogram(
    axes: Axes,
    statistics: PixelStatistics,
    channel: int,
    shares: NDArray[np.float64],
    top: float,
    colour: str,
) -> None:
    values, channels = np.arange(256), len(statistics.mean)
    axes.fill_between(values, shares, step="mid", color=colour, alpha=0.14, linewidth=0)
    axes.step(values, shares, where="mid", color=colour, linewidth=1)
    mean, std = statistics.mean[channel] * 255, statistics.std[channel] * 255
    y = top * (0.97 - 0.055 * channel)
    axes.plot([mean, mean], [0, y], "--", color=colour, linewidth=0.8)
    axes.plot([mean - std, mean + std], [y, y], color=colour, linewidth=2)
    axes.plot([mean], [y], "o", color=colour, markersize=4)
    axes.text(
        channel / channels, 1.045,
        f"{statistics.mean[channel]:.4f} ± {statistics.std[channel]:.4f}",
        size=8.5, color=colour, transform=axes.transAxes,
    )  # fmt: skip


def _top(shares: NDArray[np.float64]) -> float:
    """The highest value shown: all, unless black or white alone is three times the rest."""
    highest, inner = float(shares.max()), float(shares[:, 1:-1].max())
    return inner * 1.3 if inner and highest > 3 * inner else highest * 1.25
