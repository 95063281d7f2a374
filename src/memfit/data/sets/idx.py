"""IDX files, the format of MNIST: big-endian sizes, then bytes, as it is or through gzip.

Format: two zero bytes, the type (8 is unsigned byte), the number of dimensions, each dimension as
a 32-bit number, then the values (as described on the MNIST home page of Y. LeCun).
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, Split
from memfit.data.samples.labels import class_labels, classes_of, in_order, split_named
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["IdxPair", "find_idx", "is_idx_name", "open_idx", "read_idx"]

_NAME = re.compile(
    r"(?P<set>.*?)(?P<split>train|t10k|test|val)[-_.](?P<what>images|labels)"
    r"[-_.]idx(?P<dims>\d)[-_.]ubyte(?P<gz>\.gz)?",
    re.IGNORECASE,
)
_TYPES = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}
#: Deflate cannot shrink anything further (zlib's technical notes: 1032 to 1).
_LARGEST_GZIP_RATIO = 1032
_READ_BYTES = 1 << 20

#: Below a folder that holds several sets, where torchvision puts them.
_TORCHVISION_FOLDERS = ("MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "EMNIST/raw")


@dataclass(frozen=True, slots=True)
class IdxPair:
    """The files of one split."""

    images: Path
    labels: Path | None


def is_idx_name(path: Path) -> bool:
    """Whether a file is named like ``train-images-idx3-ubyte.gz``."""
    return _NAME.fullmatch(path.name) is not None


def find_idx(folder: Path, places: tuple[str, ...] | None = None) -> dict[str, IdxPair]:
    """The splits that lie in a folder, or below it where torchvision puts them.

    Args:
        folder: to look in.
        places: below the folder; those of torchvision when omitted.

    Returns:
        The files by split; empty when there are none.

    Raises:
        DataError: there are several sets.
    """
    below = _TORCHVISION_FOLDERS if places is None else places
    pairs = _pairs(folder) or _pairs(folder / "raw")
    if pairs:
        return pairs
    found = {place: pairs for place in below if (pairs := _pairs(folder / place))}
    if len(found) > 1:
        raise DataError(
            f"{printable(str(folder))} holds several sets: {', '.join(found)}.",
            hint="Name the folder of one of them.",
        )
    return next(iter(found.values()), {})


def _files(folder: Path) -> dict[tuple[str, str, str], Path]:
    """By set, split, and whether it holds images or labels; a plain file before a ``.gz``."""
    try:
        paths = sorted(folder.iterdir(), reverse=True)
    except OSError as error:
        raise DataError(f"{printable(str(folder))}: {error.strerror}.") from None
    return {_key(match): path for path in paths if (match := _NAME.fullmatch(path.name))}


def _key(match: re.Match[str]) -> tuple[str, str, str]:
    return match["set"], split_named(match["split"]) or match["split"], match["what"].lower()


def _pairs(folder: Path) -> dict[str, IdxPair]:
    if not folder.is_dir():
        return {}
    files = _files(folder)
    sets = sorted({key[0] for key in files})
    if len(sets) > 1:
        raise DataError(
            f"{printable(str(folder))} holds several sets: {', '.join(map(repr, sets))}.",
            hint="Name the file with the images of one of them.",
        )
    for (name, split, what), path in files.items():
        if what == "labels" and (name, split, "images") not in files:
            raise DataError(f"{printable(str(path))} has no file with images.")
    return {
        split: IdxPair(path, files.get((name, split, "labels")))
        for (name, split, what), path in files.items()
        if what == "images"
    }


def open_idx(
    source: Path | Mapping[str, IdxPair], name: str, classes: tuple[str, ...] | None = None
) -> Dataset:
    """Read the splits into memory.

    Args:
        source: a file with images (the labels lie beside it), or what :func:`find_idx` found.
        name: of the set.
        classes: names; the numbers when omitted.

    Raises:
        DataError: a file is damaged, or its labels do not match.
    """
    pairs = _pair_of(source) if isinstance(source, Path) else source
    splits: dict[str, Split] = {}
    size = 0
    for split, pair in pairs.items():
        images = read_idx(pair.images, 3)
        labels = None
        size += pair.images.stat().st_size
        if pair.labels is not None:
            size += pair.labels.stat().st_size
            labels = class_labels(read_idx(pair.labels, 1), printable(str(pair.labels)))
            if len(images) != len(labels):
                raise DataError(
                    f"{printable(str(pair.images))} has {len(images):,} images, but "
                    f"{printable(str(pair.labels))} has {len(labels):,} labels."
                )
        splits[split] = ArraySplit(split, images, labels, printable(str(pair.images)))
    names = classes_of(splits.values(), classes, name)
    return Dataset(name, "IDX files", in_order(splits), names, bytes_on_disk=size)


def _pair_of(path: Path) -> dict[str, IdxPair]:
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    name, split, what = _key(match)
    if what == "labels":
        raise DataError(
            f"{printable(str(path))} holds labels.", hint="Name the file with the images."
        )
    return {split: IdxPair(path, _files(path.parent).get((name, split, "labels")))}


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The values of one file of unsigned bytes.

    Args:
        path: ending in ``.gz`` when compressed.
        dimensions: 3 for images, 1 for labels.

    Returns:
        uint8 of the shape that the file gives.

    Raises:
        DataError: the file cannot be read or is not what it should be, with its name.
    """
    name = printable(str(path))
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as unpacked:
                stream = cast(BinaryIO, unpacked)
                return _read(stream, name, dimensions, _LARGEST_GZIP_RATIO * path.stat().st_size)
        with path.open("rb") as plain:
            return _read(cast(BinaryIO, plain), name, dimensions, path.stat().st_size)
    except EOFError:
        raise DataError(f"{name}: the gzip file is truncated.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: the gzip file is corrupt ({error}).") from None
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}.") from None


def _read(stream: BinaryIO, name: str, dimensions: int, largest: int) -> NDArray[np.uint8]:
    shape = _read_shape(stream, name, dimensions)
    length = math.prod(shape)
    if length > largest:
        raise DataError(f"{name}: shorter than its header says ({length:,} bytes for {shape}).")
    values = bytearray(length)
    got, view = 0, memoryview(values)
    while got < length and (part := stream.read(min(length - got, _READ_BYTES))):
        view[got : got + len(part)] = part
        got += len(part)
    if got < length:
        raise DataError(f"{name}: {got:,} bytes instead of the {length:,} of its shape {shape}.")
    if stream.read(1):  # for gzip this is also what checks the sum
        raise DataError(f"{name}: more bytes than the {length:,} of its shape {shape}.")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_shape(stream: BinaryIO, name: str, dimensions: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise DataError(f"{name} is not an IDX file: it begins with {magic.hex() or 'nothing'}.")
    if magic[2] != 8:
        raise DataError(f"{name} holds {_TYPES[magic[2]]}; unsigned bytes are needed.")
    if magic[3] != dimensions:
        raise DataError(f"{name} has {magic[3]} dimensions; {dimensions} are needed.")
    header = stream.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"{name}: ends within its header.")
    shape = struct.unpack(f">{dimensions}I", header)
    if 0 in shape:
        raise DataError(f"{name} is empty: its shape is {shape}.")
    return shape
