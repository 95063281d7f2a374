"""What every source of images becomes: splits of samples, and what there is to say of each.

What is asked of a sample is the task of its set: its class, the class of each pixel (a mask),
numbers (values), or which of several labels it has. Only classes are :attr:`Split.labels`, so that
nothing else can be taken for classes.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import (
    MAX_PIXELS,
    Pixels,
    Window,
    open_image,
    pixels_of,
    read_file,
)
from memfit.data.samples.paths import PathTable
from memfit.errors import BadImage, UnknownName
from memfit.files.names import printable
from memfit.recipe.fields import Task

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Dataset", "FileSplit", "Labels", "MaskOf", "PathSplit", "Problem", "Split", "Target",
    "Targets",
]  # fmt: skip

Labels = NDArray[np.int64]
Targets = NDArray[np.float32]
Target = int | NDArray[np.float32] | NDArray[np.int64]
"""Of one sample: a class number, ``()`` or ``(K,)`` float32, or a mask ``(H, W)`` int64."""


class MaskOf(Protocol):
    """The mask of a sample: ``masks[i]`` is ``(H, W)`` int64, a class for each pixel."""

    def __getitem__(self, index: int, /) -> NDArray[np.int64]: ...


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

    ``split[i]`` is ``(image, target)``: a uint8 tensor ``(C, H, W)`` as
    :mod:`memfit.data.images.decode` describes, and the class as an int (-1 without any), or a
    tensor of what :meth:`target` gives.

    Args:
        name: ``"train"``, ``"test"``, ``"val"``, or ``"all"`` where a source has no splits.
        labels: ``(N,)`` int64, a class each; None when the source has none.
        targets: ``(N,)`` or ``(N, K)`` float32: values, or 0 and 1 for each of K labels.
        masks: a class for each pixel.

    Attributes:
        window: values of 16 and 32-bit and float images that become 0 and 255; None for all.
        frame: of images with several; the first when None.
        frames: ``(N,)`` the frame of each sample, where a source names it.
        is_random: whether a sample may be another one every time it is read.
        is_float: whether samples are floating point, which is delivered as it is.
    """

    is_random = False
    is_float = False

    def __init__(
        self,
        name: str,
        labels: Labels | None,
        *,
        targets: Targets | None = None,
        masks: MaskOf | None = None,
    ) -> None:
        self.name = name
        self.labels = labels
        self.targets = targets
        self.masks = masks
        self.window: Window | None = None
        self.frame: int | None = None
        self.frames: NDArray[np.int64] | None = None

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
        return pixels_of(self.image(index), channels, self.sample_name(index), self.window)

    def frame_of(self, index: int) -> int | None:
        """The frame of a sample; None for the first."""
        return self.frame if self.frames is None else int(self.frames[index])

    def content(self, index: int) -> bytes | None:  # noqa: ARG002
        """The file that a sample is; None where it is none.

        Raises:
            BadImage: it cannot be read.
        """
        return None

    @property
    def is_labelled(self) -> bool:
        """Whether it is known what there is to say of its samples."""
        return any(known is not None for known in (self.labels, self.targets, self.masks))

    def label(self, index: int) -> int:
        """The class of a sample, -1 without labels."""
        return -1 if self.labels is None else int(self.labels[index])

    def target(self, index: int) -> Target:
        """What is asked of a sample: its class (-1 without any), values, labels or mask.

        Raises:
            BadImage: its mask cannot be read.
        """
        if self.targets is not None:
            return np.asarray(self.targets[index])
        return self.label(index) if self.masks is None else self.masks[index]

    def sample(self, index: int, channels: int | None = None) -> tuple[Pixels, Target]:
        """Pixels and target at once, see :meth:`pixels` and :meth:`target`.

        Raises:
            BadImage: the sample cannot be read, or its mask has another size.
        """
        pixels, target = self.pixels(index, channels), self.target(index)
        if self.masks is not None and np.shape(target) != pixels.shape[:2]:
            raise BadImage(
                self.sample_name(index),
                "the image is {1} x {0} pixels, its mask {3} x {2}".format(
                    *pixels.shape[:2], *np.shape(target)
                ),
            )
        return pixels, target

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        import torch

        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self):,} samples, no number {index}")
        index %= len(self)
        # A copy: what Pillow gives is read-only, which PyTorch warns about.
        pixels, target = self.sample(index)
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
        return image, target if isinstance(target, int) else torch.from_numpy(target)

    def __iter__(self) -> Iterator[tuple[Tensor, int | Tensor]]:
        return (self[index] for index in range(len(self)))


