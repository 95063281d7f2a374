"""A share of the training samples, held out to validate on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import MAX_PIXELS, Pixels
from memfit.data.loading.randomness import Purpose, uniform
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, MaskOf, Split, Target

__all__ = ["PartSplit", "hold_out", "stored"]

#: Not the recipe's seed: runs are compared on the same samples, and none learns from them.
_SEED = 0


class PartSplit(Split):
    """Some samples of a split.

    Args:
        name: of the part.
        whole: what it is a part of.
        numbers: ``(N,)`` int64, which samples, each once.
    """

    def __init__(self, name: str, whole: Split, numbers: NDArray[np.int64]) -> None:
        super().__init__(
            name,
            None if whole.labels is None else whole.labels[numbers],
            targets=None if whole.targets is None else whole.targets[numbers],
            masks=None if whole.masks is None else _PartMasks(whole.masks, numbers),
        )
        self.whole, self.numbers = whole, numbers
        self.window, self.frame = whole.window, whole.frame
        self.is_random, self.is_float = whole.is_random, whole.is_float

    def __len__(self) -> int:
        return len(self.numbers)

    def sample_name(self, index: int) -> str:
        """As in the whole."""
        return self.whole.sample_name(int(self.numbers[index]))

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """As in the whole."""
        return self.whole.image(int(self.numbers[index]), max_pixels=max_pixels)

    def pixels(self, index: int, channels: int | None = None) -> Pixels:
        """As in the whole."""
        return self.whole.pixels(int(self.numbers[index]), channels)

    def content(self, index: int) -> bytes | None:
        """As in the whole."""
        return self.whole.content(int(self.numbers[index]))

    def target(self, index: int) -> Target:
        """As in the whole."""
        return self.whole.target(int(self.numbers[index]))

    def sample(self, index: int, channels: int | None = None) -> tuple[Pixels, Target]:
        """As in the whole."""
        return self.whole.sample(int(self.numbers[index]), channels)


class _PartMasks:
    """Some of the masks, read as they are wanted."""

    def __init__(self, whole: MaskOf, numbers: NDArray[np.int64]) -> None:
        self.whole, self.numbers = whole, numbers

    def __getitem__(self, index: int, /) -> NDArray[np.int64]:
        return self.whole[int(self.numbers[index])]


def stored(split: Split, which: slice | NDArray[np.int64]) -> NDArray[Any] | None:
    """Images of a split that lives in memory as one array; None of every other.

    Args:
        split: whole or a part.
        which: a slice gives a view where the split is whole.

    Returns:
        ``(n, H, W)`` or ``(n, H, W, C)``.
    """
    if isinstance(split, PartSplit):
        return stored(split.whole, split.numbers[which])
    return split.images[which] if isinstance(split, ArraySplit) else None


def hold_out(dataset: Dataset, share: float) -> Dataset:
    """Hold out a share of the training samples as ``val``, where there is none with answers.

    Which ones depends on their number and their classes alone, so it is the same for every run.
    Each class gives its share.

    Args:
        dataset: as opened.
        share: of the training samples, 0 to 1; at least one sample where it is above 0.
    """
    train = dataset.train
    count = max(1, round(share * len(train))) if share else 0
    if dataset.answered("val") is not None or not train.is_labelled or not 0 < count < len(train):
        return dataset
    numbers = np.arange(len(train), dtype=np.int64)
    order = np.argsort(uniform(_SEED, 0, Purpose.HOLD_OUT, numbers), kind="stable")
    if train.labels is not None:
        order = order[np.argsort(train.labels[order], kind="stable")]
    places = (np.arange(count) + 0.5) * len(train) / count  # as far apart as can be
    chosen = np.zeros(len(train), dtype=np.bool_)
    chosen[order[places.astype(np.int64)]] = True
    others = {n: split for n, split in dataset.splits.items() if split is not train and n != "val"}
    parts = {
        name: PartSplit(name, train, np.flatnonzero(is_in))
        for name, is_in in (("train", ~chosen), ("val", chosen))
    }
    return replace(dataset, splits=parts | others)
