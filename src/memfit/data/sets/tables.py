"""Tables of paths and labels: CSV and Parquet, read row by row.

Of each row only the path's bytes and one number are kept, so that a million rows are no burden.
"""

from __future__ import annotations

import csv
import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.samples.dataset import Dataset, FileSplit, Problem, Split
from memfit.data.samples.labels import MAX_CLASSES, in_order, split_named
from memfit.data.samples.paths import PathTable
from memfit.data.sets.folders import IMAGE_EXTENSIONS
from memfit.errors import DataError, UsageError
from memfit.files.names import printable

__all__ = ["TABLE_EXTENSIONS", "open_table"]

TABLE_EXTENSIONS = frozenset({".csv", ".tsv", ".parquet", ".pq"})

_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path", "file_name")
_LABEL_COLUMNS = ("label", "class", "target", "category", "y")
_SPLIT_COLUMNS = ("split", "subset", "fold")
_KNOWN_COLUMNS = (*_PATH_COLUMNS, *_LABEL_COLUMNS, *_SPLIT_COLUMNS)
_DELIMITERS = (",", ";", "\t")
#: So many paths of the beginning must not all be missing.
_FIRST_PATHS = 100

Row = tuple[int, Sequence[Any]]  # its number in the file, and its cells


@dataclass(frozen=True, slots=True)
class _Columns:
    """Places in a row; None where the table has no such column."""

    path: int
    label: int | None
    split: int | None


@dataclass(slots=True)
class _Rows:
    """The rows of one split."""

    paths: PathTable = field(default_factory=PathTable)
    labels: array[int] = field(default_factory=lambda: array("q"))


def open_table(path: Path, name: str) -> Dataset:
    """Read the paths and labels of a table; the images are not touched.

    Columns are found by name (``path``, ``file``, ``image``...; ``label``, ``class``...;
    optional ``split``), else they are the first two. Paths are relative to the table's folder.

    Args:
        path: of the ``.csv``, ``.tsv`` or ``.parquet``.
        name: of the set.

    Raises:
        DataError: it cannot be read, or a row has no path or label; with the line.
        UsageError: Parquet without pyarrow.
    """
    where = printable(str(path))
    problems: list[Problem] = []
    if path.suffix.lower() in (".parquet", ".pq"):
        layout, unit, (columns, rows) = "Parquet table", "row", _parquet(path, where, problems)
    else:
        layout, unit, (columns, rows) = "CSV table", "line", _csv(path, where, problems)
    splits, classes = _collect(rows, columns, f"{where}, {unit}")
    if not splits:
        raise DataError(f"{where} has no rows.")
    _check_some_exist(next(iter(splits.values())).paths, path.parent, where)
    order, classes = _sorted_classes(classes)
    made: dict[str, Split] = {}
    for split, found in splits.items():
        labels = None
        if columns.label is not None:
            labels = order[np.frombuffer(found.labels, np.int64)]
        made[split] = FileSplit(split, path.parent, found.paths, labels)
    return Dataset(name, layout, in_order(made), tuple(classes), tuple(problems))


# -- columns ---------------------------------------------------------------------------------------


