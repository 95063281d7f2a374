"""Between grey, RGB and other colour spaces, between CHW and HWC, and normalisation and back.

Images are tensors ``(C, H, W)``, ``(N, C, H, W)`` or with any other leading dimensions: uint8 from
0 to 255, or floating point from 0 to 1. The dtype is kept; uint8 results are rounded (torchvision
cuts off), and half precision is computed in float32. Float values are not checked for their range.
What is said about 0..1 holds for uint8 as 0..255. Floating point is differentiable, the meta device
works, and channels-last memory stays channels last.

========  ===============================================================================
space     channels (floating point)
========  ===============================================================================
grey      luma 0..1, of the gamma-encoded values, as everywhere in training
RGB       0..1, sRGB where it matters (only LAB)
HSV       hue 0..1 for the full circle, saturation 0..1, value 0..1
YCbCr     Y 0..1; Cb, Cr 0..1 around 128/255: full range as in JPEG, not 16..235 as in video
LAB       L* 0..100, a* about -86.2..98.2, b* about -107.9..94.5: floating point only
CMYK      ink 0..1, 0 is no ink
========  ===============================================================================

This module imports torch; nothing that ``memfit data`` needs to start may import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from memfit.data.images import colour_spaces
from memfit.data.images.image_tensors import check, convert, described, eight_bits
from memfit.errors import UsageError

__all__ = [
    "chw_to_hwc",
    "cmyk_to_rgb",
    "denormalise",
    "hsv_to_rgb",
    "hwc_to_chw",
    "lab_to_rgb",
    "normalise",
    "rgb_to_cmyk",
    "rgb_to_hsv",
    "rgb_to_lab",
    "rgb_to_ycbcr",
    "to_grey",
    "to_rgb",
    "ycbcr_to_rgb",
]

Images = TypeVar("Images", Tensor, NDArray[Any])

# Grey and RGB


def to_grey(images: Tensor, channels: Literal[1, 3] = 1) -> Tensor:
    """One channel: the luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    For uint8 exactly what Pillow's ``convert("L")`` gives. torchvision's ``rgb_to_grayscale`` uses
    0.2989 for red and cuts off: its white is 254.

    Args:
        images: ``(..., 3, H, W)`` RGB, or ``(..., 1, H, W)``, which comes back unchanged.
        channels: 3 repeats the grey channel, for models that want three.

    Returns:
        ``(..., channels, H, W)``.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    if channels not in (1, 3):
        raise UsageError(f"to_grey gives 1 or 3 channels, not {channels}.")
    check(images, "to_grey", {1: "grey", 3: "RGB"})
    if images.shape[-3] == 3:
        if images.dtype == torch.uint8:
            images = colour_spaces.luma_in_8_bits(images)
        else:
            images = convert(images, colour_spaces.luma)
    return to_rgb(images) if channels == 3 else images


