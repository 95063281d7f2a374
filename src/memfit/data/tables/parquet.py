"""The rows of Parquet files, read in batches; with images in them, as the Hugging Face hub writes.

There an image is ``struct<bytes, path>``, and the schema's metadata names the classes
(https://huggingface.co/docs/datasets/about_dataset_features).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memfit.data.tables.csv_rows import Row
from memfit.errors import DataError, UsageError
from memfit.files.names import printable

__all__ = ["ParquetTable"]


class ParquetTable:
    """A Parquet file, opened.

    Args:
        path: of the file.

    Attributes:
        header: names of the columns.
        where: the file, for messages.

    Raises:
        DataError: it cannot be read, or has no rows.
        UsageError: pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        self.where = printable(str(path))
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise UsageError(
                f"Reading {self.where} needs pyarrow.", hint="pip install 'memfit[parquet]'"
            ) from None
        self._errors = (pyarrow.ArrowException, OSError, ValueError, KeyError)
        try:
            self._file = parquet.ParquetFile(path)
            self._schema = self._file.schema_arrow
        except self._errors as error:
            raise self._unreadable(error) from None
        self.header: list[str] = self._schema.names
        if not self.header or not self._file.metadata.num_rows:
            raise DataError(f"{self.where} has no rows.")

    def _unreadable(self, error: BaseException) -> DataError:
        return DataError(f"{self.where} is no Parquet file that can be read ({_short(error)}).")

    def first(self) -> list[Any]:
        """The first row, of which only plain columns are read; the others are empty texts.

        Raises:
            DataError: it cannot be read.
        """
        plain = [name for place, name in enumerate(self.header) if self.is_plain(place)]
        try:
            batch = next(self._file.iter_batches(batch_size=1, columns=plain), None)
        except self._errors as error:
            raise self._unreadable(error) from None
        row = batch.to_pylist()[0] if plain and batch is not None else {}
        return [row.get(name, "") for name in self.header]

    def rows(self, places: Sequence[int]) -> Iterator[Row]:
        """All rows; cells of other columns are None.

        Args:
            places: of the columns that are read.

        Raises:
            DataError: a column holds no texts, numbers or images, or the file is damaged.
        """
        for place in places:
            if not self.is_plain(place) and not self.holds_images(place):
                kind = self._schema.field(place).type
                raise DataError(
                    f"{self.where}: column {self.header[place]!r} holds {kind}, not text or "
                    "numbers."
                )
        names, number = [self.header[place] for place in places], 0
        try:
            for batch in self._file.iter_batches(batch_size=256, columns=names):
                for values in zip(*(batch.column(n).to_pylist() for n in names), strict=True):
                    number += 1
                    cells: list[Any] = [None] * len(self.header)
                    for place, value in zip(places, values, strict=True):
                        cells[place] = value
                    yield number, cells
        except self._errors as error:
            raise DataError(f"{self.where}, after row {number:,}: {_short(error)}.") from None

    def is_plain(self, place: int) -> bool:
        """Whether a column holds texts or numbers."""
        from pyarrow import types

        kind = self._schema.field(place).type
        checks = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean,
                  types.is_floating, types.is_dictionary, types.is_null)  # fmt: skip
        return any(check(kind) for check in checks)

    def holds_images(self, place: int) -> bool:
        """Whether a column holds files: bytes, or ``struct<bytes, path>``."""
        from pyarrow import types

        kind = self._schema.field(place).type
        if types.is_struct(kind):
            return any(kind.field(number).name == "bytes" for number in range(kind.num_fields))
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def class_names(self, place: int) -> tuple[str, ...] | None:
        """Of a column of class numbers, from the schema's metadata; None where it names none."""
        try:
            noted = json.loads((self._schema.metadata or {})[b"huggingface"])
            names = noted["info"]["features"][self.header[place]]["names"]
        except (KeyError, TypeError, ValueError):
            return None
        return tuple(map(printable, map(str, names))) if isinstance(names, list) else None


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
