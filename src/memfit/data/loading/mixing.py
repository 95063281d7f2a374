"""Mixup and CutMix: every sample is mixed with the one before it in the global batch.

The formulas are those of torchvision's ``v2.MixUp`` and ``v2.CutMix`` (0.29,
``transforms/v2/_augment.py``), which roll the batch by one. Here the neighbour comes with each
sample, so that micro-batches and ranks mix exactly what the global batch would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from memfit.data.loading.augment import Augmentation
from memfit.data.loading.randomness import Purpose, seed_of

__all__ = ["Mixing", "draw_mixing", "mix_images", "mix_labels"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """How much of the neighbour goes into each sample of one global batch.

    Args:
        share: of the sample itself, 0 to 1; the neighbour has the rest.
        box: ``(top, bottom, left, right)`` that is cut out of the neighbour (CutMix); None to
            add the images up (mixup).
    """

    share: float
    box: tuple[int, int, int, int] | None = None


def draw_mixing(
    augmentation: Augmentation, seed: int, epoch: int, position: int, size: tuple[int, int]
) -> Mixing | None:
    """Draw how a global batch is mixed; None without mixing.

    Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019); with both, one of them by a fair coin.

    Args:
        augmentation: which, and their alpha.
        seed: of the run.
        epoch: from 0.
        position: of the first sample of the global batch.
        size: height and width of the images.
    """
    if not augmentation.mixes:
        return None
    key = seed_of(seed, epoch, Purpose.MIX, position)
    random = np.random.Generator(np.random.Philox(key=key))
    coin = random.random()
    if augmentation.mixup and (not augmentation.cutmix or coin < 0.5):
        return Mixing(float(random.beta(augmentation.mixup, augmentation.mixup)))
    return _cut(float(random.beta(augmentation.cutmix, augmentation.cutmix)), random, size)


def mix_images(images: Tensor, neighbours: Tensor, mixing: Mixing) -> Tensor:
    """Mix two batches ``(N, C, H, W)``."""
    if mixing.box is None:
        return neighbours.mul_(1 - mixing.share).add_(images.mul_(mixing.share))
    top, bottom, left, right = mixing.box
    images[..., top:bottom, left:right] = neighbours[..., top:bottom, left:right]
    return images


def mix_labels(labels: Tensor, neighbours: Tensor, mixing: Mixing, classes: int) -> Tensor:
    """Shares of the classes, ``(N, classes)`` float32, of two batches of labels ``(N,)``."""
    own = F.one_hot(labels, classes).to(torch.float32)
    other = F.one_hot(neighbours, classes).to(torch.float32)
    return other.mul_(1 - mixing.share).add_(own.mul_(mixing.share))


def _cut(share: float, random: np.random.Generator, size: tuple[int, int]) -> Mixing:
    height, width = size
    row, column = int(random.integers(height)), int(random.integers(width))
    half = 0.5 * math.sqrt(1 - share)
    half_height, half_width = int(half * height), int(half * width)
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    area = (bottom - top) * (right - left)
    return Mixing(1 - area / (height * width), (top, bottom, left, right))
