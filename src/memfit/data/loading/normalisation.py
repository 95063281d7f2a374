"""Bytes as numbers around zero: by mean and standard deviation of each channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["moments_of", "normalised", "normalised_by"]


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What the model gets of bytes: as ``ToTensor`` and ``Normalize`` do, to the bit.

    Args:
        pixels: ``(N, C, H, W)``; what is no uint8 keeps its values.
        mean: of each channel, on the scale 0 to 1.
        std: of each channel.

    Returns:
        ``(N, C, H, W)`` float32.
    """
    return normalised_by(pixels, *moments_of(mean, std, pixels.device))


def normalised_by(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """As :func:`normalised`, by tensors of :func:`moments_of`."""
    if pixels.dtype != torch.uint8:
        return pixels.to(torch.float32)
    return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)


def moments_of(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of each channel, ``(1, C, 1, 1)`` float32."""
    centre, spread = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (mean, std))
    return centre, spread
