"""``metrics.jsonl`` and ``pace.jsonl``: one JSON object for each line, as the steps were taken."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memfit.errors import RunError
from memfit.files.durable import why_not_written

__all__ = ["MetricsFile", "read_json", "to_json"]


class MetricsFile:
    """Appends, reads and rewinds lines about the steps of a run.

    Args:
        path: need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line, handed to the operating system before this returns.

        Args:
            record: plain values with a whole number ``step``. Numbers that are not finite become
                ``null``, which JSON readers know and pandas reads as NaN.

        Raises:
            RunError: it cannot be written; the lines before are untouched.
        """
        assert isinstance(record["step"], int)
        line = to_json(record).encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as file:
                before = os.fstat(file.fileno()).st_size
                try:
                    _write_all(file.fileno(), line)
                except OSError:
                    file.truncate(before)
                    raise
        except OSError as error:
            reason = why_not_written(error, self.path.parent, len(line))
            raise RunError(f"Cannot write {self.path}: {reason}.") from None

    def read(self) -> list[dict[str, Any]]:
        """All records; a last line that a kill tore off is left out.

        Raises:
            RunError: it cannot be read, or a whole line is no JSON object; names the line.
        """
        records = []
        for number, (_, line) in enumerate(self._lines(), start=1):
            record = _record(line)
            if record is None:
                raise RunError(f"{self.path} line {number} is no JSON object: {line[:60]!r}.")
            records.append(record)
        return records

    def rewind(self, step: int, *, evaluated: bool = True) -> None:
        """Drop a torn last line and everything from the first record after ``step``.

        Args:
            step: that the run goes on from.
            evaluated: keep also an evaluation after ``step`` itself; otherwise it is made again.

        Raises:
            RunError: it cannot be read or written.
        """
        end, last = 0, (step, evaluated)
        for start, line in self._lines():
            record = _record(line) or {}
            if (record.get("step", 0), record.get("event") == "evaluation") > last:
                break
            end = start + len(line)
        self._cut(end)

    def repair(self) -> None:
        """Drop a last line that a kill tore off.

        Raises:
            RunError: it cannot be read or written.
        """
        self._cut(sum(len(line) for _, line in self._lines()))

    def sync(self) -> None:
        """Put all lines on the disk, so that they outlive a power cut.

        Raises:
            RunError: the disk failed.
        """
        try:
            if self.path.exists():
                with self.path.open("rb+") as file:
                    os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"Cannot write {self.path}: {error.strerror}.") from None

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines with the place where each starts, in bytes."""
        start = 0
        try:
            if not self.path.exists():
                return
            with self.path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield start, line
                    start += len(line)
        except OSError as error:
            raise RunError(f"Cannot read {self.path}: {error.strerror}.") from None

    def _cut(self, size: int) -> None:
        try:
            if self.path.exists() and self.path.stat().st_size > size:
                os.truncate(self.path, size)
        except OSError as error:
            raise RunError(f"Cannot write {self.path}: {error.strerror}.") from None
        self.sync()


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: numbers that are not finite become ``null``."""
    return json.dumps(_finite(value), allow_nan=False, indent=indent)


def read_json(path: Path, hint: str | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        RunError: it is missing or damaged; ``hint`` says what to do with a damaged one.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}.", hint=hint) from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object.")
    return content


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