def to_rgb(images: Tensor) -> Tensor:
    """Three channels: grey is repeated, transparent pixels are laid on white.

    Four channels are taken for RGBA; CMYK has :func:`cmyk_to_rgb`. White is what
    :mod:`memfit.data.images.decode` puts under files as well.

    Args:
        images: ``(..., C, H, W)``: 1 grey, 2 grey with alpha, 3 RGB (comes back unchanged), 4 RGBA;
            alpha is not premultiplied.

    Returns:
        ``(..., 3, H, W)``.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "to_rgb", {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"})
    if images.shape[-3] in (2, 4):
        images = convert(images, colour_spaces.on_white)
    rgb: Tensor = F.grayscale_to_rgb(images)
    return rgb


# Where the channels are


def chw_to_hwc(images: Images) -> Images:
    """Channels last in the shape, as matplotlib, Pillow, OpenCV and scikit-image want them.

    Args:
        images: ``(..., C, H, W)``, a torch tensor or numpy array of any dtype.

    Returns:
        ``(..., H, W, C)``, a view: it shares memory and is not contiguous (call ``.contiguous()``
        or ``np.ascontiguousarray`` where that matters).

    Raises:
        UsageError: fewer than three dimensions, or the channels are last already.
    """
    return _move_channels(images, "chw_to_hwc", source=-3, destination=-1)


def hwc_to_chw(images: Images) -> Images:
    """Channels first in the shape, as PyTorch's layers want them.

    Args:
        images: ``(..., H, W, C)``, a torch tensor or numpy array of any dtype.

    Returns:
        ``(..., C, H, W)``, a view: it shares memory and is not contiguous. From ``(N, H, W, C)``
        it is what PyTorch calls ``channels_last`` memory, the fast one for half precision.

    Raises:
        UsageError: fewer than three dimensions, or the channels are first already.
    """
    return _move_channels(images, "hwc_to_chw", source=-1, destination=-3)


def _move_channels(images: Images, name: str, *, source: int, destination: int) -> Images:
    shape = tuple(images.shape)
    if len(shape) < 3:
        raise UsageError(
            f"{name} needs three dimensions or more, not {shape}.",
            hint="A grey image without a channel gets one by images[None] (CHW) "
            "or images[..., None] (HWC).",
        )
    if shape[source] > 4 >= shape[destination]:
        raise UsageError(
            f"{name} finds {shape[source]} channels in {shape}: they seem to be moved already.",
            hint="If they are not, movedim (torch) or np.moveaxis moves any axis.",
        )
    if isinstance(images, Tensor):
        return images.movedim(source, destination)
    return np.moveaxis(images, source, destination)


# Colour spaces


def rgb_to_hsv(images: Tensor) -> Tensor:
    """Hue, saturation and value (A. R. Smith, "Color Gamut Transform Pairs", 1978).

    Hue is a full circle in 0..1 or 0..255, as in Pillow; OpenCV's uint8 hue ends at 179. Grey has
    hue 0, black also saturation 0.

    Args:
        images: ``(..., 3, H, W)`` RGB.

    Returns:
        ``(..., 3, H, W)`` HSV; uint8 within one level of Pillow, which cuts off.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "rgb_to_hsv", {3: "RGB"})
    return convert(images, colour_spaces.hsv_from_rgb)


def hsv_to_rgb(images: Tensor) -> Tensor:
    """RGB from hue, saturation and value, see :func:`rgb_to_hsv`.

    Args:
        images: ``(..., 3, H, W)`` HSV; hue wraps around.

    Returns:
        ``(..., 3, H, W)`` RGB; uint8 within one level of Pillow.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "hsv_to_rgb", {3: "HSV"})
    return convert(images, colour_spaces.rgb_from_hsv)


def rgb_to_ycbcr(images: Tensor) -> Tensor:
    """Luma and two colour differences, full range, as inside JPEG files (ITU-T T.871, JFIF).

    scikit-image's ``rgb2ycbcr`` is the video form (16..235) and differs.

    Args:
        images: ``(..., 3, H, W)`` RGB.

    Returns:
        ``(..., 3, H, W)`` YCbCr, floating point up to 0.5 + 128/255; uint8 within one level of
        Pillow, which cuts off.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "rgb_to_ycbcr", {3: "RGB"})
    return convert(images, colour_spaces.ycbcr_from_rgb)


def ycbcr_to_rgb(images: Tensor) -> Tensor:
    """RGB from luma and colour differences, see :func:`rgb_to_ycbcr`.

    Args:
        images: ``(..., 3, H, W)`` YCbCr.

    Returns:
        ``(..., 3, H, W)`` RGB, what no screen can show clamped; uint8 within one level of Pillow.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "ycbcr_to_rgb", {3: "YCbCr"})
    return convert(images, colour_spaces.rgb_from_ycbcr)


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIE 1976 L*a*b* of sRGB under D65: equal distances look about equally different.

    Args:
        images: ``(..., 3, H, W)`` sRGB, floating point 0..1 (a* and b* are negative as well).

    Returns:
        ``(..., 3, H, W)``: L* 0..100, a* about -86.2..98.2 (green to red), b* about -107.9..94.5
        (blue to yellow); greys have a* = b* = 0.

    Raises:
        UsageError: another number of channels, or not floating point.
    """
    check(images, "rgb_to_lab", {3: "RGB"}, uint8=False)
    return convert(images, colour_spaces.lab_from_rgb)


