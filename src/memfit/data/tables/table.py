"""Tables of paths and what there is to say of each: CSV and Parquet, read row by row.

Of each row only the path's bytes and a number for each answer are kept, so that a million rows are
no burden.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.dataset import Dataset, FileSplit, Problem, Split
from memfit.data.samples.labels import in_order, split_named
from memfit.data.samples.masks import Masks, classes_in
from memfit.data.samples.paths import PathTable
from memfit.data.tables.answers import Answers, Column, answers_of
from memfit.data.tables.columns import Roles, looks_like_image, roles_of, roles_without_names
from memfit.data.tables.csv_rows import Row, csv_rows
from memfit.data.tables.parquet import ParquetTable
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["TABLE_EXTENSIONS", "open_table"]

TABLE_EXTENSIONS = frozenset({".csv", ".tsv", ".parquet", ".pq"})

#: So many paths of the beginning must not all be missing.
_FIRST_PATHS = 100


@dataclass(slots=True)
class _Table:
    """A file, before its rows are read."""

    header: Sequence[str]
    roles: Roles
    rows: Iterable[Row]


@dataclass(slots=True)
class _Rows:
    """What all rows hold."""

    paths: PathTable = field(default_factory=PathTable)
    splits: Column = field(default_factory=lambda: Column("split"))
    answers: list[Column] = field(default_factory=list)


def open_table(path: Path, name: str, task: Task | None = None) -> Dataset:
    """Read the paths and answers of a table; the images are not touched.

    Columns are found by name, see :mod:`memfit.data.tables.columns`; what the others ask for is
    said in :mod:`memfit.data.tables.answers`. Paths are relative to the table's folder.

    Args:
        path: of the ``.csv``, ``.tsv`` or ``.parquet``.
        name: of the set.
        task: what the columns ask for, where they could be taken for something else.

    Raises:
        DataError: it cannot be read, or a row has no path or answer; with the line.
        UsageError: Parquet without pyarrow.
    """
    where = printable(str(path))
    problems: list[Problem] = []
    if path.suffix.lower() in (".parquet", ".pq"):
        layout, unit, table = "Parquet table", "row", _parquet(path, where, problems)
    else:
        layout, unit, table = "CSV table", "line", _csv(path, where, problems)
    rows = _collect(table, f"{where}, {unit}")
    if not len(rows.paths):
        raise DataError(f"{where} has no rows.")
    _check_some_exist(rows.paths, path.parent, where)
    if _holds_masks(rows.answers, task):
        return _with_masks(rows, path, name, layout, problems)
    answers = answers_of(rows.answers, task, where)
    if answers.task is None and rows.answers:
        columns = ", ".join(printable(column.name) for column in rows.answers)
        reason = f"none of its columns ({columns}) is named label, class or target: no labels"
        problems.append(Problem(where, reason))
    made: dict[str, Split] = {}
    for split, chosen in _by_split(rows):
        paths = PathTable(rows.paths[row] for row in chosen.tolist())
        labels = None if answers.labels is None else answers.labels[chosen]
        targets = None if answers.targets is None else answers.targets[chosen]
        made[split] = FileSplit(split, path.parent, paths, labels, targets=targets)
    return _dataset(name, layout, made, answers, problems)


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
        found.paths.append(_cell(cells[roles.path], "path", where, line))
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


def _check_some_exist(paths: PathTable, folder: Path, where: str) -> None:
    """A wrong folder would make every image unreadable: said once, here."""
    first = list(itertools.islice(paths, _FIRST_PATHS))
    if not any((folder / path).exists() for path in first):
        raise DataError(
            f"{where}: none of the first {len(first):,} files exists, such as "
            f"{printable(str(folder / first[0]))}.",
            hint="Paths are relative to the table's folder, unless they are absolute.",
        )


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
    rows = csv_rows(path)
    first = list(itertools.islice(rows, 2))
    if not first:
        raise DataError(f"{where} is empty.")
    header = first[0][1]
    if any(looks_like_image(cell) or _is_file(path.parent, cell) for cell in header):
        names = [f"column {place + 1}" for place in range(len(header))]
        return _Table(names, roles_without_names(header, where), itertools.chain(first, rows))
    below = first[1][1] if len(first) > 1 else header
    roles = roles_of(header, below, where, problems)
    return _Table(header, roles, itertools.chain(first[1:], rows))


def _is_file(folder: Path, text: str) -> bool:
    try:
        return bool(text) and (folder / text).is_file()
    except (OSError, ValueError):
        return False


def _parquet(path: Path, where: str, problems: list[Problem]) -> _Table:
    table = ParquetTable(path)
    roles = roles_of(table.header, table.first(), where, problems)
    places = [roles.path, *roles.answers, *([] if roles.split is None else [roles.split])]
    return _Table(table.header, roles, table.rows(places))
