"""NumPy archives: arrays of images and answers, by their names or by their shapes.

Names that people give are known (``x_train``, ``images``...). Others, such as ``arr_0`` and
``arr_1`` of ``np.savez(path, images, labels)``, go by shape: images have three or four dimensions,
what there is to say of them as many rows.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, Split
from memfit.data.samples.labels import in_order
from memfit.data.samples.masks import Masks, classes_in
from memfit.data.tables.answers import Answers, answers_of_array
from memfit.data.tables.pixels import images_of_rows, in_eight_bits
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["open_npz"]

_Arrays = Mapping[str, NDArray[Any]]
_Pair = tuple[str, str, str | None]  # split, key of the images, key of the answers

_IMAGES = ("x", "images", "image", "imgs", "img", "data", "inputs", "features", "pixels")
_ANSWERS = ("y", "labels", "label", "targets", "target", "classes", "class", "masks", "mask",
            "outputs")  # fmt: skip
_SPLITS = {"train": ("train", "tr"), "val": ("val", "valid", "validation"), "test": ("test", "te")}

_DAMAGED = (
    OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, tokenize.TokenError, OverflowError,
)  # fmt: skip


def open_npz(path: Path, name: str, task: Task | None = None) -> Dataset:
    """Read the arrays into memory; pickled objects are refused.

    Args:
        path: of the ``.npz`` or ``.npy``.
        name: of the set.
        task: what is asked of an image, where its answers could be taken for something else.

    Raises:
        DataError: it is damaged, its arrays say nothing, or its answers do not match.
    """
    where = printable(str(path))
    arrays = _load(path, where)
    pairs = _pairs(arrays, where)
    images = {
        split: _images(arrays[key], answers is None, f"{where}: {key}")
        for split, key, answers in pairs
    }
    answered = {split: _alone(arrays[key]) for split, _, key in pairs if key is not None}
    keys = {split: key for split, _, key in pairs if key is not None}
    if answered and _are_masks(images, answered):
        made, found = _with_masks(images, answered, where)
    else:
        made, found = _with_answers(images, answered, keys, task, where)
    return Dataset(
        name, "NumPy archive", in_order(made), found.classes, value_names=found.value_names,
        bytes_on_disk=path.stat().st_size, task_reason=found.reason,
    )  # fmt: skip


def _load(path: Path, where: str) -> _Arrays:
    try:
        with path.open("rb") as stream:  # NumPy leaves its own open when the file is damaged
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                return {"images": archive}
            return {key: archive[key] for key in archive.files}
    except _DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in text:
            text = "it contains pickled objects, which could run code when loaded"
        raise DataError(
            f"{where} cannot be read as a NumPy archive: {text.rstrip('.')}.",
            hint="Store plain arrays: np.savez_compressed(path, images=images, labels=labels).",
        ) from None


# -- which array is what ---------------------------------------------------------------------------


def _pairs(arrays: _Arrays, where: str) -> list[_Pair]:
    """``(split, key of the images, key of the answers)`` for all splits that are there."""
    by_name = {key.lower().replace("_", ""): key for key in arrays}
    found = [
        (split, *pair)
        for split, words in _SPLITS.items()
        if (pair := _named(by_name, [(w + n, n + w) for w in words for n in _IMAGES],
                           [(w + n, n + w) for w in words for n in _ANSWERS])) is not None
    ]  # fmt: skip
    if not found:
        alone = _named(by_name, [(n,) for n in _IMAGES], [(n,) for n in _ANSWERS])
        is_pair = alone is not None and (alone[1] is not None or len(arrays) == 1)
        found = [("all", *alone)] if alone is not None and is_pair else _by_shape(arrays)
    if not found:
        kinds = ", ".join(f"{key} {array.shape}" for key, array in sorted(arrays.items()))
        raise DataError(
            f"{where}: no images among its arrays ({printable(kinds) or 'none'}).",
            hint="Known names: images and labels, x_train and y_train, train_images and "
            "train_labels; likewise for val and test.",
        )
    return found


def _named(
    by_name: Mapping[str, str],
    images: Iterable[tuple[str, ...]],
    answers: Iterable[tuple[str, ...]],
) -> tuple[str, str | None] | None:
    """The first name of each kind that is there."""
    keys = [
        next((by_name[n] for names in kind for n in names if n in by_name), None)
        for kind in (images, answers)
    ]
    return None if keys[0] is None else (keys[0], keys[1])


def _by_shape(arrays: _Arrays) -> list[_Pair]:
    """Images have three or more dimensions; two pairs are train and test, in their order."""
    images = [key for key, array in arrays.items() if array.ndim >= 3]
    others = [key for key in arrays if key not in images]
    if len(images) == 2 and not others and _same_size(arrays[images[0]], arrays[images[1]]):
        return [("all", images[0], images[1])]  # masks
    if len(images) not in (1, 2) or len(others) not in (0, len(images)):
        return []
    if any(len(arrays[i]) != len(arrays[o]) for i, o in zip(images, others, strict=False)):
        return []
    splits = ["all"] if len(images) == 1 else ["train", "test"]
    answers: Sequence[str | None] = others or [None] * len(images)
    return list(zip(splits, images, answers, strict=True))


def _same_size(images: NDArray[Any], masks: NDArray[Any]) -> bool:
    return images.ndim == 4 and images.shape[:3] == masks.shape[:3]


# -- what they hold --------------------------------------------------------------------------------


def _images(images: NDArray[Any], is_alone: bool, where: str) -> NDArray[Any]:
    """``(N, H, W)`` or ``(N, H, W, C)``, as uint8 where the values are."""
    shape = images.shape
    if not len(images):
        raise DataError(f"{where} is empty.")
    if images.ndim == 3 and is_alone and shape[2] in (3, 4):
        raise DataError(
            f"{where} has shape {shape}: one colour image, or many grey ones {shape[2]} wide?",
            hint="Store it as (N, H, W) or (N, H, W, channels).",
        )
    if images.dtype == np.bool_:
        images = images.astype(np.uint8) * 255
    if images.ndim == 2 and images.dtype.kind in "iuf":
        images = images_of_rows(images, where)
    if images.ndim == 4 and shape[1] in (1, 3) and (shape[3] > 4 or shape[2] == shape[3] > 1):
        images = images.transpose(0, 2, 3, 1)
    return in_eight_bits(images)


def _alone(answers: NDArray[Any]) -> NDArray[Any]:
    """``(N,)`` for ``(N, 1)``."""
    return answers[:, 0] if answers.ndim == 2 and answers.shape[1] == 1 else answers


def _are_masks(images: _Arrays, answers: _Arrays) -> bool:
    return all(
        answer.ndim >= 3 and answer.shape[:3] == images[split].shape[:3]
        for split, answer in answers.items()
    )


def _with_masks(images: _Arrays, answers: _Arrays, where: str) -> tuple[dict[str, Split], Answers]:
    masks = {
        split: ArraySplit(split, in_eight_bits(array.astype(np.uint8) if array.dtype == np.bool_
                                               else array), None, where)
        for split, array in answers.items()
    }  # fmt: skip
    classes = classes_in(list(masks.values()), where)
    made: dict[str, Split] = {}
    for split, pixels in images.items():
        made[split] = ArraySplit(split, pixels, None, where)
        made[split].masks = Masks(masks[split], classes) if split in masks else None
    return made, Answers("masks", "", classes=classes.names)


def _with_answers(
    images: _Arrays, answers: _Arrays, keys: Mapping[str, str], task: Task | None, where: str
) -> tuple[dict[str, Split], Answers]:
    for split, answer in answers.items():
        if len(answer) != len(images[split]):
            raise DataError(
                f"{where}: {split} has {len(images[split]):,} images and labels of shape "
                f"{answer.shape}."
            )
    found = Answers(None, "")
    if answers:
        name = next(iter(keys.values()))
        shapes = {answer.shape[1:] for answer in answers.values()}
        if len(shapes) > 1:
            raise DataError(f"{where}: the answers of its splits have different shapes.")
        joined = np.concatenate(list(answers.values()))
        found = answers_of_array(joined, f"{where}: {name}", name, task)
    made: dict[str, Split] = {}
    start = 0
    for split, pixels in images.items():
        part = slice(start, start + len(answers.get(split, ())))
        labels = None if found.labels is None or split not in answers else found.labels[part]
        targets = None if found.targets is None or split not in answers else found.targets[part]
        made[split] = ArraySplit(split, pixels, labels, where, targets=targets)
        start = part.stop
    return made, found
