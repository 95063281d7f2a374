"""What the loader has to know before it starts: channels, size, mean and deviation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit.data.images.decode import is_grey, pixels_of, reading_images
from memfit.data.loading.holding_out import stored
from memfit.data.samples.dataset import Split
from memfit.errors import BadImage, DataError

__all__ = ["Survey", "survey"]

#: Files that are looked at; what ``memfit data`` says comes from all of them.
_FILES = 2048


@dataclass(frozen=True, slots=True)
class Survey:
    """A look at a split.

    Args:
        channels: 1 if every image is grey, else 3.
        size: height and width, if all are the same.
        mean: of each channel, 0 to 1.
        std: of each channel, 0 to 1.
        count: images looked at.
        total: images in the split.
    """

    channels: int
    size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int
    total: int

    @property
    def is_complete(self) -> bool:
        """Whether every image was looked at."""
        return self.count == self.total


def survey(split: Split, channels: int | None = None) -> Survey:
    """Look at all images of an array, or at 2,048 files spread evenly over a split of files.

    Args:
        split: what to look at.
        channels: 1 to see the images as grey, 3 as RGB; as they are when omitted.

    Raises:
        DataError: none of them can be read.
    """
    images = stored(split, slice(0, 0))
    if images is not None and images.dtype == np.uint8:
        found = images.shape[3] if images.ndim == 4 else 1
        if found == (channels or found) and found in (1, 3):
            return _of_array(split, found)
    picked = np.unique(np.linspace(0, len(split) - 1, min(len(split), _FILES)).round().astype(int))
    return _of_samples(split, picked, channels)


def _of_array(split: Split, channels: int) -> Survey:
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(split), 1024):
        images = stored(split, slice(start, start + 1024))
        assert images is not None, "the split lives in memory"
        height, width = images.shape[1:3]
        _count(images.reshape(-1, height, width, channels), counts)
    mean, std = _moments(counts)
    return Survey(channels, (height, width), mean, std, len(split), len(split))


def _of_samples(split: Split, picked: NDArray[np.int64], channels: int | None) -> Survey:
    counts = {channel: np.zeros((channel, 256), dtype=np.int64) for channel in (1, 3)}
    sizes: set[tuple[int, int]] = set()
    colours, read, first = 0, 0, None
    with reading_images():
        for index in picked.tolist():
            try:
                image = split.image(index)
                colours += not is_grey(image)
                name = split.sample_name(index)
                views = {c: pixels_of(image, c, name, split.window) for c in counts}
            except BadImage as error:
                first = first or f"{error.name}: {error.reason}"
                continue  # the loader meets it again, and says so
            read += 1
            sizes.add(views[1].shape[:2])
            for channel, pixels in views.items():
                _count(pixels[None], counts[channel])
    if not read:
        raise DataError(
            f"None of {len(picked):,} images of {split.name} can be read; the first is {first}.",
            hint="memfit data lists them with the reasons.",
        )
    channels = channels or (3 if colours else 1)
    mean, std = _moments(counts[channels])
    size = sizes.pop() if len(sizes) == 1 else None
    return Survey(channels, size, mean, std, read, len(split))


def _count(images: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
    """Add the values of ``(N, H, W, C)`` to a histogram ``(C, 256)``."""
    for channel in range(len(counts)):
        counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)


def _moments(counts: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values = np.arange(256, dtype=np.int64)
    number, total, squares = counts.sum(1), counts @ values, counts @ values**2
    mean = total / number
    variance = np.maximum(squares / number - mean**2, 0.0)
    # a channel without any variation is centred and left as it is
    std = np.where(variance > 0, np.sqrt(variance), 255.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
