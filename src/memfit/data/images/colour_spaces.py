"""Formulas of the colour spaces, each with its source, on floating point ``(..., C, H, W)``.

What a user calls is :mod:`memfit.data.images.conversions`, which says the ranges, checks its
input and keeps the dtype.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "cmyk_from_rgb",
    "hsv_from_rgb",
    "lab_from_rgb",
    "luma",
    "luma_in_8_bits",
    "on_white",
    "rgb_from_cmyk",
    "rgb_from_hsv",
    "rgb_from_lab",
    "rgb_from_ycbcr",
    "ycbcr_from_rgb",
]

_Matrix = tuple[tuple[float, float, float], ...]

#: Luma of ITU-R BT.601, as a fraction and in 16 bits (Pillow 13, libImaging/Convert.c, L24).
_LUMA = (0.299, 0.587, 0.114)
_LUMA_16_BITS = (19_595, 38_470, 7_471)

#: Cb and Cr from RGB, and back, ITU-T T.871 (JFIF), section 7; zero is stored as 128.
_CHROMA_ZERO = 128 / 255
_YCBCR_FROM_RGB: _Matrix = (
    _LUMA,
    (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
    (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
)
_RGB_FROM_YCBCR: _Matrix = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)

#: Chromaticities x, y of red, green and blue, and of the white point D65: IEC 61966-2-1 (sRGB).
_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_D65 = (0.3127, 0.3290)

#: CIE 1976 L*a*b* (ISO/CIE 11664-4): the cube root is replaced by a line below (6/29)^3.
_DELTA = 6 / 29


def luma(rgb: Tensor) -> Tensor:
    """One channel from three."""
    red, green, blue = rgb.unbind(-3)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(-3)


def luma_in_8_bits(rgb: Tensor) -> Tensor:
    """The luma of uint8 RGB, rounded exactly as Pillow rounds it."""
    red, green, blue = rgb.int().unbind(-3)
    shifted = _LUMA_16_BITS[0] * red + _LUMA_16_BITS[1] * green + _LUMA_16_BITS[2] * blue
    return ((shifted + 0x8000) >> 16).to(torch.uint8).unsqueeze(-3)


def on_white(with_alpha: Tensor) -> Tensor:
    """The last channel is opacity (not premultiplied); white is 1."""
    colours, alpha = with_alpha[..., :-1, :, :], with_alpha[..., -1:, :, :]
    return 1 - alpha * (1 - colours)


def hsv_from_rgb(rgb: Tensor) -> Tensor:
    """Smith 1978, with a hue of 0 for grey instead of 0 / 0."""
    red, green, blue = rgb.unbind(-3)
    value = rgb.amax(-3)
    chroma = value - rgb.amin(-3)
    divisor = torch.where(chroma == 0, 1, chroma)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = (sextant / 6 + 1) % 1
    return torch.stack((hue, chroma / torch.where(value == 0, 1, value), value), dim=-3)


def rgb_from_hsv(hsv: Tensor) -> Tensor:
    """Smith 1978: each colour fades from full to grey over the second 60 degrees away from it."""
    hue, saturation, value = hsv.unbind(-3)
    away = [(start + hue * 6) % 6 for start in (5, 3, 1)]
    faded = [torch.minimum(k, 4 - k).clamp(0, 1) for k in away]
    return torch.stack([value - value * saturation * fade for fade in faded], dim=-3)


def ycbcr_from_rgb(rgb: Tensor) -> Tensor:
    """ITU-T T.871."""
    y, cb, cr = _mix(rgb, _YCBCR_FROM_RGB)
    return torch.stack((y, cb + _CHROMA_ZERO, cr + _CHROMA_ZERO), dim=-3)


def rgb_from_ycbcr(ycbcr: Tensor) -> Tensor:
    """ITU-T T.871, clamped."""
    y, cb, cr = ycbcr.unbind(-3)
    centred = torch.stack((y, cb - _CHROMA_ZERO, cr - _CHROMA_ZERO), dim=-3)
    return torch.stack(_mix(centred, _RGB_FROM_YCBCR), dim=-3).clamp(0, 1)


def _linear_rgb_to_xyz() -> NDArray[np.float64]:
    """Linear RGB to XYZ relative to the white point, so that white is (1, 1, 1)."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in (*_PRIMARIES, _D65)]).T
    primaries, white = columns[:, :3], columns[:, 3]
    matrix: NDArray[np.float64] = primaries * np.linalg.solve(primaries, white) / white[:, None]
    return matrix


_XYZ_FROM_RGB: _Matrix = tuple(map(tuple, _linear_rgb_to_xyz().tolist()))
_RGB_FROM_XYZ: _Matrix = tuple(map(tuple, np.linalg.inv(_linear_rgb_to_xyz()).tolist()))


def lab_from_rgb(rgb: Tensor) -> Tensor:
    """IEC 61966-2-1 (sRGB to linear), then CIE 1976."""
    # Both branches are computed: the clamps keep NaN out of the gradient of the unused one.
    curved = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    xyz = torch.stack(_mix(torch.where(rgb <= 0.04045, rgb / 12.92, curved), _XYZ_FROM_RGB), dim=-3)
    line = xyz / (3 * _DELTA**2) + 4 / 29
    x, y, z = torch.where(xyz > _DELTA**3, xyz.clamp(min=_DELTA**3) ** (1 / 3), line).unbind(-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def rgb_from_lab(lab: Tensor) -> Tensor:
    """CIE 1976, then IEC 61966-2-1 (linear to sRGB), clamped."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack((y + a / 500, y, y - b / 200), dim=-3)
    xyz = torch.where(roots > _DELTA, roots**3, 3 * _DELTA**2 * (roots - 4 / 29))
    linear = torch.stack(_mix(xyz, _RGB_FROM_XYZ), dim=-3)
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curved).clamp(0, 1)


def cmyk_from_rgb(rgb: Tensor) -> Tensor:
    """Pillow 13, libImaging/Convert.c, rgb2cmyk: no undercolour removal."""
    return torch.cat((1 - rgb, torch.zeros_like(rgb[..., :1, :, :])), dim=-3)


def rgb_from_cmyk(cmyk: Tensor) -> Tensor:
    """Pillow 13, libImaging/Convert.c, cmyk2rgb."""
    return (1 - cmyk[..., :3, :, :]) * (1 - cmyk[..., 3:, :, :])


def _mix(images: Tensor, matrix: _Matrix) -> list[Tensor]:
    """A 3 x 3 matrix over channels, without matmul: neither TF32 nor autocast rounds colours."""
    first, second, third = images.unbind(-3)
    return [a * first + b * second + c * third for a, b, c in matrix]
