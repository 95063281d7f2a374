"""Tables of paths and what there is to say of each: CSV and Parquet, read row by row.

Of each row only the path's bytes and a number for each answer are kept, so that a million rows are
no burden.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, FileSplit, Problem, Split
from memfit.data.samples.labels import in_order, split_named
from memfit.data.samples.masks import Masks, classes_in
from memfit.data.samples.paths import PathTable
from memfit.data.tables.answers import Answers, Column, answers_of, notes_on
from memfit.data.tables.columns import (
    Roles,
    is_number,
    looks_like_image,
    roles_beside_pixels,
    roles_of,
    roles_without_names,
)
from memfit.data.tables.csv_rows import Row, csv_rows, json_rows
from memfit.data.tables.finding import found_below
from memfit.data.tables.hub import image_columns, open_hub
from memfit.data.tables.parquet import ParquetTable
from memfit.data.tables.pixels import Pixels, pixel_columns
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["TABLE_EXTENSIONS", "open_table"]

TABLE_EXTENSIONS = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".pq"})

#: So many paths of the beginning must not all be missing.
_FIRST_PATHS = 100


@dataclass(slots=True)
class _Table:
    """A file, before its rows are read; ``pixels`` takes their cells where these are the images."""

    header: Sequence[str]
    roles: Roles
    rows: Iterable[Row]
    pixels: Pixels | None = None


@dataclass(slots=True)
class _Rows:
    """What all rows hold."""

    paths: PathTable = field(default_factory=PathTable)
    splits: Column = field(default_factory=lambda: Column("split"))
    answers: list[Column] = field(default_factory=list)
    frames: array[int] = field(default_factory=lambda: array("q"))

    @property
    def count(self) -> int:
        return len(self.splits)


def open_table(path: Path, name: str, task: Task | None = None) -> Dataset:
    """Read the paths and answers of a table; the images are not touched.

    Columns are found by name, see :mod:`memfit.data.tables.columns`; what the others ask for is
    said in :mod:`memfit.data.tables.answers`. Paths are relative to the table's folder.

    Args:
        path: of the ``.csv``, ``.tsv``, ``.txt``, ``.jsonl`` or ``.parquet``.
        name: of the set.
        task: what the columns ask for, where they could be taken for something else.

    Raises:
        DataError: it cannot be read, or a row has no path or answer; with the line.
        UsageError: Parquet without pyarrow.
    """
    where = printable(str(path))
    problems: list[Problem] = []
    if path.suffix.lower() in (".parquet", ".pq"):
        opened = ParquetTable(path)
        if image_columns(opened):
            return open_hub([path], path.parent, name, task)
        layout, unit, table = "Parquet table", "row", _parquet(opened, where, problems)
    else:
        kind = {".jsonl": "JSON lines", ".txt": "list of files"}.get(path.suffix.lower())
        layout, unit, table = kind or "CSV table", "line", _csv(path, where, problems)
    rows = _collect(table, f"{where}, {unit}")
    if not rows.count:
        raise DataError(f"{where} has no rows.")
    if not table.roles.is_named:
        rows.answers = [column for column in rows.answers if not column.counts_rows]
    if table.pixels is None:
        rows.paths = found_below(rows.paths, path.parent, path.stem, where)
        if _holds_masks(rows.answers, task):
            return _with_masks(rows, path, name, layout, problems)
    answers = answers_of(rows.answers, task, where)
    problems += notes_on(rows.answers, answers, where)
    splits = _splits(rows, table.pixels, answers, path.parent, where)
    return _dataset(name, layout, splits, answers, problems)


def _splits(
    rows: _Rows, pixels: Pixels | None, answers: Answers, folder: Path, where: str
) -> dict[str, Split]:
    images = None if pixels is None else pixels.images(where)
    made: dict[str, Split] = {}
    for split, chosen in _by_split(rows):
        labels = None if answers.labels is None else answers.labels[chosen]
        targets = None if answers.targets is None else answers.targets[chosen]
        if images is not None:
            made[split] = ArraySplit(split, images[chosen], labels, where, targets=targets)
        else:
            paths = PathTable(rows.paths[row] for row in chosen.tolist())
            made[split] = FileSplit(split, folder, paths, labels, targets=targets)
            if rows.frames:
                made[split].frames = np.frombuffer(rows.frames, np.int64)[chosen]
    return made


def _dataset(
    name: str, layout: str, splits: dict[str, Split], answers: Answers, problems: list[Problem]
) -> Dataset:
    return Dataset(
        name, layout, in_order(splits), answers.classes, tuple(problems),
        value_names=answers.value_names, task_reason=answers.reason,
    )  # fmt: skip


def _by_split(rows: _Rows) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each split with the numbers of its rows."""
    codes = np.frombuffer(rows.splits.codes, np.int64)
    for split, code in rows.splits.texts.items():
        yield split, np.flatnonzero(codes == code)


# -- rows ------------------------------------------------------------------------------------------