def _find_columns(
    header: Sequence[str], first: Sequence[Any], where: str, problems: list[Problem]
) -> _Columns:
    """By name, else the first two.

    Args:
        header: names of the columns.
        first: the first row below it.
        where: the file, for messages.
        problems: what is noted goes here.
    """
    names = [str(name).strip().lower() for name in header]
    twice = next((name for name in _KNOWN_COLUMNS if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: {names.count(twice)} columns are called {twice!r}.")
    path, label = _named(names, _PATH_COLUMNS), _named(names, _LABEL_COLUMNS)
    split = _named(names, _SPLIT_COLUMNS)
    if split is not None and names[split] == "fold" and not split_named(str(first[split])):
        split = None  # numbers for cross-validation
    if path is None and label is None:
        shown = printable(", ".join(map(str, header)))
        problems.append(
            Problem(where, f"its first line ({shown}) is taken for names of columns, not a sample")
        )
        others = [place for place in range(len(names)) if place != split]
        return _Columns(others[0], others[1] if len(others) > 1 else None, split)
    others = [place for place in range(len(names)) if place not in (path, label, split)]
    if path is None:
        if not others:
            raise DataError(f"{where}: no column of paths among {', '.join(names)}.")
        path = others[0]
    elif label is None and len(others) == 1:
        label = others[0]
    elif label is None and others:
        columns = ", ".join(printable(header[place]) for place in others)
        reason = f"none of its columns ({columns}) is named {', '.join(_LABEL_COLUMNS)}: no labels"
        problems.append(Problem(where, reason))
    return _Columns(path, label, split)


def _named(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


# -- rows ------------------------------------------------------------------------------------------


def _collect(
    rows: Iterable[Row], columns: _Columns, where: str
) -> tuple[dict[str, _Rows], list[str]]:
    """Rows by split; labels are numbers into the list of classes, in order of appearance.

    ``where`` is the file and how its rows are called, for messages: ``"t.csv, line"``.
    """
    splits: dict[str, _Rows] = {}
    numbers: dict[str, int] = {}
    for line, cells in rows:
        path = _cell(cells[columns.path], "path", where, line)
        split = "all"
        if columns.split is not None:
            word = _cell(cells[columns.split], "split", where, line)
            if (named := split_named(word)) is None:
                raise DataError(
                    f"{where} {line:,}: {word!r} is no split; write train, val or test."
                )
            split = named
        found = splits.setdefault(split, _Rows())
        found.paths.append(path)
        if columns.label is not None:
            text = _cell(cells[columns.label], "label", where, line)
            number = numbers.setdefault(text, len(numbers))
            found.labels.append(number)
            if number >= MAX_CLASSES:
                raise DataError(
                    f"{where} {line:,}: more than {MAX_CLASSES:,} different labels.",
                    hint="Is it the right column? Name the one with classes 'label'.",
                )
    return splits, list(numbers)


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


def _sorted_classes(classes: list[str]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """The new number of each class, and the names in order: numbers by value, else by name."""
    places = list(range(len(classes)))
    try:
        places.sort(key=lambda place: (int(classes[place]), classes[place]))
    except ValueError:
        places.sort(key=classes.__getitem__)
    order = np.empty(len(places), np.int64)
    order[places] = np.arange(len(places))
    return order, [printable(classes[place]) for place in places]


def _check_some_exist(paths: PathTable, folder: Path, where: str) -> None:
    """A wrong folder would make every image unreadable: said once, here."""
    first = list(itertools.islice(paths, _FIRST_PATHS))
    if not any((folder / path).exists() for path in first):
        raise DataError(
            f"{where}: none of the first {len(first):,} files exists, such as "
            f"{printable(str(folder / first[0]))}.",
            hint="Paths are relative to the table's folder, unless they are absolute.",
        )


# -- CSV -------------------------------------------------------------------------------------------


def _csv(path: Path, where: str, problems: list[Problem]) -> tuple[_Columns, Iterator[Row]]:
    rows = _csv_rows(path, where)
    first = list(itertools.islice(rows, 2))
    if not first:
        raise DataError(f"{where} is empty.")
    header = first[0][1]
    if _is_file(path.parent, header[0]) or _looks_like_a_sample(header[0]):
        label = 1 if len(header) > 1 else None
        return _Columns(0, label, None), itertools.chain(first, rows)
    below = first[1][1] if len(first) > 1 else header
    columns = _find_columns(header, below, where, problems)
    return columns, itertools.chain(first[1:], rows)


def _looks_like_a_sample(text: str) -> bool:
    """A path of an image, though no such file may be there: not the name of a column."""
    return Path(text).suffix.lower() in IMAGE_EXTENSIONS


def _is_file(folder: Path, text: str) -> bool:
    try:
        return bool(text) and (folder / text).is_file()
    except (OSError, ValueError):
        return False


def _csv_rows(path: Path, where: str) -> Iterator[Row]:
    """Rows that are not blank, all with as many cells as the first."""
    width = 0
    try:
        # Bytes that are not UTF-8 are kept: they may be what a file is called.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            delimiter = _delimiter(stream.readline(1 << 16), where)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter)
            for cells in reader:
                width = width or len(cells)
                if cells and len(cells) != width:
                    raise DataError(
                        f"{where}, line {reader.line_num:,}: {len(cells)} cells instead of {width}."
                    )
                if cells:
                    yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num:,}: {error}.") from None
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}.") from None


def _delimiter(line: str, where: str) -> str:
    """The one that makes the most cells."""
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise DataError(f"{where} is UTF-16 text.", hint="Save it as UTF-8.")
    return max(_DELIMITERS, key=lambda mark: len(next(csv.reader([line], delimiter=mark), ())))


# -- Parquet ---------------------------------------------------------------------------------------


def _parquet(path: Path, where: str, problems: list[Problem]) -> tuple[_Columns, Iterator[Row]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"Reading {where} needs pyarrow.", hint="pip install 'memfit[parquet]'"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        header = file.schema_arrow.names
        first = _first_splits(file, header)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{where} is no Parquet file that can be read ({_short(error)}).") from None
    if not header or not file.metadata.num_rows:
        raise DataError(f"{where} has no rows.")
    columns = _find_columns(header, first, where, problems)
    for place in (columns.path, columns.label, columns.split):
        kind = None if place is None else file.schema_arrow.field(place).type
        if kind is not None and not _is_plain(kind):
            raise DataError(f"{where}: column {header[place]!r} holds {kind}, not text or numbers.")
    return columns, _parquet_rows(file, columns, header, where)


def _first_splits(file: Any, header: list[str]) -> list[str]:
    """The first row, of which only columns that may name a split are read."""
    names = [name for name in header if name.lower() in _SPLIT_COLUMNS]
    batch = next(file.iter_batches(batch_size=1, columns=names), None) if names else None
    row = batch.to_pylist()[0] if batch else {}
    return [str(row.get(name, "")) for name in header]


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    checks = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean,
              types.is_floating, types.is_dictionary, types.is_null)  # fmt: skip
    return any(check(kind) for check in checks)


def _parquet_rows(file: Any, columns: _Columns, header: list[str], where: str) -> Iterator[Row]:
    import pyarrow

    wanted = [p for p in (columns.path, columns.label, columns.split) if p is not None]
    cells: list[Any] = [None] * len(header)
    number = 0
    try:
        for batch in file.iter_batches(columns=[header[place] for place in wanted]):
            lists = [batch.column(header[place]).to_pylist() for place in wanted]
            for values in zip(*lists, strict=True):
                number += 1
                for place, value in zip(wanted, values, strict=True):
                    cells[place] = value
                yield number, cells
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{where}, after row {number:,}: {_short(error)}.") from None


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