def lab_to_rgb(images: Tensor) -> Tensor:
    """RGB from CIE 1976 L*a*b*, see :func:`rgb_to_lab`.

    Args:
        images: ``(..., 3, H, W)`` LAB, floating point, with the ranges of :func:`rgb_to_lab`.

    Returns:
        ``(..., 3, H, W)`` sRGB 0..1, what no screen can show clamped.

    Raises:
        UsageError: another number of channels, or not floating point.
    """
    check(images, "lab_to_rgb", {3: "LAB"}, uint8=False)
    return convert(images, colour_spaces.rgb_from_lab)


def rgb_to_cmyk(images: Tensor) -> Tensor:
    """Ink without a colour profile: C, M, Y = 1 - R, G, B and K = 0, exactly as Pillow does.

    Printing moves grey into K and needs a profile (``PIL.ImageCms``); this does neither.

    Args:
        images: ``(..., 3, H, W)`` RGB.

    Returns:
        ``(..., 4, H, W)`` CMYK, 0 is no ink.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "rgb_to_cmyk", {3: "RGB"})
    return convert(images, colour_spaces.cmyk_from_rgb)


def cmyk_to_rgb(images: Tensor) -> Tensor:
    """RGB from ink without a colour profile: (1 - ink) (1 - K), exactly as Pillow does.

    Adobe's programs store CMYK JPEGs inverted, 0 for full ink. Pillow turns every CMYK JPEG around
    (JpegImagePlugin.py, ``CMYK;I``); with pixels of another decoder a result that looks like a
    negative asks for ``255 - images``.

    Args:
        images: ``(..., 4, H, W)`` CMYK, 0 is no ink.

    Returns:
        ``(..., 3, H, W)`` RGB.

    Raises:
        UsageError: another number of channels, or a dtype that is no image's.
    """
    check(images, "cmyk_to_rgb", {4: "CMYK"})
    return convert(images, colour_spaces.rgb_from_cmyk)


# Normalisation


def normalise(
    images: Tensor, mean: float | Sequence[float], std: float | Sequence[float]
) -> Tensor:
    """``(images - mean) / std`` per channel, what models are trained on.

    Args:
        images: ``(..., C, H, W)``, floating point.
        mean: one for each channel, or one number for all; of images 0..1, as usually published.
        std: likewise, above 0.

    Returns:
        The same shape and dtype, around 0.

    Raises:
        UsageError: the number of channels differs, std is not above 0, or not floating point.
    """
    mean, std = _statistics(images, "normalise", mean, std)
    normalised: Tensor = F.normalize(images, mean, std)
    return normalised


def denormalise(
    images: Tensor,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    *,
    to_uint8: bool = False,
) -> Tensor:
    """``images * std + mean`` per channel: undoes :func:`normalise`.

    Args:
        images: ``(..., C, H, W)``, floating point.
        mean: as given to :func:`normalise`.
        std: as given to :func:`normalise`.
        to_uint8: for showing: clamped to 0..1 and rounded to 0..255. Otherwise nothing is clamped.

    Returns:
        The same shape; the same dtype, or uint8.

    Raises:
        UsageError: the number of channels differs, std is not above 0, or not floating point.
    """
    mean, std = _statistics(images, "denormalise", mean, std)
    values = images * _per_channel(std, images) + _per_channel(mean, images)
    return eight_bits(values) if to_uint8 else values


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    return torch.tensor(values, dtype=images.dtype, device=images.device).view(-1, 1, 1)


def _statistics(
    images: Tensor, name: str, mean: float | Sequence[float], std: float | Sequence[float]
) -> tuple[list[float], list[float]]:
    check(images, name, {}, uint8=False)
    channels = images.shape[-3]
    found = {}
    for what, given in (("mean", mean), ("std", std)):
        values = np.asarray(given, dtype=np.float64)
        if values.ndim and values.shape != (channels,):
            raise UsageError(
                f"{name}: {what} has {values.size} values, but the images have {channels} "
                f"channels: {described(images)}.",
                hint="Give one value for each channel, or one number for all.",
            )
        found[what] = np.broadcast_to(values, channels).tolist()
    if not all(math.isfinite(v) for v in found["mean"] + found["std"]) or min(found["std"]) <= 0:
        raise UsageError(f"{name}: mean and std must be finite and std above 0, not {mean}, {std}.")
    return found["mean"], found["std"]
