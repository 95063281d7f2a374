"""Augmentation: what is done to a sample anew in every epoch.

Some of it is done to one sample at a time by torchvision's transforms, in the workers; crops and
flips are done to whole batches of bytes, on the device. All of it depends on the sample and the
epoch alone, see :mod:`memfit.data.loading.randomness`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from memfit.data.loading.randomness import Purpose, uniform
from memfit.errors import UnknownName, UsageError

__all__ = ["Augmentation", "Transform", "crop_and_flip", "parse_augmentation", "seeded"]

Transform = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Augmentation:
    """The words of a recipe's ``augment``, understood.

    Args:
        crop: pixels of zero padding around the image before a crop of its own size; 0 for none.
        flip: probability of a horizontal flip.
        whole_image: cuts the final size out of the whole image (random-resized-crop).
        per_sample: done to one uint8 image ``(C, H, W)`` of the final size, in order.
        mixup: alpha of the Beta distribution; 0 for none.
        cutmix: alpha of the Beta distribution; 0 for none.
    """

    crop: int = 0
    flip: float = 0.0
    whole_image: Transform | None = None
    per_sample: tuple[Transform, ...] = ()
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed with their neighbours, and labels become shares."""
        return self.mixup > 0 or self.cutmix > 0


def parse_augmentation(words: Sequence[str], size: tuple[int, int]) -> Augmentation:
    """Understand a recipe's ``augment``.

    Args:
        words: ``crop`` or ``crop=4`` (pixels), ``flip`` or ``flip=0.5`` (probability),
            ``random-resized-crop`` or ``=0.08`` (smallest share of the area), ``randaugment`` or
            ``=2:9`` (operations and magnitude), ``trivialaugment``, ``colour-jitter`` or ``=0.4``,
            ``mixup`` or ``=0.2``, ``cutmix`` or ``=1.0`` (alpha).
        size: height and width of what the model gets.

    Raises:
        UnknownName: a word that is none of these.
        UsageError: a value that is impossible.
    """
    fields: dict[str, Any] = {"per_sample": ()}
    for word in words:
        name, _, text = word.partition("=")
        if name not in _WORDS:
            raise UnknownName("augmentation", name, _WORDS)
        found = _WORDS[name](_numbers(word, text), size)
        found["per_sample"] = fields["per_sample"] + found.get("per_sample", ())
        fields |= found
    return Augmentation(**fields)


def crop_and_flip(
    pixels: Tensor,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    fill: int = 0,
) -> Tensor:
    """Crop and flip a batch, each sample in its own way.

    Args:
        pixels: ``(N, C, H, W)`` of any dtype on any device.
        augmentation: whether to.
        seed: of the run.
        epoch: from 0.
        indices: ``(N,)`` sample numbers.
        fill: the value of the padding.

    Returns:
        ``(N, C, H, W)``.
    """
    if augmentation.crop:
        shifts = 2 * augmentation.crop + 1
        draws = [uniform(seed, epoch, p, indices) for p in (Purpose.CROP_ROW, Purpose.CROP_COLUMN)]
        rows, columns = ((draw * shifts).astype(np.int64) for draw in draws)
        pixels = _crop(pixels, augmentation.crop, _on(pixels, rows), _on(pixels, columns), fill)
    if augmentation.flip:
        flipped = uniform(seed, epoch, Purpose.FLIP, indices) < augmentation.flip
        pixels = torch.where(_on(pixels, flipped)[:, None, None, None], pixels.flip(3), pixels)
    return pixels


@contextmanager
def seeded() -> Iterator[Callable[[int], None]]:
    """Hand out the process's random generators, and give them back as they were.

    Yields:
        A function that seeds Python's, NumPy's and torch's CPU generators.
    """
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield _seed_all
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


def _crop(pixels: Tensor, padding: int, rows: Tensor, columns: Tensor, fill: int) -> Tensor:
    height, width = pixels.shape[2:]
    padded = F.pad(pixels, (padding,) * 4, value=fill)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, shifts, shifts, H, W)
    return windows[torch.arange(len(pixels), device=pixels.device), :, rows, columns]


def _on(pixels: Tensor, values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values).to(pixels.device, non_blocking=True)


# -- the words -------------------------------------------------------------------------------------

Size = tuple[int, int]
_Word = Callable[[list[float], Size], dict[str, Any]]


def _numbers(word: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(":")] if text else []
    except ValueError:
        raise UsageError(
            f"{word!r}: {text!r} is no number.", hint="Write crop=4, flip=0.5."
        ) from None


def _one(name: str, given: list[float], default: float, low: float, high: float) -> float:
    value = given[0] if given else default
    if len(given) > 1 or not low <= value <= high:
        text = ":".join(f"{number:g}" for number in given)
        raise UsageError(f"{name}={text}: one number from {low:g} to {high:g} is needed.")
    return value


def _crop_word(given: list[float], size: Size) -> dict[str, Any]:
    return {"crop": int(_one("crop", given, max(1, min(size) // 8), 1, min(size)))}


def _number_word(name: str, default: float, low: float, high: float) -> _Word:
    """A word whose one number is the field of its name."""
    return lambda given, _size: {name: _one(name, given, default, low, high)}


def _resized_crop_word(given: list[float], size: Size) -> dict[str, Any]:
    smallest = _one("random-resized-crop", given, 0.08, 0.001, 1)
    return {"whole_image": v2.RandomResizedCrop(size, scale=(smallest, 1.0), antialias=True)}


def _randaugment_word(given: list[float], _size: Size) -> dict[str, Any]:
    if len(given) not in (0, 2):
        raise UsageError("randaugment takes operations and magnitude: randaugment=2:9.")
    operations, magnitude = (int(number) for number in given or (2, 9))
    if not 1 <= operations <= 16 or not 0 <= magnitude <= 30:
        raise UsageError("randaugment: 1 to 16 operations, magnitude 0 to 30.")
    return {"per_sample": (v2.RandAugment(operations, magnitude),)}


def _trivialaugment_word(given: list[float], _size: Size) -> dict[str, Any]:
    if given:
        raise UsageError("trivialaugment has no setting: that is its point.")
    return {"per_sample": (v2.TrivialAugmentWide(),)}


def _jitter_word(given: list[float], _size: Size) -> dict[str, Any]:
    amount = _one("colour-jitter", given, 0.4, 0, 1)
    return {"per_sample": (v2.ColorJitter(amount, amount, amount),)}


_WORDS: Mapping[str, _Word] = {
    "crop": _crop_word,
    "flip": _number_word("flip", 0.5, 0, 1),
    "random-resized-crop": _resized_crop_word,
    "randaugment": _randaugment_word,
    "trivialaugment": _trivialaugment_word,
    "colour-jitter": _jitter_word,
    "mixup": _number_word("mixup", 0.2, 1e-3, 100),
    "cutmix": _number_word("cutmix", 1.0, 1e-3, 100),
}
