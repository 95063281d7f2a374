"""Which columns of a table hold paths, splits and answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from memfit.data.samples.dataset import Problem
from memfit.data.samples.labels import split_named
from memfit.data.samples.paths import IMAGE_EXTENSIONS
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = [
    "Roles", "is_number", "looks_like_image", "roles_beside_pixels", "roles_of",
    "roles_without_names",
]  # fmt: skip

#: In lower case with ``_`` between words; the first of them that is there counts.
_PATHS = (
    "path", "file", "filename", "filepath", "filepaths", "image", "image_path", "file_name",
    "file_path", "image_file", "image_name", "img", "img_path", "img_name", "image_id", "imageid",
    "id_code", "image_index", "id", "name",
)  # fmt: skip
_LABELS = (
    "label", "class", "target", "category", "y", "labels", "class_name", "class_id", "classid",
    "label_name", "label_id", "target_label", "diagnosis", "dx", "species", "breed", "emotion",
    "finding_labels", "tags",
)  # fmt: skip
_MASKS = ("mask", "mask_path", "mask_file", "mask_name", "annotation", "annotation_path")
_SPLITS = ("split", "subset", "fold", "usage", "data_set", "dataset", "partition")
_FRAMES = ("frame", "page", "slice")
#: Numbers of rows, as pandas writes them.
_ROW_NUMBERS = ("", "unnamed:_0", "index")
_BOXES = re.compile(
    r"(b?box(es)?|x_?min|xmin|bbox_?x\d?|roi\.?x1|boxes_?string|prediction_?string)"
)
_RUNS = re.compile(r"(encoded_?pixels|rle|rle_?mask)")


@dataclass(frozen=True, slots=True)
class Roles:
    """Places in a row.

    Args:
        path: of the image.
        answers: what there is to say of it.
        split: None where the table has no such column.
        frame: of the file that the path names; None where the table has no such column.
        is_named: whether a column of answers was found by its name.
    """

    path: int
    answers: tuple[int, ...]
    split: int | None = None
    is_named: bool = False
    frame: int | None = None


def _may_have_frames(text: Any) -> bool:
    return PureWindowsPath(str(text)).suffix.lower() in (".tif", ".tiff", ".gif", ".webp", ".apng")


def looks_like_image(text: Any) -> bool:
    """A path of an image, though no such file may be there: not the name of a column."""
    return PureWindowsPath(str(text)).suffix.lower() in IMAGE_EXTENSIONS


def roles_of(
    header: Sequence[str], first: Sequence[Any], where: str, problems: list[Problem]
) -> Roles:
    """By the names of columns; where they say nothing, the image is the first that looks like one.

    Args:
        header: names of the columns.
        first: the first row below it.
        where: the file, for messages.
        problems: what is noted goes here.

    Raises:
        DataError: no column can be that of images, or the table is of something else.
    """
    names = [re.sub(r"[\s\-]+", "_", str(name).strip().lower()) for name in header]
    known = {*_PATHS, *_LABELS, *_SPLITS}
    twice = next((name for name in names if name in known and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: {names.count(twice)} columns are called {twice!r}.")
    path, label, split = _named(names, _PATHS), _named(names, _LABELS), _named(names, _SPLITS)
    if label is None:
        label = _named(names, _MASKS)
    if split is not None and split_named(str(first[split])) is None:
        split = None if names[split] in ("fold", "dataset", "partition", "usage") else split
    rest = [
        place
        for place in range(len(names))
        if place not in (path, label, split) and names[place] not in _ROW_NUMBERS
    ]
    if path is None and label is None:
        shown = printable(", ".join(map(str, header)))
        problems.append(
            Problem(where, f"its first line ({shown}) is taken for names of columns, not a sample")
        )
    if path is None:
        if not rest:
            raise DataError(f"{where}: no column of paths among {', '.join(names)}.")
        path = next((place for place in rest if looks_like_image(first[place])), rest[0])
        rest.remove(path)
    _refuse_others(names, rest, label, where, problems)
    frame = _named(names, _FRAMES) if _may_have_frames(first[path]) else None
    rest = [place for place in rest if place != frame]
    answers = tuple(rest) if label is None else (label,)
    return Roles(path, answers, split, is_named=label is not None, frame=frame)


def roles_without_names(first: Sequence[str], where: str) -> Roles:
    """Of a table that begins with a sample: the first cell that looks like an image, and the rest.

    Raises:
        DataError: its rows are boxes.
    """
    path = next((place for place, cell in enumerate(first) if looks_like_image(cell)), 0)
    rest = [place for place in range(len(first)) if place != path]
    if len(rest) == 5 and all(is_number(first[place]) for place in rest[:4]):
        raise _detection(where, "four numbers and a class")
    return Roles(path, tuple(rest))


def roles_beside_pixels(rest: Sequence[tuple[int, str]]) -> Roles:
    """Of the columns that hold no pixels: places and names."""
    names = {re.sub(r"[\s\-]+", "_", name.strip().lower()): place for place, name in rest}
    split = next((names[name] for name in _SPLITS if name in names), None)
    label = next((names[name] for name in _LABELS if name in names), None)
    others = [
        place for name, place in names.items()
        if place != split and name not in (*_ROW_NUMBERS, *_PATHS)
    ]  # fmt: skip
    return Roles(0, tuple(others) if label is None else (label,), split)


def _named(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _refuse_others(
    names: list[str], rest: list[int], label: int | None, where: str, problems: list[Problem]
) -> None:
    """Tables of boxes and of run-length masks."""
    boxes = [names[place] for place in rest if _BOXES.fullmatch(names[place])]
    runs = [names[place] for place in rest if _RUNS.fullmatch(names[place])]
    if runs:
        raise DataError(
            f"{where}: {printable(runs[0])} holds run-length masks, which are not read.",
            hint="Write each mask as a PNG: images/1.jpg and masks/1.png.",
        )
    if boxes and label is None:
        raise _detection(where, printable(boxes[0]))
    if boxes:
        problems.append(Problem(where, f"the boxes in {printable(boxes[0])} are not used"))


def _detection(where: str, what: str) -> DataError:
    return DataError(
        f"{where}: boxes ({what}) of a detection set, which are not read.",
        hint="A column called label, with one row for each image, makes it classes.",
    )


def is_number(text: str) -> bool:
    """Whether a cell is a number as people write it."""
    return re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", text) is not None
