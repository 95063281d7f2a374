"""From a name or a path to a data set, whatever it is.

A source is a name when it is exactly one (``mnist``, ``shapes,size=48``), whatever lies in the
current folder; ``./mnist`` is always the path. Everything else is a path, and what it holds is
found out by looking: IDX files, CIFAR's pickles, then images.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memfit.data.images.decode import Window, open_image
from memfit.data.samples.dataset import Dataset
from memfit.data.samples.paths import is_image_name
from memfit.data.sets.archives import ARCHIVE_ENDINGS, open_archive
from memfit.data.sets.cifar import find_cifar, is_cifar_archive, open_cifar
from memfit.data.sets.folders import open_folder, open_image_file
from memfit.data.sets.idx import find_idx, is_idx_name, open_idx
from memfit.data.sets.named import NAMED_SETS, open_named
from memfit.data.sets.npz import open_npz
from memfit.data.sets.other_files import OWN_CODE, meaning_of
from memfit.data.sets.own import is_spec, open_own, open_spec
from memfit.data.sets.shapes import open_shapes, parse_shapes
from memfit.data.sets.trees import DiskTree
from memfit.data.tables.hub import image_columns, open_hub
from memfit.data.tables.parquet import ParquetTable
from memfit.data.tables.table import TABLE_EXTENSIONS, open_table
from memfit.errors import BadImage, DataError, UnknownName, UsageError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["open_dataset", "source_names"]


def source_names() -> list[str]:
    """The names that :func:`open_dataset` knows, sorted."""
    return sorted((*NAMED_SETS, "shapes"))


def open_dataset(
    source: Any,
    *,
    root: str | Path | None = None,
    download: bool = False,
    task: Task | None = None,
    window: Window | None = None,
    frame: int | None = None,
) -> Dataset:
    """Open a source of images without decoding any.

    Args:
        source: a name (``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``shapes`` with
            options such as ``shapes,size=48,channels=1``), a path (an image folder, IDX files,
            CIFAR's pickles or archive, ``.npz``, ``.csv``, ``.parquet``, ``.zip``, ``.tar``, one
            image), ``my_data.py:NAME``, an object with ``__len__`` and ``__getitem__`` (see
            :mod:`memfit.data.sets.own`), or an opened data set. A ``Path`` is never a name.
        root: where the named sets are; ``./data`` when omitted.
        download: fetch a named set that is missing.
        task: what is asked of a sample, where the data could be taken for something else.
        window: values of 16 and 32-bit and float images that become black and white.
        frame: of images with several, from 0.

    Raises:
        DataError: it does not exist, is damaged, or has nothing for the task.
        UnknownName: neither a name nor a path.
        UsageError: options that do not exist.

    >>> open_dataset("shapes,train=16,test=8")["train"].images.shape
    (16, 32, 32, 3)
    """
    if isinstance(source, Dataset):
        opened = source
    elif not isinstance(source, (str, os.PathLike)):
        opened = open_own(source, type(source).__name__, task)
    elif isinstance(source, str) and is_spec(source):
        opened = open_spec(source, task)
    else:
        text = os.fsdecode(source)
        root = None if root is None else Path(root)
        try:
            opened = _open(text, isinstance(source, str), root, download, task)
        except OSError as error:  # a folder that may not be entered, a name that is too long
            name = error.filename if isinstance(error.filename, str) else text
            raise DataError(f"{printable(name)}: {error.strerror or error}.") from None
    if task is not None and opened.task != task:
        raise DataError(
            f"{opened.name} has {opened.task or 'nothing to learn'}, not {task}.",
            hint="Leave out the task (--task): it is what the data has.",
        )
    return opened.seen_through(window, frame)


def _open(
    text: str, may_be_name: bool, root: Path | None, download: bool, task: Task | None
) -> Dataset:
    if may_be_name:
        name = text.partition(",")[0]
        if name == "shapes":
            return open_shapes(parse_shapes(text), text)
        if text in NAMED_SETS:
            return open_named(text, root, download=download)
        if name in NAMED_SETS:
            raise UsageError(f"{name} has no options, as {text!r} gives.")
    path = Path(os.path.expanduser(text))  # noqa: PTH111 (leaves an unknown ~user alone)
    if "\0" in text or not text.strip():
        raise UsageError(f"{text!r} is neither a name nor a path.")
    if not path.exists():
        raise _nothing_there(text, path, may_be_name)
    return _open_path(path, printable(text), task)


def _open_path(path: Path, name: str, task: Task | None) -> Dataset:
    if path.is_dir():
        return _open_directory(path, name, task)
    if not path.is_file():
        raise DataError(f"{name} is neither a file nor a folder.")
    if is_idx_name(path):
        return open_idx(path, name)
    opener = _opener_of(path)
    if opener is not None:
        return opener(path, name, task)
    if not is_image_name(path.name):
        _refuse_other_files(path, name)
    return open_image_file(path, name)


def _opener_of(path: Path) -> Callable[[Path, str, Task | None], Dataset] | None:
    """By the ending; None for images and what is unknown."""
    ending = path.suffix.lower()
    if ending in (".npz", ".npy"):
        return open_npz
    if ending in TABLE_EXTENSIONS:
        return open_table
    if not path.name.lower().endswith(ARCHIVE_ENDINGS):
        return None
    if is_cifar_archive(path):
        return lambda path, name, _: open_cifar(path, None, name)
    return open_archive


def _open_directory(path: Path, name: str, task: Task | None) -> Dataset:
    found = [(key, place) for key in ("cifar10", "cifar100") if (place := find_cifar(path, key))]
    pairs = find_idx(path)
    sets = [key for key, _ in found] + ["IDX files"] * bool(pairs)
    if len(sets) > 1:
        raise DataError(
            f"{name} holds several sets: {', '.join(sets)}.",
            hint="Name the folder of one of them, or its name and --root.",
        )
    if pairs:
        return open_idx(pairs, name)
    if found:
        return open_cifar(found[0][1], found[0][0], name)
    try:
        return open_folder(DiskTree(path), name, task)
    except DataError as error:
        shards = sorted(path.rglob("*.parquet"))
        if shards and image_columns(ParquetTable(shards[0])):
            return open_hub(shards, path, name, task)
        tables = sorted(
            child.name
            for child in path.iterdir()
            if child.suffix.lower() in {*TABLE_EXTENSIONS, ".npz"}
        )
        if not tables:
            raise
        hint = f"To open {printable(tables[0])}, name that file."
        raise DataError(error.message, hint=hint) from None


def _refuse_other_files(path: Path, name: str) -> None:
    """A file with a strange ending may still be an image."""
    try:
        open_image(path, name)
    except BadImage as error:
        raise DataError(
            f"{name} is no image ({meaning_of(path.name) or error.reason}).",
            hint="Known besides images: folders, .zip, .tar, .npz, .csv, .jsonl, .parquet, "
            f"*-images-idx3-ubyte(.gz), CIFAR's .tar.gz. {OWN_CODE}",
        ) from None


def _nothing_there(text: str, path: Path, may_be_name: bool) -> Exception:
    shown = printable(text)
    if may_be_name and path.name == text and not path.suffix:
        names = source_names()
        near = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
        also = f"Did you mean {' or '.join(near)}?" if near else f"Names: {', '.join(names)}."
        return UnknownName("data set", shown, names, hint=f"There is no such path either. {also}")
    if path.is_symlink():
        return DataError(f"{shown} is a link to something that does not exist.")
    return DataError(f"{shown} does not exist.", hint=_nearest(path))


def _nearest(path: Path) -> str | None:
    """What is there instead."""
    parent = path.parent
    while not parent.exists():
        path, parent = parent, parent.parent
    if not parent.is_dir():
        return f"{printable(str(parent))} is a file."
    try:
        names = [child.name for child in parent.iterdir()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    where = printable(str(parent.absolute()))
    return f"In {where} there is {' and '.join(map(printable, near))}." if near else None
