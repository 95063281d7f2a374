"""Exact mean and standard deviation of pixels, from histograms of whole numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit.data.images.decode import Pixels

__all__ = ["Histogram", "PixelStatistics", "histogram_of", "pixel_statistics"]

Histogram = NDArray[np.int64]
"""``(C, 256)``: how often each value occurs in each channel."""

_VALUES = 256
#: Pixels counted at once: NumPy's ``bincount`` makes 8 bytes of each value.
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """What to normalise with: pixels scaled to 0..1, every pixel of every image weighted alike.

    Args:
        mean: of each channel.
        std: of each channel, of the whole population (divided by n).
        pixels: counted in each channel.
        lowest: value of any channel, 0 to 255.
        highest: value of any channel, 0 to 255.
        histograms: ``C`` tuples of 256 counts.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    lowest: int
    highest: int
    histograms: tuple[tuple[int, ...], ...]

    @property
    def normalised_range(self) -> tuple[float, float] | None:
        """Least and greatest value after scaling and normalising; None if a channel is constant."""
        if not all(self.std):
            return None
        ends = []
        for mean, std, histogram in zip(self.mean, self.std, self.histograms, strict=True):
            occurring = np.flatnonzero(histogram)
            ends += [(int(value) / 255 - mean) / std for value in (occurring[0], occurring[-1])]
        return min(ends), max(ends)


def histogram_of(pixels: Pixels) -> Histogram:
    """How often each value occurs in each channel.

    Args:
        pixels: ``(..., C)`` uint8; leading dimensions are counted together.

    Returns:
        ``(C, 256)`` int64.

    >>> histogram_of(np.array([[[0], [0], [255]]], dtype=np.uint8))[0, [0, 255]].tolist()
    [2, 1]
    """
    channels = pixels.shape[-1]
    offsets = (np.arange(channels) * _VALUES).astype(np.uint16)
    rows = pixels.reshape(-1, channels)
    counts = np.zeros(channels * _VALUES, dtype=np.int64)
    for start in range(0, len(rows), _BLOCK):
        shifted = (rows[start : start + _BLOCK] + offsets).ravel()
        counts += np.bincount(shifted, minlength=len(counts))
    return counts.reshape(channels, _VALUES)


def pixel_statistics(histogram: Histogram) -> PixelStatistics | None:
    """Mean and standard deviation without rounding on the way: sums are Python's integers.

    Args:
        histogram: ``(C, 256)`` of all pixels.

    Returns:
        None when there are no pixels.

    >>> half = np.zeros((1, 256), dtype=np.int64)
    >>> half[0, [0, 255]] = 8
    >>> pixel_statistics(half).mean, pixel_statistics(half).std
    ((0.5,), (0.5,))
    """
    counts = [tuple(channel) for channel in histogram.tolist()]
    pixels = sum(counts[0])
    if not pixels:
        return None
    means, deviations = [], []
    for channel in counts:
        total = sum(value * count for value, count in enumerate(channel))
        squares = sum(value * value * count for value, count in enumerate(channel))
        means.append(total / (255 * pixels))
        deviations.append(math.sqrt(pixels * squares - total * total) / (255 * pixels))
    occurring = np.flatnonzero(histogram.sum(axis=0))
    return PixelStatistics(
        tuple(means), tuple(deviations), pixels, int(occurring[0]), int(occurring[-1]),
        tuple(counts),
    )  # fmt: skip
