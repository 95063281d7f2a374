"""The rows of a CSV file, whatever divides its cells, of a list of files, and of JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["Row", "csv_rows", "json_rows"]

Row = tuple[int, list[Any]]  # its number in the file, and its cells

_DELIMITERS = (",", ";", "\t")


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows that are not blank, all with as many cells as the first.

    Raises:
        DataError: it cannot be read, with the line.
    """
    where, width = printable(str(path)), 0
    try:
        # Bytes that are not UTF-8 are kept: they may be what a file is called.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            start, first = 0, stream.readline(1 << 16)
            while re.match(r"sep=.\r?\n?$|#", first):  # Excel's first line, and comments
                start, first = stream.tell(), stream.readline(1 << 16)
            delimiter = _delimiter(first, where, is_list=path.suffix.lower() == ".txt")
            stream.seek(start)
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


def _delimiter(line: str, where: str, *, is_list: bool) -> str:
    """The one that makes the most cells; in a list of files a space, where there is no other."""
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise DataError(f"{where} is UTF-16 text.", hint="Save it as UTF-8.")
    cells = {mark: len(next(csv.reader([line], delimiter=mark), ())) for mark in _DELIMITERS}
    best = max(_DELIMITERS, key=cells.__getitem__)
    if cells[best] > 1:
        return best
    return " " if is_list else "|"  # which also divides labels within a cell


def json_rows(path: Path) -> Iterator[Row]:
    """Rows of JSON lines: first the names, then a cell for each of them.

    Raises:
        DataError: it cannot be read, with the line.
    """
    where, header = printable(str(path)), list[str]()
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{where}, line {number:,}: no object of names and values.")
                if not header:
                    header = list(map(str, row))
                    yield number, list(header)
                yield number, [row.get(name) for name in header]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}, line {number:,}: {error}.") from None
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}.") from None
