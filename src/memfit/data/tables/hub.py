"""Parquet with the images inside, in one file or in shards: how the Hugging Face hub has sets.

``data/train-00000-of-00002.parquet``: the split is the first word of a file's name, or a folder.
The encoded images are kept in memory.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from memfit.data.samples.dataset import Dataset, Problem, Split
from memfit.data.samples.labels import in_order, split_named
from memfit.data.samples.masks import Masks, classes_in
from memfit.data.samples.packed import Blobs, PackedSplit
from memfit.data.samples.paths import PathTable
from memfit.data.tables.answers import Answers, Column, answers_of, notes_on
from memfit.data.tables.columns import Roles, roles_beside_pixels
from memfit.data.tables.parquet import ParquetTable
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task
from memfit.units import format_bytes

__all__ = ["image_columns", "open_hub"]

#: Share of the free memory that the encoded images may take.
_SHARE = 0.4
_ANSWERED = ("label", "fine_label", "labels")


@dataclass(slots=True)
class _Found:
    """The rows of one split."""

    paths: PathTable = field(default_factory=PathTable)
    images: Blobs = field(default_factory=Blobs)
    masks: Blobs = field(default_factory=Blobs)
    rows: array[int] = field(default_factory=lambda: array("q"))  # numbers in all files together


@dataclass(slots=True)
class _Columns:
    """Places of columns, and what was found in those of answers."""

    image: int
    mask: int | None
    roles: Roles
    names: tuple[str, ...] | None
    answers: list[Column]

    @property
    def places(self) -> list[int]:
        also = [place for place in (self.mask, self.roles.split) if place is not None]
        return [self.image, *also, *self.roles.answers]


def image_columns(table: ParquetTable) -> list[int]:
    """Places of the columns that hold files."""
    return [place for place in range(len(table.header)) if table.holds_images(place)]


def open_hub(files: Sequence[Path], root: Path, name: str, task: Task | None = None) -> Dataset:
    """Read the images and answers of Parquet files that belong together.

    Args:
        files: in their order.
        root: the folder that holds them.
        name: of the set.
        task: what is asked of an image, where the columns could be taken for something else.

    Raises:
        DataError: a file is damaged, holds no images, or all are too many for the memory.
        UsageError: pyarrow is missing.
    """
    problems: list[Problem] = []
    first = ParquetTable(files[0])
    columns = _columns(first, problems)
    found: dict[str, _Found] = {}
    room = int(_SHARE * psutil.virtual_memory().available)
    for path in files:
        table = first if path == files[0] else ParquetTable(path)
        if table.header != first.header:
            raise DataError(f"{table.where} has other columns than {first.where}.")
        _collect(table, columns, _split_of(path, root), found, room)
    answers = _answers(columns, task, first.where, problems)
    made: dict[str, Split] = {}
    for split, part in found.items():
        chosen = np.frombuffer(part.rows, np.int64)
        labels = _of(answers.labels, chosen)
        if labels is not None and (labels < 0).all():  # how the hub marks unlabelled rows
            labels = None
        made[split] = PackedSplit(
            split, part.paths, part.images, labels, targets=_of(answers.targets, chosen)
        )
    if columns.mask is not None:
        answers = _add_masks(made, found, first.where)
    return Dataset(
        name, "Parquet with images", in_order(made), answers.classes, tuple(problems),
        bytes_on_disk=sum(path.stat().st_size for path in files),
        value_names=answers.value_names, task_reason=answers.reason,
    )  # fmt: skip


def _columns(table: ParquetTable, problems: list[Problem]) -> _Columns:
    images = image_columns(table)
    if not images:
        raise DataError(f"{table.where}: no column holds images.")
    plain = {place for place in range(len(table.header)) if table.is_plain(place)}
    rest = [(place, table.header[place]) for place in sorted(plain)]
    roles = roles_beside_pixels(rest)
    named = {table.header[place]: place for place in plain if table.class_names(place)}
    if named:
        chosen = next((named[key] for key in _ANSWERED if key in named), min(named.values()))
        roles = Roles(0, (chosen,), roles.split)
    seen = {*plain, *images}
    others = [name for place, name in enumerate(table.header) if place not in seen]
    if others and not roles.answers and len(images) == 1:
        shown = printable(", ".join(others))
        reason = f"{shown}: of a detection set, or of another task: not read, so no labels"
        problems.append(Problem(table.where, reason))
    mask = images[1] if len(images) > 1 else None
    if mask is not None:
        roles = Roles(0, (), roles.split)
    answers = [Column(table.header[place]) for place in roles.answers]
    names = table.class_names(roles.answers[0]) if len(roles.answers) == 1 else None
    return _Columns(images[0], mask, roles, names, answers)


def _collect(
    table: ParquetTable, columns: _Columns, named: str, found: dict[str, _Found], room: int
) -> None:
    for line, cells in table.rows(columns.places):
        where = f"{table.where}, row {line:,}"
        split = named
        if columns.roles.split is not None:
            split = split_named(str(cells[columns.roles.split])) or named
        part = found.setdefault(split, _Found())
        path, content = _file(cells[columns.image], where)
        part.paths.append(path or f"row {line}")
        part.images.append(content)
        if columns.mask is not None:
            part.masks.append(_file(cells[columns.mask], where)[1])
        part.rows.append(sum(len(each.rows) for each in found.values()))
        for place, column in zip(columns.roles.answers, columns.answers, strict=True):
            text = "" if cells[place] is None else str(cells[place]).strip()
            if not text:
                raise DataError(f"{where}: the label is empty.")
            column.append(text)
        if sum(each.images.total_bytes + each.masks.total_bytes for each in found.values()) > room:
            raise DataError(
                f"{where}: its images take more than {format_bytes(room)} of memory.",
                hint="Write them as files: a folder for each class.",
            )


def _file(cell: Any, where: str) -> tuple[str | None, bytes]:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    path = cell.get("path") if isinstance(cell, dict) else None
    if not isinstance(content, bytes):
        also = f", only the path {printable(str(path))}" if path else ""
        raise DataError(f"{where}: the image has no bytes{also}.")
    return path, content


def _split_of(path: Path, root: Path) -> str:
    """The split that a file's name begins with, or that a folder is called."""
    words = [re.split(r"[-_.]", path.stem)[0], *path.relative_to(root).parts[-2::-1]]
    return next((split for word in words if (split := split_named(word))), "all")


def _answers(columns: _Columns, task: Task | None, where: str, problems: list[Problem]) -> Answers:
    if columns.mask is not None or not columns.answers:
        return Answers(None, "")
    if columns.names is not None and task in (None, "classes"):
        numbers = columns.answers[0].numbers()
        if numbers is None or numbers.max() >= len(columns.names) or numbers.min() < -1:
            raise DataError(f"{where}: a label is none of the {len(columns.names)} classes.")
        return Answers("classes", "", labels=numbers.astype(np.int64), classes=columns.names)
    answers = answers_of(columns.answers, task, where)
    problems += notes_on(columns.answers, answers, where)
    return answers


def _of(every: NDArray[Any] | None, chosen: NDArray[np.int64]) -> Any:
    return None if every is None else every[chosen]


def _add_masks(made: dict[str, Split], found: dict[str, _Found], where: str) -> Answers:
    masks = {
        split: PackedSplit(split, part.paths, part.masks, None) for split, part in found.items()
    }
    classes = classes_in(list(masks.values()), where)
    for split, of_split in masks.items():
        made[split].masks = Masks(of_split, classes)
    return Answers("masks", "", classes=classes.names)
