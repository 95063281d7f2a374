"""The sets that have a name: where they are looked for, and what to do when they are missing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfit.data.samples.dataset import Dataset
from memfit.data.samples.labels import split_named
from memfit.data.sets.cifar import find_cifar, open_cifar
from memfit.data.sets.folders import open_folder
from memfit.data.sets.idx import find_idx, open_idx
from memfit.data.sets.trees import DiskTree
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["DEFAULT_ROOT", "NAMED_SETS", "NamedSet", "open_named"]

DEFAULT_ROOT = Path("data")


@dataclass(frozen=True, slots=True)
class NamedSet:
    """What is known about a set.

    Args:
        title: its proper name.
        torchvision: the class of ``torchvision.datasets`` that downloads it.
        page: its home page.
        folders: below the root, where it is looked for, besides the root itself.
        by_hand: which files to put where, below the root.
        num_classes: that it must have.
        classes: their names, where the files do not say.
        elsewhere: other places, looked at when no root is given.
    """

    title: str
    torchvision: str
    page: str
    folders: tuple[str, ...]
    by_hand: str
    num_classes: int
    classes: tuple[str, ...] | None = None
    elsewhere: tuple[str, ...] = ()


_IDX_FILES = "{train,t10k}-images-idx3-ubyte.gz and {train,t10k}-labels-idx1-ubyte.gz"
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip

NAMED_SETS: dict[str, NamedSet] = {
    "mnist": NamedSet(
        "MNIST", "MNIST", "https://yann.lecun.org/exdb/mnist/",
        ("MNIST/raw", "MNIST", "mnist", "mnist/raw"), f"{_IDX_FILES} into ROOT/mnist",
        10, tuple(str(digit) for digit in range(10)),
    ),
    "fashion-mnist": NamedSet(
        "Fashion-MNIST", "FashionMNIST", "https://github.com/zalandoresearch/fashion-mnist",
        ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "fashion-mnist/raw"),
        f"{_IDX_FILES} into ROOT/fashion-mnist (or, on Debian, apt install dataset-fashion-mnist)",
        10, _FASHION, ("/usr/share/datasets/fashion-mnist",),
    ),
    "cifar10": NamedSet(
        "CIFAR-10", "CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar.html",
        ("cifar-10-batches-py", "cifar10", "cifar-10", "CIFAR10"),
        "the folder cifar-10-batches-py (from cifar-10-python.tar.gz) into ROOT", 10,
    ),
    "cifar100": NamedSet(
        "CIFAR-100", "CIFAR100", "https://www.cs.toronto.edu/~kriz/cifar.html",
        ("cifar-100-python", "cifar100", "cifar-100", "CIFAR100"),
        "the folder cifar-100-python (from cifar-100-python.tar.gz) into ROOT", 100,
    ),
}  # fmt: skip


def open_named(name: str, root: Path | None = None, *, download: bool = False) -> Dataset:
    """Find a named set and open it.

    It may lie there as its original files, as torchvision puts them, or as an image folder
    (``train/class/*.jpg``).

    Args:
        name: a key of :data:`NAMED_SETS`.
        root: where to look and to download to; ``./data`` (and where Debian's packages put sets)
            when omitted.
        download: fetch it when it is missing.

    Raises:
        DataError: it is missing, damaged, or cannot be downloaded.
    """
    known = NAMED_SETS[name]
    base = DEFAULT_ROOT if root is None else root
    places = [base / folder for folder in known.folders] + [base]
    if root is None:
        places += [Path(place) for place in known.elsewhere]
    dataset = _find(name, places)
    if dataset is None and download:
        _download(known, base)
        dataset = _find(name, places)
    if dataset is None:
        raise _missing(name, base, places, download)
    if dataset.classes and len(dataset.classes) != known.num_classes:
        raise DataError(
            f"What lies in {printable(str(base))} has {len(dataset.classes)} classes; "
            f"{known.title} has {known.num_classes}.",
            hint="Give another --root, or open the folder by its path.",
        )
    return dataset


def _find(name: str, places: list[Path]) -> Dataset | None:
    for place in places:
        if place.is_dir() and (dataset := _open_in(name, place)):
            return dataset
    return None


def _open_in(name: str, place: Path) -> Dataset | None:
    """The set, if it lies right in this folder."""
    known = NAMED_SETS[name]
    if known.classes is not None:
        pairs = find_idx(place, places=())
        # a download may have stopped in between
        if {"train", "test"} <= set(pairs) and all(pair.labels for pair in pairs.values()):
            return open_idx(pairs, name, known.classes)
    elif (found := find_cifar(place, key=name)) is not None:
        return open_cifar(found, name, name)
    if any(split_named(child.name) == "train" and child.is_dir() for child in place.iterdir()):
        return open_folder(DiskTree(place), name)
    return None


def _missing(name: str, root: Path, places: list[Path], tried: bool) -> DataError:
    known = NAMED_SETS[name]
    looked = ", ".join(printable(str(place)) for place in places)
    by_hand = known.by_hand.replace("ROOT", printable(str(root)))
    what = "was downloaded, but is still not here" if tried else "is not here"
    parts = [place for place in places if known.classes and find_idx(place, places=())]
    if parts:
        what = f"is incomplete in {printable(str(parts[0]))}, and not elsewhere"
    return DataError(
        f"{known.title} {what}; looked in {looked}.",
        hint=f"Fetch it with memfit data {name} --download (and the same --root), or name the "
        f"folder it is in with --root, or put {by_hand} ({known.page}).",
    )


def _download(known: NamedSet, root: Path) -> None:
    """Let torchvision fetch the files; whatever goes wrong becomes one error."""
    try:
        from torchvision import datasets

        fetch: Callable[..., Any] = getattr(datasets, known.torchvision)
        with contextlib.redirect_stdout(sys.stderr):
            fetch(str(root), download=True)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        by_hand = known.by_hand.replace("ROOT", printable(str(root)))
        raise DataError(
            f"{known.title} could not be downloaded ({lines[-1][:200].rstrip('.')}).",
            hint=f"By hand: put {by_hand}. They are at {known.page}.",
        ) from None
