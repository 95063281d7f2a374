"""What every conversion of images does before and after its formula: check, widen, round."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memfit.errors import UsageError

__all__ = ["check", "convert", "described", "eight_bits"]


def convert(images: Tensor, formula: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a formula that knows only floating point 0..1.

    Args:
        images: ``(..., C, H, W)``, uint8 or floating point.
        formula: applied in float32, or float64 if that is what the images are.

    Returns:
        What the formula gives, in the dtype and memory format of the images.
    """
    wide = images if images.dtype in (torch.float32, torch.float64) else images.float()
    result = formula(wide / 255 if images.dtype == torch.uint8 else wide)
    result = eight_bits(result) if images.dtype == torch.uint8 else result.to(images.dtype)
    if _is_channels_last(images):
        return result.contiguous(memory_format=torch.channels_last)
    return result


def _is_channels_last(images: Tensor) -> bool:
    return (
        images.dim() == 4
        and images.is_contiguous(memory_format=torch.channels_last)
        and not images.is_contiguous()
    )


def eight_bits(images: Tensor) -> Tensor:
    """0..1 as uint8, clamped and rounded; torchvision's ``to_dtype`` splits 0..1 in 256 instead."""
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)


def described(images: Tensor) -> str:
    """Shape and dtype for messages: ``(3, 32, 32) uint8``."""
    return f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"


def check(images: Tensor, name: str, channels: dict[int, str], *, uint8: bool = True) -> None:
    """Refuse what a conversion would make nonsense of.

    Args:
        images: what was given.
        name: the conversion.
        channels: the numbers it takes and what they mean; any number when empty.
        uint8: whether it takes uint8 as well.

    Raises:
        UsageError: no tensor, another number of channels, or a dtype that is no image's.
    """
    if not isinstance(images, Tensor):
        raise UsageError(
            f"{name} takes a torch tensor, not {type(images).__name__}.",
            hint="torch.from_numpy(array) shares the memory of an array; hwc_to_chw orders it.",
        )
    if images.dim() < 3 or (channels and images.shape[-3] not in channels):
        wanted = " or ".join(f"{n} ({space})" for n, space in channels.items()) or "any number of"
        raise UsageError(
            f"{name} takes (..., C, H, W) with {wanted} channels, not {described(images)}.",
            hint=_channel_hint(images),
        )
    if images.dtype == torch.uint8 and not uint8:
        raise UsageError(
            f"{name} takes floating point, not {described(images)}.", hint="images / 255 is 0 to 1."
        )
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise UsageError(
            f"{name} takes uint8 (0 to 255) or floating point (0 to 1), not {described(images)}.",
            hint="Use images.to(torch.uint8) if the values are 0 to 255, images / 65535 if 16-bit, "
            "images.float() if 0 and 1.",
        )


def _channel_hint(images: Tensor) -> str | None:
    if images.dim() < 3:
        return "A grey image without a channel gets one by images[None]."
    if images.shape[-1] <= 4 < images.shape[-3]:
        return "The channels seem to be last: call hwc_to_chw first."
    return {
        1: "Grey: call to_rgb first.",
        2: "Grey with alpha: call to_rgb first.",
        3: "Three channels: call to_grey, or the conversion from the space they are in.",
        4: "Four channels: call to_rgb (RGBA) or cmyk_to_rgb (CMYK) first.",
    }.get(images.shape[-3])
