"""NumPy archives: arrays of images and labels under the names people give them."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.dataset import ArraySplit, Dataset, Split
from memfit.data.samples.labels import class_labels, classes_of, in_order
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["open_npz"]

#: Names of (images, labels) by split, in lower case: Keras', MedMNIST's, scikit-learn's.
_KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    split: ((f"x_{split}", f"y_{split}"), (f"{split}_images", f"{split}_labels"),
            (f"{split}_x", f"{split}_y"), (f"{split}_data", f"{split}_labels"))
    for split in ("train", "val", "test")
}  # fmt: skip
_KEYS["all"] = (
    ("images", "labels"), ("x", "y"), ("data", "labels"), ("data", "target"), ("image", "label"),
)  # fmt: skip

_DAMAGED = (
    OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, tokenize.TokenError, OverflowError,
)  # fmt: skip


def open_npz(path: Path, name: str) -> Dataset:
    """Read the arrays into memory; pickled objects are refused.

    Args:
        path: of the ``.npz``.
        name: of the set.

    Raises:
        DataError: it is damaged, its names say nothing, or its labels do not match.
    """
    where = printable(str(path))
    arrays = _load(path, where)
    splits: dict[str, Split] = {}
    for split, images_key, labels_key in _pairs(list(arrays), where):
        images = _channels_last(arrays[images_key], labels_key is None, f"{where}: {images_key}")
        labels = None
        if labels_key is not None:
            labels = class_labels(arrays[labels_key], f"{where}: {labels_key}")
        splits[split] = ArraySplit(split, images, labels, where)
        if not len(images):
            raise DataError(f"{where}: {images_key} is empty.")
    names = classes_of(splits.values(), None, where)
    size = path.stat().st_size
    return Dataset(name, "NumPy archive", in_order(splits), names, bytes_on_disk=size)


def _load(path: Path, where: str) -> Mapping[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream:  # NumPy leaves its own open when the file is damaged
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                return {"images": archive}
            wanted = [key for _, *keys in _pairs(archive.files, where) for key in keys if key]
            return {key: archive[key] for key in wanted}
    except DataError:
        raise
    except _DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in text:
            text = "it contains pickled objects, which could run code when loaded"
        raise DataError(
            f"{where} cannot be read as a NumPy archive: {text.rstrip('.')}.",
            hint="Store plain arrays: np.savez_compressed(path, images=images, labels=labels).",
        ) from None


def _pairs(keys: list[str], where: str) -> list[tuple[str, str, str | None]]:
    """``(split, key of the images, key of the labels)`` for all splits that are there."""
    by_lower = {key.lower(): key for key in keys}
    found: list[tuple[str, str, str | None]] = []
    for split, candidates in _KEYS.items():
        present = [pair for pair in candidates if pair[0] in by_lower]
        pair = next((p for p in present if p[1] in by_lower), present[0] if present else None)
        if pair is not None:
            found.append((split, by_lower[pair[0]], by_lower.get(pair[1])))
    if not found and len(keys) == 1:
        found = [("all", keys[0], None)]
    if not found:
        raise DataError(
            f"{where}: no images among its arrays ({', '.join(sorted(keys)) or 'none'}).",
            hint="Known names: images and labels, x_train and y_train, train_images and "
            "train_labels; likewise for val and test.",
        )
    return [pair for pair in found if pair[0] != "all"] or found


def _channels_last(images: NDArray[Any], is_alone: bool, where: str) -> NDArray[Any]:
    """``(N, C, H, W)`` with 1 or 3 channels becomes ``(N, H, W, C)``; the rest is as it was."""
    shape = images.shape
    if images.ndim == 3 and is_alone and shape[2] in (3, 4):
        raise DataError(
            f"{where} has shape {shape}: one colour image, or many grey ones {shape[2]} wide?",
            hint="Store it as (N, H, W) or (N, H, W, channels).",
        )
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 2, 3, 4):
        return images.transpose(0, 2, 3, 1)
    return images
