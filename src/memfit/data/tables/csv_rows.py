"""The rows of a CSV file, whatever divides its cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["Row", "csv_rows"]

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
            if re.fullmatch(r"sep=.\r?\n?", first):  # Excel's first line
                start, first = stream.tell(), stream.readline(1 << 16)
            delimiter = _delimiter(first, where)
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


def _delimiter(line: str, where: str) -> str:
    """The one that makes the most cells."""
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise DataError(f"{where} is UTF-16 text.", hint="Save it as UTF-8.")
    cells = {mark: len(next(csv.reader([line], delimiter=mark), ())) for mark in _DELIMITERS}
    best = max(_DELIMITERS, key=cells.__getitem__)
    return best if cells[best] > 1 else "|"  # which also divides labels within a cell
