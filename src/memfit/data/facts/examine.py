"""One image: what it is, a fingerprint of its pixels, and how often each value occurs."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Literal

import numpy as np
from PIL import Image

from memfit.data.facts.statistics import Histogram, histogram_of
from memfit.data.images.decode import Pixels, open_image, pixels_of
from memfit.data.samples.dataset import Split

__all__ = ["DIGEST_BYTES", "Facts", "Trait", "bits_of_mode", "examine", "fingerprint"]

#: Of a fingerprint; two of 10^9 different images share one with a probability of 10^-21.
DIGEST_BYTES = 16

Trait = Literal[
    "rotated",
    "palette",
    "transparent",
    "16-bit grey",
    "16-bit, dark",
    "16-bit colour",
    "float",
    "cmyk",
    "animated",
    "extension",
    "profile",
    "grey as colour",
]
"""What can go wrong with an image, or is worth knowing about it."""

_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258
_PNG_DEPTH = 24  # byte of IHDR: PNG specification, 11.2.1
#: What readers of metadata raise for damaged metadata; the pixels are read by then.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, TypeError)
#: A 16-bit picture without values from a quarter up (of 256 levels) is often one of 10 to 14 bits.
_DARK = 64
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What one image is.

    Args:
        mode: as Pillow has it.
        format: of the file; ``"array"`` for images that live in memory.
        bits: of one stored value.
        width: as delivered, after its orientation is applied.
        height: as delivered.
        channels: as delivered: 1 grey, 3 RGB.
        orientation: of EXIF, 1 is upright.
        profile: name of the colour profile, None without one.
        traits: see :data:`Trait`.
        digest: fingerprint of the delivered pixels.
        histogram: ``(channels, 256)`` of the delivered pixels.
        stored_bytes: of the file; None when it has none of its own.
    """

    mode: str
    format: str
    bits: int
    width: int
    height: int
    channels: int
    orientation: int
    profile: str | None
    traits: tuple[Trait, ...]
    digest: bytes
    histogram: Histogram
    stored_bytes: int | None


def examine(split: Split, index: int, max_pixels: int) -> Facts:
    """Decode a sample and look at it.

    Args:
        split: that holds the sample.
        index: of the sample.
        max_pixels: larger images are refused.

    Raises:
        BadImage: it cannot be read, or has no values that scale to 0..255.
    """
    name = split.sample_name(index)
    content = split.content(index)
    if content is not None:
        image = open_image(content, name, max_pixels=max_pixels, frame=split.frame_of(index))
    else:
        image = split.image(index, max_pixels=max_pixels)
    pixels = pixels_of(image, name=name, window=split.window)
    histogram = histogram_of(pixels)
    grey_as_colour = _is_grey_as_colour(pixels, histogram)
    bits, orientation, profile = _bits(image, content), _orientation(image), _profile(image)
    suffix = PurePath(name).suffix if content else ""
    mode = image.mode
    traits = _traits(image, bits, orientation, profile, suffix)  # moves it to another frame
    if "16-bit grey" in traits and not histogram[:, _DARK:].any():
        traits = (*traits, "16-bit, dark")
    return Facts(
        mode=mode,
        format=image.format or "array",
        bits=bits,
        width=pixels.shape[1],
        height=pixels.shape[0],
        channels=pixels.shape[2],
        orientation=orientation,
        profile=profile,
        traits=(*traits, "grey as colour") if grey_as_colour else traits,
        digest=fingerprint(pixels[..., :1] if grey_as_colour else pixels),
        histogram=histogram,
        stored_bytes=len(content) if content else None,
    )


def fingerprint(pixels: Pixels) -> bytes:
    """A hash of size and pixels: equal for equal pictures, whatever file they come from.

    Args:
        pixels: ``(H, W, C)``; a grey picture with one channel, so that it equals itself in RGB.

    Returns:
        16 bytes.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(struct.pack("<qqq", *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def bits_of_mode(mode: str) -> int:
    """Bits of one value in memory."""
    if mode.startswith("I;16"):
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(mode, 8)


def _bits(image: Image.Image, content: bytes | None) -> int:
    """As stored: Pillow makes 8 bits of 16-bit colour, and of 1, 2 and 4 bits."""
    if image.format == "PNG" and content and len(content) > _PNG_DEPTH:
        return content[_PNG_DEPTH]
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    if tags is not None:
        try:
            return max(int(bits) for bits in tags.get(_BITS_PER_SAMPLE, (1,)))
        except _DAMAGED:
            pass
    return bits_of_mode(image.mode)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGED:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _profile(image: Image.Image) -> str | None:
    profile = image.info.get("icc_profile")
    return _profile_name(profile) if isinstance(profile, bytes) and profile else None


@lru_cache(maxsize=64)
def _profile_name(profile: bytes) -> str:
    try:
        from PIL import ImageCms

        described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (*_DAMAGED, ImportError):  # ImageCms.PyCMSError cannot be named without it
        return "unreadable profile"
    except Exception as error:
        if type(error).__name__ != "PyCMSError":
            raise
        return "unreadable profile"
    return " ".join(described.split()) or "unnamed profile"


def _traits(
    image: Image.Image, bits: int, orientation: int, profile: str | None, suffix: str
) -> tuple[Trait, ...]:
    mode = image.mode
    present: dict[Trait, bool] = {
        "rotated": orientation != 1,
        "palette": mode in ("P", "PA"),
        "transparent": _is_transparent(image),
        "16-bit grey": mode == "I" or mode.startswith("I;16"),
        "16-bit colour": bits == 16 and not mode.startswith("I"),
        "float": mode == "F",
        "cmyk": mode == "CMYK",
        "extension": _contradicts(suffix, image.format),
        "profile": profile is not None and not profile.lower().startswith("srgb"),
        "animated": _is_animated(image),  # last: it moves the file to another frame
    }
    return tuple(trait for trait, yes in present.items() if yes)


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel lets something shine through."""
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        lowest = image.getchannel(image.getbands()[-1]).getextrema()[0]
    elif "transparency" in image.info:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    else:
        return False
    return isinstance(lowest, (int, float)) and lowest < 255


def _is_animated(image: Image.Image) -> bool:
    """More than one frame or page; the further pictures of MPO are depth maps and thumbnails."""
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except _DAMAGED:
        return False


def _contradicts(suffix: str, format_: str | None) -> bool:
    claimed = Image.registered_extensions().get(suffix.lower())
    if claimed is None or format_ is None:
        return False
    return _SAME_FORMAT.get(claimed, claimed) != _SAME_FORMAT.get(format_, format_)


def _is_grey_as_colour(pixels: Pixels, histogram: Histogram) -> bool:
    """Three equal channels; unequal histograms say no at once."""
    if pixels.shape[2] == 1 or not (histogram == histogram[0]).all():
        return False
    return bool((pixels == pixels[..., :1]).all())
