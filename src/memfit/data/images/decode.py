"""From a file to pixels, with nothing ruined on the way.

What the usual loaders do silently, and what happens here instead:

=====================  ==========================  =============================================
image                  ``convert("RGB")`` and co.  here
=====================  ==========================  =============================================
EXIF orientation       ignored                     applied
palette (P, PA)        indices, if unconverted     the colours (grey if all of them are)
alpha (LA, PA, RGBA)   dropped, hidden colours show laid on white
16-bit grey            cut off at 255              scaled from 0..65535 to 0..255
float (F)              cut off at 255              scaled from 0..1 to 0..255, else refused
animation              first frame                 first frame, or the one that is named
=====================  ==========================  =============================================

A window that the user names takes the place of 0..65535 and 0..1: what lies below is black, what
lies above is white.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from memfit.errors import BadImage
from memfit.files.names import printable

__all__ = [
    "MAX_PIXELS",
    "Pixels",
    "Window",
    "eight_bits",
    "is_grey",
    "open_image",
    "pixels_of",
    "read_file",
    "reading_images",
]

Pixels = NDArray[np.uint8]
"""``(H, W, C)`` with one channel (grey) or three (RGB), 0 to 255."""

Window = tuple[float, float]
"""The values that become 0 and 255."""

#: More pixels than this in one image are refused unless the caller raises it: Pillow's own limit
#: for a warning (``Image.MAX_IMAGE_PIXELS``, 1 GiB of RGB divided by 12 bytes).
MAX_PIXELS = 89_478_485

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_WHOLE, _SHARE = (0.0, 65_535.0), (0.0, 1.0)  # windows when none is named
_EXIF_ORIENTATION = 0x0112

#: What Pillow's decoders raise for damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError,
    AttributeError, ArithmeticError, MemoryError, Image.DecompressionBombError,
)  # fmt: skip


def open_image(
    source: str | Path | bytes,
    name: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
) -> Image.Image:
    """The image as stored, all pixels decoded.

    Args:
        source: a path, or a file's content.
        name: for messages; the path when omitted.
        max_pixels: larger images are refused before they are decoded.
        frame: of an image with several, from 0; the first when omitted.

    Raises:
        BadImage: it cannot be read, with the reason.
    """
    name = name or (printable(str(source)) if not isinstance(source, bytes) else "image")
    try:
        content = source if isinstance(source, bytes) else read_file(source)
    except OSError as error:
        raise BadImage(name, error.strerror or "cannot be read") from None
    if not content:
        raise BadImage(name, "the file is empty")
    try:
        image = Image.open(io.BytesIO(content))
        if frame:
            _seek(image, frame, name)
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage(
                name,
                f"{width:,} x {height:,} pixels are more than {max_pixels:,}",
                hint="If you trust the file, raise the limit: --max-pixels.",
            )
        image.load()
    except UnidentifiedImageError:
        raise BadImage(name, "not an image that Pillow knows") from None
    except _DAMAGED as error:
        raise BadImage(name, _reason(error)) from None
    return image


def _seek(image: Image.Image, frame: int, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frame >= frames:
        raise BadImage(name, f"it has {frames:,} frames, from 0, and none of number {frame:,}")
    image.seek(frame)


def read_file(path: str | Path) -> bytes:
    """The content of a file; a pipe or a device, which may never end, raises ``OSError``."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (a pipe would block for ever)
        raise OSError(errno.EINVAL, "not a regular file")
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (images are many and small)
        return file.read()


def is_grey(image: Image.Image) -> bool:
    """Whether one channel says everything: by mode, and for palettes by their colours."""
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette("RGB") or (), dtype=np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GREY_MODES


def pixels_of(
    image: Image.Image,
    channels: int | None = None,
    name: str = "image",
    window: Window | None = None,
) -> Pixels:
    """The pixels of a decoded image, see :mod:`memfit.data.images.decode`.

    Args:
        image: as stored.
        channels: 1 for grey, 3 for RGB; what the image is when omitted.
        name: for messages.
        window: of the values of 16 and 32-bit and float images.

    Returns:
        ``(H, W, C)`` uint8.

    Raises:
        BadImage: its values do not scale to 0..255.
    """
    if channels is None:
        channels = 1 if is_grey(image) else 3
    try:
        if _may_be_rotated(image):
            image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = Image.fromarray(eight_bits(np.asarray(image), name, window))
        image = _on_white(image)
        image = image.convert("L" if channels == 1 else "RGB")
    except _DAMAGED as error:
        raise BadImage(name, _reason(error)) from None
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], channels)


def _may_be_rotated(image: Image.Image) -> bool:
    """Cheap for the many images without any metadata."""
    if "exif" not in image.info and image.format not in ("TIFF", "PNG", "WEBP", "MPO"):
        return False
    return bool(image.getexif().get(_EXIF_ORIENTATION, 1) != 1)


def eight_bits(values: NDArray[Any], name: str, window: Window | None = None) -> Pixels:
    """Values of more than 8 bits, scaled to 0..255.

    Args:
        values: of any shape, whole numbers or floats.
        name: for messages.
        window: what becomes 0 and 255; else 0..65535 for whole numbers and 0..1 for floats, and
            nothing may lie outside.

    Raises:
        BadImage: something does, or is no number.
    """
    if not np.isfinite(values).all():
        raise BadImage(name, "it holds NaN or infinite values")
    low, high = window or (_SHARE if values.dtype.kind == "f" else _WHOLE)
    if window is None and (values.min() < low or values.max() > high):
        lowest, highest = f"{values.min():g}", f"{values.max():g}"
        raise BadImage(
            name,
            f"its values from {lowest} to {highest} do not lie in {low:g}..{high:g}: name those "
            f"that are black and white, such as --window {lowest}:{highest}",
        )
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.round(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _reason(error: BaseException) -> str:
    text = str(error).strip().rstrip(".")
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"damaged ({text})" if text else "damaged"


@contextmanager
def reading_images() -> Iterator[None]:
    """For whole runs over images: Pillow neither warns about metadata nor refuses by itself.

    It changes settings of the process, so it is entered once around the work, not in its threads;
    :func:`open_image` keeps its own limit of pixels.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
