"""Folders and the files in them, on the disk or inside an archive: listed, and made into splits."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from memfit.data.samples.dataset import FileSplit, Labels, MaskOf, Split
from memfit.data.samples.paths import PathTable
from memfit.files.names import printable

__all__ = ["DiskTree", "Entry", "Tree"]


class Entry(Protocol):
    """Something in a folder; ``os.DirEntry`` is one."""

    @property
    def name(self) -> bytes:
        """As the file system has it."""

    def is_dir(self) -> bool:
        """Whether it is a folder, or a link to one."""

    def is_file(self) -> bool:
        """Whether it is a regular file, or a link to one."""


class Tree(ABC):
    """A folder with all that is in it; names are bytes, paths relative to it, with ``/`` between.

    Attributes:
        where: what it is called, printable.
        is_archive: whether it is inside of a file.
    """

    where: str
    is_archive = False

    @abstractmethod
    def entries(self, folder: bytes) -> AbstractContextManager[Iterable[Entry]]:
        """What is in a folder.

        Raises:
            OSError: it cannot be read.
        """

    @abstractmethod
    def identity(self, folder: bytes) -> Hashable:
        """The same for every path that leads to the same folder.

        Raises:
            OSError: it cannot be read.
        """

    @abstractmethod
    def below(self, folder: bytes) -> Tree:
        """One of its folders."""

    @abstractmethod
    def split(
        self,
        name: str,
        paths: PathTable,
        labels: Labels | None = None,
        *,
        masks: MaskOf | None = None,
    ) -> Split:
        """Some of its files as a split."""


class DiskTree(Tree):
    """A folder on the disk.

    Args:
        root: of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = printable(str(root))

    def entries(self, folder: bytes) -> AbstractContextManager[Iterable[Entry]]:
        """As ``os.scandir`` has them."""
        return os.scandir(os.path.join(os.fsencode(self.root), folder))  # noqa: PTH118 (bytes)

    def identity(self, folder: bytes) -> tuple[int, int]:
        """Device and inode."""
        status = os.stat(os.path.join(os.fsencode(self.root), folder))  # noqa: PTH116, PTH118
        return status.st_dev, status.st_ino

    def below(self, folder: bytes) -> DiskTree:
        """One of its folders."""
        return DiskTree(self.root / os.fsdecode(folder))

    def split(
        self,
        name: str,
        paths: PathTable,
        labels: Labels | None = None,
        *,
        masks: MaskOf | None = None,
    ) -> FileSplit:
        """Files of it."""
        return FileSplit(name, self.root, paths, labels, masks=masks)
