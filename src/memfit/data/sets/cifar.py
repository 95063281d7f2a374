"""CIFAR-10 and CIFAR-100 as distributed "for Python": pickles, read without trusting them.

A pickle can run any code when loaded. The unpickler here knows plain containers, strings, numbers
and stand-ins for NumPy's array constructors, and refuses every other name.

Format: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import itertools
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, Split
from memfit.data.samples.labels import class_labels, classes_of
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["find_cifar", "is_cifar_archive", "load_plain_pickle", "open_cifar"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which files make a set, and the keys in them."""

    folder: str
    splits: Mapping[str, tuple[str, ...]]
    labels: str
    meta: str
    names: str


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        "labels", "batches.meta", "label_names",
    ),
    "cifar100": _Layout(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "fine_labels", "meta", "fine_label_names",
    ),
}  # fmt: skip

#: Members of an archive that tell whether it is CIFAR's.
_LOOKED_AT = 8
#: The largest file of CIFAR-100 has 155 million bytes.
_LARGEST_FILE_BYTES = 1 << 29

_DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    ImportError, OverflowError, MemoryError, RecursionError, struct.error,
)  # fmt: skip


def find_cifar(folder: Path, key: str) -> Path | None:
    """Where a set's pickles are: in a folder, or right below it.

    Args:
        folder: to look in.
        key: ``"cifar10"`` or ``"cifar100"``.

    Returns:
        The folder with the pickles; None when they are not there.
    """
    layout = _LAYOUTS[key]
    files = [file for files in layout.splits.values() for file in files]
    for place in (folder, folder / layout.folder):
        # One of them is enough to know; whatever else is missing is an error of its own.
        if (place / layout.meta).is_file() and any((place / file).is_file() for file in files):
            return place
    return None


def is_cifar_archive(path: Path) -> bool:
    """Whether a file is the tar in which CIFAR is distributed: its first members tell."""
    folders = {layout.folder for layout in _LAYOUTS.values()}
    try:
        with tarfile.open(path) as archive:
            first = itertools.islice(archive, _LOOKED_AT)
            return any(m.name.removeprefix("./").partition("/")[0] in folders for m in first)
    except (tarfile.TarError, zlib.error, EOFError, OSError):
        return False


def open_cifar(place: Path, key: str | None, name: str) -> Dataset:
    """Read a set into memory.

    Args:
        place: the folder with the pickles, or the archive of it.
        key: ``"cifar10"`` or ``"cifar100"``; None finds out from an archive.
        name: of the set.

    Raises:
        DataError: a file is missing, damaged, or contains anything but plain arrays.
    """
    where = printable(str(place))
    if place.is_dir():
        assert key is not None
        read = _from_folder(place)
        files = [place / f for fs in _LAYOUTS[key].splits.values() for f in fs]
        size = sum(path.stat().st_size for path in files if path.exists())
    else:
        key, read = _from_archive(place, where)
        size = place.stat().st_size
    layout = _LAYOUTS[key]
    splits: dict[str, Split] = {
        split: _split(split, files, layout, read, where) for split, files in layout.splits.items()
    }
    classes = _class_names(read(layout.meta), layout, f"{where}/{layout.meta}")
    return Dataset(
        name,
        "CIFAR pickles",
        splits,
        classes_of(splits.values(), classes, where),
        bytes_on_disk=size,
    )


_Reader = Callable[[str], bytes]


def _from_folder(place: Path) -> _Reader:
    def read(file: str) -> bytes:
        try:
            return (place / file).read_bytes()
        except FileNotFoundError:
            raise DataError(f"{printable(str(place / file))} is missing.") from None
        except OSError as error:
            raise DataError(f"{printable(str(place / file))}: {error.strerror}.") from None

    return read


def _from_archive(path: Path, where: str) -> tuple[str, _Reader]:
    """The members that matter, read in one pass and never written to the disk."""
    folders = {layout.folder: key for key, layout in _LAYOUTS.items()}
    members: dict[str, bytes] = {}
    key = None
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, file = member.name.removeprefix("./").partition("/")
                if folder in folders and member.isfile() and member.size <= _LARGEST_FILE_BYTES:
                    key = folders[folder]
                    stream = archive.extractfile(member)
                    members[file] = stream.read() if stream else b""
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{where}: the archive is damaged ({error}).") from None
    if key is None:
        raise DataError(
            f"{where} is not the archive of CIFAR-10 or CIFAR-100 for Python.",
            hint="Extract it (tar -xf) and name the folder.",
        )

    def read(file: str) -> bytes:
        if file not in members:
            raise DataError(f"{where}: {file} is missing in the archive.")
        return members[file]

    return key, read


