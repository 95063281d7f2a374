"""What every source of images becomes: splits of samples with labels."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import MAX_PIXELS, Pixels, check_floats, open_image, pixels_of
from memfit.data.samples.paths import PathTable
from memfit.errors import DataError, UnknownName
from memfit.files.names import printable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ArraySplit", "Dataset", "FileSplit", "Problem", "Split"]

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a source that is wrong, though the rest of it can be used.

    Args:
        name: the file or folder, printable.
        reason: in a few words.
    """

    name: str
    reason: str


class Split(ABC):
    """Samples of one purpose (``train``, ``test``): a map-style dataset for PyTorch.

    ``split[i]`` is ``(image, label)``: a uint8 tensor ``(C, H, W)`` as
    :mod:`memfit.data.images.decode` describes, and the class as an int (-1 without labels).

    Args:
        name: ``"train"``, ``"test"``, ``"val"``, or ``"all"`` where a source has no splits.
        labels: ``(N,)`` int64, a class each; None when the source has none.
    """

    def __init__(self, name: str, labels: Labels | None) -> None:
        self.name = name
        self.labels = labels

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_name(self, index: int) -> str:
        """Where a sample comes from, printable."""

    @abstractmethod
    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """A sample as stored: its own mode, size and values.

        Raises:
            BadImage: it cannot be read.
        """

    def pixels(self, index: int, channels: int | None = None) -> Pixels:
        """A sample as the loader delivers it, before any resizing: ``(H, W, C)`` uint8.

        Args:
            index: of the sample.
            channels: 1 for grey, 3 for RGB; what the image is when omitted.

        Raises:
            BadImage: it cannot be read.
        """
        return pixels_of(self.image(index), channels, self.sample_name(index))

    def label(self, index: int) -> int:
        """The class of a sample, -1 without labels."""
        return -1 if self.labels is None else int(self.labels[index])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import torch

        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self):,} samples, no number {index}")
        index %= len(self)
        # A copy: what Pillow gives is read-only, which PyTorch warns about.
        pixels = np.array(self.pixels(index).transpose(2, 0, 1), order="C")
        return torch.from_numpy(pixels), self.label(index)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return (self[index] for index in range(len(self)))


class ArraySplit(Split):
    """Images that live in memory as one array.

    Args:
        name: of the split.
        images: ``(N, H, W)`` grey or ``(N, H, W, C)`` with 1 to 4 channels; uint8, uint16, or
            float between 0 and 1.
        labels: ``(N,)``; None when there are none.
        source: the file, for messages.

    Raises:
        DataError: shapes or types are impossible, or the counts differ.
    """

    def __init__(
        self, name: str, images: NDArray[Any], labels: NDArray[Any] | None, source: str = ""
    ) -> None:
        where = f"{source}: " if source else ""
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (2, 3, 4)):
            raise DataError(
                f"{where}images of {name} have shape {images.shape}; "
                "(N, H, W) or (N, H, W, channels) is needed."
            )
        if images.dtype not in (np.uint8, np.uint16) and images.dtype.kind != "f":
            raise DataError(
                f"{where}images of {name} are {images.dtype}, not uint8, uint16, float."
            )
        if labels is not None:
            labels = labels.reshape(-1) if labels.size == len(labels) else labels
            if labels.shape != (len(images),):
                raise DataError(
                    f"{where}{name} has {len(images):,} images and labels of shape {labels.shape}."
                )
        super().__init__(name, None if labels is None else labels.astype(np.int64))
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def sample_name(self, index: int) -> str:
        """As one would index it: ``train[17]``."""
        return f"{self.name}[{index}]"

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:  # noqa: ARG002
        """A sample as a Pillow image."""
        pixels = self.images[index]
        if pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32)
            if pixels.ndim == 3:  # Pillow has no float colour
                check_floats(pixels, self.sample_name(index))
                pixels = np.round(pixels * 255).astype(np.uint8)
        elif pixels.dtype == np.uint16 and pixels.ndim == 3:  # nor 16-bit colour
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return Image.fromarray(pixels)


class FileSplit(Split):
    """Images that are files.

    Args:
        name: of the split.
        root: what the paths are relative to.
        paths: of the images.
        labels: ``(N,)``; None when there are none.
    """

    def __init__(self, name: str, root: Path, paths: PathTable, labels: Labels | None) -> None:
        super().__init__(name, labels)
        self.root = root
        self.paths = paths
        self._prefix = os.fspath(root)

    def __len__(self) -> int:
        return len(self.paths)

    def sample_name(self, index: int) -> str:
        """The path, as given in the source."""
        return printable(self.paths[index])

    def path(self, index: int) -> Path:
        """Where the file is."""
        return Path(self.filename(index))

    def filename(self, index: int) -> str:
        """Where the file is, as text: a tenth of the time of a ``Path``."""
        return os.path.join(self._prefix, self.paths[index])  # noqa: PTH118

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """The file, decoded."""
        return open_image(self.filename(index), self.sample_name(index), max_pixels=max_pixels)


@dataclass(frozen=True)
class Dataset:
    """A source of images, opened: what is where, without having decoded any.

    Args:
        name: as asked: ``"mnist"``, or the path.
        layout: what was found, in words: ``"class folders"``, ``"IDX files"``.
        splits: by name; in the order train, val, test, others.
        classes: names, by class number; empty without labels.
        problems: what is wrong with the source as a whole, such as a folder without images.
        bytes_on_disk: of the files that hold the data, 0 for generated data.
    """

    name: str
    layout: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    problems: Sequence[Problem] = field(default_factory=tuple)
    bytes_on_disk: int | None = None

    def __getitem__(self, split: str) -> Split:
        """A split by name.

        Raises:
            UnknownName: there is none of that name.
        """
        if split not in self.splits:
            raise UnknownName(f"split of {self.name}:", split, self.splits)
        return self.splits[split]

    def __len__(self) -> int:
        """Samples in all splits."""
        return sum(len(split) for split in self.splits.values())

    def holds(self, path: Path) -> bool:
        """Whether a file is one of the images."""
        wanted = os.path.realpath(path)
        return any(
            os.path.realpath(split.filename(index)) == wanted
            for split in self.splits.values()
            if isinstance(split, FileSplit)
            for index in range(len(split))
        )

    @property
    def train(self) -> Split:
        """The split to train on: ``train``, else the only one."""
        return self.splits.get("train") or next(iter(self.splits.values()))

    @property
    def test(self) -> Split | None:
        """The split to evaluate on: ``test``, else ``val``; None where there is neither."""
        return self.splits.get("test") or self.splits.get("val")
