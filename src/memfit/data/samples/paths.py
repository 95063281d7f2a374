"""Millions of paths in little memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator

__all__ = ["IMAGE_EXTENSIONS", "PathTable", "is_image_name"]

#: Raster formats that Pillow decodes (``Image.registered_extensions()`` has more: vector,
#: video and icon containers that nobody trains on).
IMAGE_EXTENSIONS = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".ico", ".j2c", ".j2k", ".jfif", ".jp2",
    ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm",
    ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS  # noqa: PTH122


class PathTable:
    """Paths as the file system spells them, kept back to back: their bytes and 8 more for each.

    A list of a million ``str`` takes ten times as much, and every worker process would copy it
    as soon as it counts references. Names that are not UTF-8 survive.

    >>> table = PathTable(["cat/1.jpg", "dog/2.jpg"])
    >>> len(table), table[1]
    (2, 'dog/2.jpg')
    """

    __slots__ = ("_ends", "_text")

    def __init__(self, paths: Iterable[str | bytes] = ()) -> None:
        self._text = bytearray()
        self._ends = array("q")
        for path in paths:
            self.append(path)

    @property
    def text(self) -> bytes:
        """All paths, back to back."""
        return bytes(self._text)

    def append(self, path: str | bytes) -> None:
        """Add one at the end."""
        self._text += os.fsencode(path)
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        """The path as Python's file functions take it."""
        if not 0 <= index < len(self._ends):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(bytes(self._text[start : self._ends[index]]))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