def _collect(table: _Table, where: str) -> _Rows:
    """All rows; ``where`` is the file and how its rows are called: ``"t.csv, line"``."""
    roles = table.roles
    found = _Rows(answers=[Column(str(table.header[place])) for place in roles.answers])
    for line, cells in table.rows:
        if table.pixels is None:
            found.paths.append(_cell(cells[roles.path], "path", where, line))
        else:
            _add_pixels(table.pixels, cells, f"{where} {line:,}")
        if roles.frame is not None:
            found.frames.append(_frame(cells[roles.frame], f"{where} {line:,}"))
        split = "all"
        if roles.split is not None:
            word = _cell(cells[roles.split], "split", where, line)
            if (named := split_named(word)) is None:
                raise DataError(
                    f"{where} {line:,}: {word!r} is no split; write train, val or test."
                )
            split = named
        found.splits.append(split)
        for place, column in zip(roles.answers, found.answers, strict=True):
            what = "label" if len(roles.answers) == 1 else f"{printable(column.name)}"
            try:
                column.append(_cell(cells[place], what, where, line))
            except ValueError:
                raise DataError(
                    f"{where} {line:,}: more than 100,000 different labels.",
                    hint="Is it the right column? Name the one with classes 'label'.",
                ) from None
    return found


def _frame(value: Any, where: str) -> int:
    text = str(value).strip()
    if not text.isdecimal():
        raise DataError(f"{where}: {text!r} is no frame; they count from 0.")
    return int(text)


def _add_pixels(pixels: Pixels, cells: Sequence[Any], where: str) -> None:
    try:
        pixels.append(cells)
    except ValueError:
        raise DataError(f"{where}: the pixels are not as many numbers as in other rows.") from None


def _cell(value: Any, what: str, where: str, line: int) -> str:
    """A cell as text; whole numbers without a fraction."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    if not text:
        raise DataError(f"{where} {line:,}: the {what} is empty.")
    if "\0" in text:
        raise DataError(f"{where} {line:,}: a zero byte in the {what}; is it a text file?")
    return text


# -- masks -----------------------------------------------------------------------------------------


def _holds_masks(answers: Sequence[Column], task: Task | None) -> bool:
    """Whether the answer to an image is an image."""
    is_one = len(answers) == 1 and answers[0].values is None and task in (None, "masks")
    return is_one and all(map(looks_like_image, itertools.islice(answers[0].texts, _FIRST_PATHS)))


def _with_masks(
    rows: _Rows, path: Path, name: str, layout: str, problems: list[Problem]
) -> Dataset:
    texts, column = list(rows.answers[0].texts), rows.answers[0]
    files: dict[str, tuple[PathTable, FileSplit]] = {}
    for split, chosen in _by_split(rows):
        masks = PathTable(texts[column.codes[row]] for row in chosen.tolist())
        images = PathTable(rows.paths[row] for row in chosen.tolist())
        files[split] = (images, FileSplit(split, path.parent, masks, None))
    classes = classes_in([masks for _, masks in files.values()], printable(str(path)))
    made: dict[str, Split] = {
        split: FileSplit(split, path.parent, images, None, masks=Masks(masks, classes))
        for split, (images, masks) in files.items()
    }
    reason = f"{printable(column.name)} holds paths of masks"
    answers = Answers("masks", reason, classes=classes.names)
    return _dataset(name, layout, made, answers, problems)


# -- files -----------------------------------------------------------------------------------------


def _csv(path: Path, where: str, problems: list[Problem]) -> _Table:
    is_json = path.suffix.lower() == ".jsonl"
    rows = json_rows(path) if is_json else csv_rows(path)
    first = list(itertools.islice(rows, 2))
    if not first:
        raise DataError(f"{where} is empty.")
    header = first[0][1]
    table = _pixel_table(header, itertools.chain(first, rows))
    if table is not None:
        return table
    if not is_json and _begins_with_a_sample([cells for _, cells in first], path.parent):
        names = [f"column {place + 1}" for place in range(len(header))]
        return _Table(names, roles_without_names(header, where), itertools.chain(first, rows))
    below = first[1][1] if len(first) > 1 else header
    roles = roles_of(header, below, where, problems)
    return _Table(header, roles, itertools.chain(first[1:], rows))


def _pixel_table(header: Sequence[str], rows: Iterator[Row]) -> _Table | None:
    """A table of pixels; its first line may be a sample, then its label comes first."""
    if len(header) > 64 and all(map(is_number, header)):
        is_labelled = math.isqrt(len(header)) ** 2 != len(header)
        names = [f"column {place + 1}" for place in range(len(header))]
        pixels = Pixels(range(int(is_labelled), len(header)))
        return _Table(names, Roles(0, (0,) if is_labelled else ()), rows, pixels)
    places = pixel_columns(header)
    if not places:
        return None
    next(rows)
    rest = [(place, name) for place, name in enumerate(header) if place not in set(places)]
    roles = roles_beside_pixels(rest)
    return _Table(header, roles, rows, Pixels(places))


def _begins_with_a_sample(first: Sequence[Sequence[str]], folder: Path) -> bool:
    """A path in the first line; or nothing but numbers there and below."""
    if any(looks_like_image(cell) or _is_file(folder, cell) for cell in first[0]):
        return True
    return len(first) > 1 and all(is_number(cell) for cells in first for cell in cells)


def _is_file(folder: Path, text: str) -> bool:
    try:
        return bool(text) and (folder / text).is_file()
    except (OSError, ValueError):
        return False


def _parquet(table: ParquetTable, where: str, problems: list[Problem]) -> _Table:
    roles = roles_of(table.header, table.first(), where, problems)
    others = [place for place in (roles.split, roles.frame) if place is not None]
    places = [roles.path, *roles.answers, *others]
    return _Table(table.header, roles, table.rows(places))