def _split(
    name: str, files: tuple[str, ...], layout: _Layout, read: _Reader, where: str
) -> ArraySplit:
    images, labels = [], []
    for file in files:
        at = f"{where}/{file}"
        content = _texts(load_plain_pickle(read(file), at), at)
        images.append(_images(content.get("data"), at))
        labels.append(_labels(content.get(layout.labels), len(images[-1]), at))
    return ArraySplit(name, np.concatenate(images), np.concatenate(labels), where)


def _texts(content: object, where: str) -> dict[str, Any]:
    """The same dictionary with text as keys; Python 2 wrote bytes."""
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds {type(content).__name__}, not the dictionary of a batch.")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _images(data: object, where: str) -> NDArray[np.uint8]:
    """Rows of 1024 red, 1024 green, 1024 blue values, as ``(N, 32, 32, 3)``."""
    if not isinstance(data, _Array):
        raise DataError(f"{where}: no array 'data'.")
    rows = data.values(where)
    if rows.ndim != 2 or rows.shape[1] != 3072 or rows.dtype != np.uint8:
        raise DataError(f"{where}: data is {rows.dtype} {rows.shape}, not uint8 (N, 3072).")
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _labels(labels: object, images: int, where: str) -> NDArray[np.int64]:
    if isinstance(labels, _Array):
        numbers = labels.values(where)
    elif isinstance(labels, list) and all(type(label) is int for label in labels):
        numbers = np.array(labels, np.int64)
    else:
        raise DataError(f"{where}: no list of labels.")
    if len(numbers) != images:
        raise DataError(f"{where}: {images:,} images, but {len(numbers):,} labels.")
    return class_labels(numbers, where)


def _class_names(content: bytes, layout: _Layout, where: str) -> tuple[str, ...]:
    names = _texts(load_plain_pickle(content, where), where).get(layout.names)
    if not isinstance(names, list):
        raise DataError(f"{where}: no list {layout.names!r}.")
    return tuple(_text(name) for name in names)


# -- pickles without code --------------------------------------------------------------------------


def load_plain_pickle(content: bytes, where: str) -> object:
    """What a pickle holds, if that is plain containers, strings, numbers and arrays.

    Args:
        content: of the file.
        where: the file, for messages.

    Returns:
        The content; arrays as stand-ins that only this module reads.

    Raises:
        DataError: it is damaged, or names anything else.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _Refused as refused:
        raise DataError(
            f"{where} is refused: it names {refused}, and a pickle may run whatever it names.",
            hint="A data file holds plain arrays; get it from the set's home page.",
        ) from None
    except _DAMAGED as error:
        raise DataError(f"{where}: a damaged pickle ({error}).") from None


class _Refused(Exception):
    """A name in a pickle that is none of the allowed ones."""


class _Dtype:
    """Stands for ``numpy.dtype``: remembers the code."""

    def __init__(self, code: object = b"", *_: object) -> None:
        self.code = _text(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: the plain types here need neither."""


class _Array:
    """Stands for ``numpy.ndarray``: bytes, shape and type, checked before NumPy sees them."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def values(self, where: str) -> NDArray[Any]:
        """The array.

        Raises:
            DataError: the parts do not make one of plain numbers.
        """
        match self.state:
            case (_, tuple() as shape, _Dtype() as dtype, fortran, bytes() | bytearray() as raw):
                code = dtype.code.lstrip("|<=")
                if code in ("u1", "i4", "i8") and all(type(size) is int for size in shape):
                    try:
                        flat = np.frombuffer(raw, f"<{code}")
                        return flat.reshape(shape, order="F" if fortran else "C")
                    except ValueError:
                        pass
        raise DataError(f"{where}: a damaged array, or one of other than plain numbers.")


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    """What arrays are made of since pickle protocol 5."""
    made = _Array()
    made.state = (1, shape, dtype, order == "F", raw)
    return made


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise ValueError("strange bytes")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None
