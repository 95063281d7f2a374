"""What every source agrees on: the names of splits, their order, and classes from labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.dataset import Split
from memfit.errors import DataError

__all__ = ["MAX_CLASSES", "SPLIT_NAMES", "class_labels", "classes_of", "in_order", "split_named"]

#: How people spell the purpose of a split, in lower case.
SPLIT_NAMES = {
    "train": "train", "training": "train", "train_set": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "test_set": "test", "t10k": "test",
    "publictest": "val", "privatetest": "test",  # of Kaggle's faces
}  # fmt: skip

_ORDER = ("train", "val", "test")

#: A label above this is no class number but something else (an identifier, a value to predict).
MAX_CLASSES = 100_000


def split_named(word: str) -> str | None:
    """``train``, ``val`` or ``test`` for a folder or a cell of that meaning, in any case.

    >>> split_named("Validation"), split_named("train2017"), split_named("cat")
    ('val', 'train', None)
    """
    return SPLIT_NAMES.get(re.sub(r"[_-]?(19|20)\d\d$", "", word.strip().lower()))


def in_order(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The same splits: train, val, test, then the others as they come."""
    known = [name for name in _ORDER if name in splits]
    return {name: splits[name] for name in (*known, *(n for n in splits if n not in _ORDER))}


def class_labels(labels: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels that are class numbers: whole, not negative, one for each sample.

    Args:
        labels: ``(N,)`` or ``(N, 1)`` of any type.
        where: the file and what is in it, for messages.

    Returns:
        ``(N,)`` int64.

    Raises:
        DataError: they are something else.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{where}: labels of shape {labels.shape}; one class number for each image is needed.",
            hint="For one-hot labels: labels.argmax(axis=1).",
        )
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels are {labels.dtype}, not class numbers.")
    if labels.size and not (labels.min() >= 0 and labels.max() <= MAX_CLASSES):
        raise DataError(
            f"{where}: labels from {labels.min()} to {labels.max()}; "
            f"class numbers are from 0 to at most {MAX_CLASSES:,}."
        )
    whole = labels.astype(np.int64)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        raise DataError(f"{where}: labels have fractions; class numbers are whole.")
    return whole


def classes_of(
    splits: Iterable[Split], names: tuple[str, ...] | None, where: str
) -> tuple[str, ...]:
    """The classes' names: those given, else the numbers from 0 to the largest label.

    Raises:
        DataError: a label is beyond the names.
    """
    largest = -1
    for split in splits:
        if split.labels is not None and len(split.labels):
            largest = max(largest, int(split.labels.max()))
    if names is None:
        return tuple(str(number) for number in range(largest + 1))
    if largest >= len(names):
        raise DataError(
            f"{where}: a label is {largest}, but there are {len(names)} classes (0 to "
            f"{len(names) - 1}): the labels do not match."
        )
    return names
