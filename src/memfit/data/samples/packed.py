"""Images that are files inside another file: a zip, a tar, a table; read without unpacking."""

from __future__ import annotations

import os
import zipfile
import zlib
from array import array
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from memfit.data.images.decode import MAX_PIXELS, open_image
from memfit.data.samples.dataset import Labels, PathSplit
from memfit.data.samples.paths import PathTable
from memfit.errors import BadImage

__all__ = ["Blobs", "Contents", "PackedSplit", "TarContents", "ZipContents"]


class Contents(Protocol):
    """The files of a split: ``contents[i]`` is the content of one."""

    def __getitem__(self, index: int, /) -> bytes: ...


class PackedSplit(PathSplit):
    """Images that are files inside another file.

    Args:
        name: of the split.
        paths: what they are called there.
        contents: what they hold.
        labels: ``(N,)``; None when there are none.
        **more: of a :class:`~memfit.data.samples.dataset.PathSplit`.
    """

    def __init__(
        self, name: str, paths: PathTable, contents: Contents, labels: Labels | None, **more: Any
    ) -> None:
        super().__init__(name, paths, labels, **more)
        self.contents = contents

    def content(self, index: int) -> bytes:
        """The file.

        Raises:
            BadImage: the other file is damaged here.
        """
        try:
            return self.contents[index]
        except (OSError, EOFError, ValueError, RuntimeError, KeyError, zlib.error,
                zipfile.BadZipFile) as error:  # fmt: skip
            raise BadImage(self.sample_name(index), f"the archive is damaged ({error})") from None

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """The file, decoded."""
        content, name = self.content(index), self.sample_name(index)
        return open_image(content, name, max_pixels=max_pixels, frame=self.frame_of(index))


class Blobs:
    """Contents in memory, back to back: a worker process copies none of them."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q")

    def append(self, content: bytes) -> None:
        """Add one at the end."""
        self._bytes += content
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def total_bytes(self) -> int:
        """Of all of them."""
        return len(self._bytes)

    def __getitem__(self, index: int) -> bytes:
        start = self._ends[index - 1] if index else 0
        return bytes(self._bytes[start : self._ends[index]])


class _OfFile:
    """Opens a file once in each process: a position in it that processes share would be moved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __del__(self) -> None:
        if self._opened is not None:
            self._opened[1].close()

    def _file(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), self._open())
        return self._opened[1]

    def _open(self) -> Any:
        raise NotImplementedError


class ZipContents(_OfFile):
    """Members of a zip.

    Args:
        path: of the zip.
        names: of the members, as it has them.
    """

    def __init__(self, path: Path, names: PathTable) -> None:
        super().__init__(path)
        self.names = names

    def _open(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def __getitem__(self, index: int) -> bytes:
        content: bytes = self._file().read(self.names[index])
        return content


class TarContents(_OfFile):
    """Members of a tar that is not compressed.

    Args:
        path: of the tar.
        starts: of each member, in bytes from the start of the file.
        sizes: in bytes.
    """

    def __init__(self, path: Path, starts: array[int], sizes: array[int]) -> None:
        super().__init__(path)
        self.starts, self.sizes = starts, sizes

    def _open(self) -> Any:
        return self.path.open("rb", buffering=0)

    def __getitem__(self, index: int) -> bytes:
        return os.pread(self._file().fileno(), self.sizes[index], self.starts[index])
