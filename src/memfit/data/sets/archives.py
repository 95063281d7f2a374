"""Zip and tar archives of folders: read where they lie, nothing is written to the disk.

What is refused: names that lead out of the archive, encrypted members, members that unpack to more
than any image needs. Links are not followed.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from memfit.data.samples.dataset import Dataset, Labels, MaskOf, Problem, Split
from memfit.data.samples.labels import class_labels, classes_of
from memfit.data.samples.packed import Blobs, Contents, PackedSplit, TarContents, ZipContents
from memfit.data.samples.paths import PathTable, is_image_name
from memfit.data.sets.folders import open_folder
from memfit.data.sets.trees import Entry, Tree
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task
from memfit.units import format_bytes

__all__ = ["ARCHIVE_ENDINGS", "ArchiveTree", "archive_tree", "open_archive"]

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

#: Of one member, unpacked: an image of 89 million pixels has 268 million bytes.
_LARGEST_BYTES = 1 << 29
#: A member that grows more than this, to more than that, is a bomb.
_MOST_GROWTH, _GROWN_BYTES = 200, 1 << 26
#: Share of the free memory that a compressed tar may take.
_SHARE = 0.4
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError,
            NotImplementedError, RuntimeError)  # fmt: skip


class _Place(NamedTuple):
    """Where a member is: by its name in a zip, by bytes in a tar, by number in memory."""

    name: str
    start: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Member:
    """Something in a folder of the archive."""

    name: bytes
    place: _Place | None

    def is_dir(self) -> bool:
        return self.place is None

    def is_file(self) -> bool:
        return self.place is not None


class ArchiveTree(Tree):
    """The folders and files of an archive.

    Args:
        path: of the archive.
        blobs: contents of its members, where these are in memory.
        is_tar: whether members are places in the file.

    Attributes:
        problems: what was left out.
        endings: of the files.
    """

    is_archive = True

    def __init__(self, path: Path, blobs: Blobs | None = None, *, is_tar: bool = False) -> None:
        self.path, self._blobs, self._is_tar = path, blobs, is_tar
        self.where = printable(str(path))
        self.problems: list[Problem] = []
        self.endings: set[str] = set()
        self._folders: dict[bytes, dict[bytes, _Member]] = {b"": {}}
        self._prefix = b""

    def add(self, name: str, place: _Place) -> None:
        """Add a file, and the folders that it is in.

        Raises:
            DataError: its name leads out of the archive.
        """
        parts = name.replace("\\", "/").removeprefix("./").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise DataError(f"{self.where}: the name {printable(name)} leads out of the archive.")
        raw = [os.fsencode(part) for part in parts if part not in ("", ".")]
        if not raw:
            return
        for depth in range(1, len(raw)):
            folder, child = b"/".join(raw[: depth - 1]), raw[depth - 1]
            self._folders.setdefault(folder, {}).setdefault(child, _Member(child, None))
            self._folders.setdefault(b"/".join(raw[:depth]), {})
        self._folders[b"/".join(raw[:-1])][raw[-1]] = _Member(raw[-1], place)
        self.endings.add(os.path.splitext(name)[1].lower())  # noqa: PTH122

    def entries(self, folder: bytes) -> AbstractContextManager[Iterable[Entry]]:
        """Its files and folders."""
        return nullcontext(list(self._folder(folder).values()))

    def identity(self, folder: bytes) -> bytes:
        """Its path."""
        return self._full(folder)

    def below(self, folder: bytes) -> ArchiveTree:
        """One of its folders."""
        made = ArchiveTree(self.path, self._blobs, is_tar=self._is_tar)
        made._folders, made.problems = self._folders, self.problems
        made._prefix = self._full(folder)
        return made

    def split(
        self,
        name: str,
        paths: PathTable,
        labels: Labels | None = None,
        *,
        masks: MaskOf | None = None,
    ) -> PackedSplit:
        """Files of it."""
        return PackedSplit(name, paths, self._contents(paths), labels, masks=masks)

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return self._contents(PathTable([path]))[0]

    def _contents(self, paths: PathTable) -> Contents:
        places = [self._place(path) for path in paths]
        if self._blobs is not None:
            return _Chosen(self._blobs, array("q", (place.start for place in places)))
        if self._is_tar:
            starts = array("q", (place.start for place in places))
            return TarContents(self.path, starts, array("q", (place.size for place in places)))
        return ZipContents(self.path, PathTable(place.name for place in places))

    def _place(self, path: str) -> _Place:
        folder, _, name = os.fsencode(path).rpartition(b"/")
        place = self._folder(folder)[name].place
        assert place is not None, path
        return place

    def _full(self, folder: bytes) -> bytes:
        return b"/".join(part for part in (self._prefix, folder) if part)

    def _folder(self, folder: bytes) -> dict[bytes, _Member]:
        try:
            return self._folders[self._full(folder)]
        except KeyError:
            raise OSError(errno.ENOENT, "no such folder in the archive") from None


class _Chosen:
    """Some of many contents in memory."""

    def __init__(self, blobs: Blobs, numbers: array[int]) -> None:
        self._blobs, self._numbers = blobs, numbers

    def __getitem__(self, index: int) -> bytes:
        return self._blobs[self._numbers[index]]


def open_archive(path: Path, name: str, task: Task | None = None) -> Dataset:
    """A folder inside an archive, as :func:`~memfit.data.sets.folders.open_folder` has it.

    A tar of images with a ``.cls`` beside each, as webdataset writes it, has their classes.

    Args:
        path: of the archive.
        name: of the set.
        task: what its folders ask for, where they could be taken for something else.

    Raises:
        DataError: it is damaged, holds no images, or holds what is refused.
    """
    tree = archive_tree(path)
    opened = open_folder(tree, name, task)
    if opened.task is None and ".cls" in tree.endings:
        opened = _with_class_files(opened, tree)
    kind = "zip" if path.suffix.lower() == ".zip" else "tar"
    problems = (*opened.problems, *tree.problems)
    return replace(
        opened, layout=f"{opened.layout} in a {kind}", problems=problems,
        bytes_on_disk=path.stat().st_size,
    )  # fmt: skip


def _with_class_files(opened: Dataset, tree: ArchiveTree) -> Dataset:
    """Class numbers from ``000001.cls`` beside ``000001.jpg``."""
    splits: dict[str, Split] = {}
    for name, split in opened.splits.items():
        assert isinstance(split, PackedSplit)
        labels = np.empty(len(split), np.int64)
        for index, path in enumerate(split.paths):
            beside = f"{os.path.splitext(path)[0]}.cls"  # noqa: PTH122
            try:
                labels[index] = int(tree.read(beside))
            except (OSError, KeyError, ValueError):
                raise DataError(
                    f"{tree.where}: {printable(beside)} is missing, or holds no class number."
                ) from None
        splits[name] = PackedSplit(
            name, split.paths, split.contents, class_labels(labels, f"{tree.where}: .cls")
        )
    problems = tuple(problem for problem in opened.problems if problem.name != "*.cls")
    classes = classes_of(splits.values(), None, tree.where)
    return replace(opened, splits=splits, classes=classes, problems=problems)


def archive_tree(path: Path) -> ArchiveTree:
    """List an archive; what a compressed tar holds is read into memory.

    Args:
        path: with one of :data:`ARCHIVE_ENDINGS`.

    Raises:
        DataError: it is damaged, or holds what is refused.
    """
    where = printable(str(path))
    try:
        if zipfile.is_zipfile(path):
            return _zip(path, where)
        with tarfile.open(path) as archive:
            is_plain = isinstance(archive.fileobj, io.BufferedReader)  # else it unpacks
            return _tar(archive, path, where, in_place=is_plain)
    except _DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: the archive is damaged ({text}).") from None


def _zip(path: Path, where: str) -> ArchiveTree:
    tree = ArchiveTree(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise DataError(f"{where}: {printable(info.filename)} is encrypted.")
            if is_image_name(info.filename):
                _check_size(info.file_size, info.compress_size, info.filename, where)
            tree.add(info.filename, _Place(info.filename))
    return tree


def _tar(archive: tarfile.TarFile, path: Path, where: str, *, in_place: bool) -> ArchiveTree:
    blobs = None if in_place else Blobs()
    tree = ArchiveTree(path, blobs, is_tar=in_place)
    free, packed = psutil.virtual_memory().available, path.stat().st_size
    for member in archive:
        if member.isdir():
            continue
        if not member.isfile():
            reason = "a link, or no regular file: not read"
            tree.problems.append(Problem(printable(member.name), reason))
            continue
        if blobs is None:
            tree.add(member.name, _Place(member.name, member.offset_data, member.size))
            continue
        _check_size(blobs.total_bytes + member.size, packed, member.name, where, free * _SHARE)
        stream = archive.extractfile(member)
        tree.add(member.name, _Place(member.name, len(blobs)))
        blobs.append(stream.read() if stream is not None else b"")
    return tree


def _check_size(
    unpacked: int, packed: int, name: str, where: str, most: float = _LARGEST_BYTES
) -> None:
    if unpacked > most:
        raise DataError(
            f"{where}: with {printable(name)} it unpacks to {format_bytes(unpacked)}, more than "
            f"the {format_bytes(int(most))} that are read from an archive.",
            hint="Unpack it, and name the folder.",
        )
    if unpacked > _GROWN_BYTES and unpacked > _MOST_GROWTH * max(1, packed):
        raise DataError(
            f"{where}: {printable(name)} unpacks to {unpacked / max(1, packed):,.0f} times its "
            "size: a bomb, or no images."
        )
