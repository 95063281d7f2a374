"""Samples on their way to the model, as bytes on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memfit.data.loading.mixing import Mixing

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Samples on the host, as bytes; :meth:`Loader.prepare` makes the model's input of them.

    Args:
        pixels: ``(N, C, H, W)`` uint8; float if a transform of the user's made it so.
        labels: ``(N,)`` int64; or what else is asked: ``(N, K)`` float32, ``(N, H, W)`` int16.
        indices: ``(N,)`` int64, sample numbers in the split.
        epoch: from 0.
        position: where in the order of the epoch its global batch starts.
        neighbours: what each sample is mixed with; None without mixing.
        mixing: how; None without mixing.
    """

    pixels: Tensor
    labels: Tensor
    indices: NDArray[np.int64]
    epoch: int
    position: int
    neighbours: Batch | None = None
    mixing: Mixing | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> Batch:
        """Some of the samples; a view of the same memory."""
        return replace(
            self,
            pixels=self.pixels[part],
            labels=self.labels[part],
            indices=self.indices[part],
            neighbours=None if self.neighbours is None else self.neighbours[part],
        )

    def split(self, micro_batch: int) -> Iterator[Batch]:
        """Micro-batches of at most this many samples; views of the same memory."""
        return (self[start : start + micro_batch] for start in range(0, len(self), micro_batch))