class PathSplit(Split):
    """Images that have paths, wherever they lead.

    Args:
        name: of the split.
        paths: of the images.
        labels: ``(N,)``; None when there are none.
        targets: ``(N,)`` or ``(N, K)`` float32; None when there are none.
        masks: a class for each pixel; None when there are none.
    """

    def __init__(
        self,
        name: str,
        paths: PathTable,
        labels: Labels | None,
        *,
        targets: Targets | None = None,
        masks: MaskOf | None = None,
    ) -> None:
        super().__init__(name, labels, targets=targets, masks=masks)
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def sample_name(self, index: int) -> str:
        """The path, as given in the source."""
        return printable(self.paths[index])


class FileSplit(PathSplit):
    """Images that are files.

    Args:
        name: of the split.
        root: what the paths are relative to.
        paths: of the images.
        labels: ``(N,)``; None when there are none.
        **more: of a :class:`PathSplit`.
    """

    def __init__(
        self, name: str, root: Path, paths: PathTable, labels: Labels | None, **more: Any
    ) -> None:
        super().__init__(name, paths, labels, **more)
        self.root = root
        self._prefix = os.fspath(root)

    def path(self, index: int) -> Path:
        """Where the file is."""
        return Path(self.filename(index))

    def filename(self, index: int) -> str:
        """Where the file is, as text: a tenth of the time of a ``Path``."""
        return os.path.join(self._prefix, self.paths[index])  # noqa: PTH118

    def content(self, index: int) -> bytes:
        """The file."""
        try:
            return read_file(self.filename(index))
        except OSError as error:
            reason = error.strerror or "cannot be read"
            raise BadImage(self.sample_name(index), reason) from None

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """The file, decoded."""
        frame, name = self.frame_of(index), self.sample_name(index)
        return open_image(self.filename(index), name, max_pixels=max_pixels, frame=frame)


@dataclass(frozen=True)
class Dataset:
    """A source of images, opened: what is where, without having decoded any.

    Args:
        name: as asked: ``"mnist"``, or the path.
        layout: what was found, in words: ``"class folders"``, ``"IDX files"``.
        splits: by name; in the order train, val, test, others.
        classes: names by class number; of the values in masks, or of the labels where a sample has
            several; empty without any.
        value_names: what the values are, where there are values to predict.
        task_reason: why the task is what it is, where that was decided by looking.
        problems: what is wrong with the source as a whole, such as a folder without images.
        hidden: folders with images that memfit leaves out and other loaders take for classes.
        bytes_on_disk: of the files that hold the data, 0 for generated data.
    """

    name: str
    layout: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    problems: Sequence[Problem] = field(default_factory=tuple)
    bytes_on_disk: int | None = None
    value_names: tuple[str, ...] = ()
    task_reason: str = ""
    hidden: tuple[str, ...] = ()

    def __getitem__(self, split: str) -> Split:
        """A split by name.

        Raises:
            UnknownName: there is none of that name.
        """
        if split not in self.splits:
            raise UnknownName(f"split of {self.name}:", split, self.splits)
        return self.splits[split]

    @property
    def task(self) -> Task | None:
        """What is asked of a sample; None where no split says anything."""
        splits = self.splits.values()
        if any(split.masks is not None for split in splits):
            return "masks"
        if any(split.targets is not None for split in splits):
            return "values" if self.value_names else "labels"
        return "classes" if any(split.labels is not None for split in splits) else None

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

    def seen_through(self, window: Window | None, frame: int | None) -> Dataset:
        """The same set with a window and a frame for its images, where there is any."""
        if window is None and frame is None:
            return self
        splits = {name: copy(split) for name, split in self.splits.items()}
        for split in splits.values():
            split.window, split.frame = window, frame
        return replace(self, splits=splits)

    @property
    def train(self) -> Split:
        """The split to train on: ``train``, else the only one."""
        return self.splits.get("train") or next(iter(self.splits.values()))

    def answered(self, name: str) -> Split | None:
        """``val`` or ``test``, to evaluate on; None where it has no samples with answers."""
        split = self.splits.get(name)
        is_one = split is not None and split is not self.train and len(split) > 0
        return split if is_one and split is not None and split.is_labelled else None
