"""Samples kept in the host's memory as bytes, so that they are decoded once."""

from __future__ import annotations

import os

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfit.data.loading.holding_out import stored
from memfit.data.loading.reading import Samples
from memfit.data.loading.targets import MASK_DTYPE
from memfit.data.samples.dataset import Split

__all__ = ["PixelMemory", "pixels_of_array"]

#: Share of the free memory that decoded images may take.
_SHARE = 0.4


class PixelMemory:
    """The pixels of a split, as they become known.

    Args:
        pixels: ``(N, C, H, W)`` uint8.
        known: ``(N,)`` bool, which samples are there.
        masks: ``(N, H, W)`` int16; None where samples have none.

    Attributes:
        is_complete: whether all are.
    """

    def __init__(
        self, pixels: Tensor, known: NDArray[np.bool_], masks: Tensor | None = None
    ) -> None:
        self._pixels = pixels
        self._masks = masks
        self._known = known
        self.is_complete = bool(known.all())

    @classmethod
    def of_array(cls, split: Split, channels: int) -> PixelMemory:
        """All of a split that is in memory already."""
        return cls(pixels_of_array(split, channels), np.ones(len(split), dtype=np.bool_))

    @classmethod
    def for_files(cls, split: Split, shape: tuple[int, int, int]) -> PixelMemory | None:
        """Room for a split of files; None when the machine has too little memory for it."""
        has_masks = split.masks is not None
        pixels_of_mask = shape[1] * shape[2] if has_masks else 0
        size_bytes = len(split) * (int(np.prod(shape)) + pixels_of_mask * MASK_DTYPE.itemsize)
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
        if size_bytes > _SHARE * psutil.virtual_memory().available / processes:
            return None
        pixels = torch.empty((len(split), *shape), dtype=torch.uint8)
        masks = torch.empty((len(split), *shape[1:]), dtype=MASK_DTYPE) if has_masks else None
        return cls(pixels, np.zeros(len(split), dtype=np.bool_), masks)

    def missing(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of some samples have to be read: a part of ``indices``."""
        return indices[:0] if self.is_complete else indices[~self._known[indices]]

    def keep(self, samples: Samples) -> None:
        """Remember what was read."""
        self._pixels[torch.from_numpy(samples.indices)] = samples.pixels
        if self._masks is not None and samples.masks is not None:
            self._masks[torch.from_numpy(samples.indices)] = samples.masks
        self._known[samples.indices] = True
        self.is_complete = bool(self._known.all())

    def gather(self, indices: NDArray[np.int64], *, pin_memory: bool) -> Tensor:
        """The pixels of samples that are there: ``(n, C, H, W)`` uint8."""
        return _gathered(self._pixels, indices, pin_memory)

    def gather_masks(self, indices: NDArray[np.int64], *, pin_memory: bool) -> Tensor:
        """The masks of samples that are there: ``(n, H, W)`` int16."""
        assert self._masks is not None, "the samples have masks"
        return _gathered(self._masks, indices, pin_memory)


def _gathered(rows: Tensor, indices: NDArray[np.int64], pin_memory: bool) -> Tensor:
    shape = (len(indices), *rows.shape[1:])
    out = torch.empty(shape, dtype=rows.dtype, pin_memory=pin_memory)
    return torch.index_select(rows, 0, torch.from_numpy(indices), out=out)


def pixels_of_array(split: Split, channels: int) -> Tensor:
    """All samples of an array as the loader delivers them: ``(N, C, H, W)`` uint8."""
    images = stored(split, slice(None))
    assert images is not None, "the split lives in memory"
    if images.dtype == np.uint8 and images.ndim == 3:
        grey = torch.from_numpy(np.require(images, requirements=["C", "W"]))[:, None]
        return grey if channels == 1 else grey.repeat(1, 3, 1, 1)
    if images.dtype == np.uint8 and images.shape[3] == channels == 3:
        return torch.from_numpy(np.require(images.transpose(0, 3, 1, 2), requirements=["C", "W"]))
    out = np.empty((len(split), channels, *images.shape[1:3]), dtype=np.uint8)
    for index in range(len(split)):
        out[index] = split.pixels(index, channels).transpose(2, 0, 1)
    return torch.from_numpy(out)
