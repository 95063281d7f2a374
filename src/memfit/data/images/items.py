"""Images as people's own code makes them: Pillow, arrays and tensors, bytes or floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.errors import BadImage

__all__ = ["image_of_item"]


def image_of_item(image: Any, name: str) -> Image.Image | NDArray[np.float32]:
    """An image as Pillow's where it is one or holds bytes; floats as they are.

    Args:
        image: Pillow's; or an array or tensor ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, uint8 or
            floating point. Where both could be the channels, a tensor has them first and an array
            last.
        name: for messages.

    Returns:
        Pillow's image; or ``(H, W, C)`` float32 with 1 or 3 channels.

    Raises:
        BadImage: it is none of these.
    """
    if isinstance(image, Image.Image):
        return image
    is_tensor = type(image).__module__.partition(".")[0] == "torch"
    array = image.detach().cpu().numpy() if is_tensor else image
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        kind = type(image).__name__
        raise BadImage(name, f"a {kind} is no image: give Pillow's, an array or a tensor")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise BadImage(name, f"its shape {array.shape} is not that of one image")
    first, last = array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4)
    if not first and not last:
        raise BadImage(name, f"its shape {array.shape} has no 1, 3 or 4 channels")
    if first and (is_tensor or not last):
        array = array.transpose(1, 2, 0)
    return _with_values(array, name)


def _with_values(array: NDArray[Any], name: str) -> Image.Image | NDArray[np.float32]:
    if array.dtype.kind == "f":
        if array.shape[2] == 4:
            raise BadImage(name, "four channels of floats: 1 or 3 are needed")
        return np.ascontiguousarray(array, np.float32)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            reason = f"whole numbers from {array.min()} to {array.max()}, not 0 to 255"
            raise BadImage(name, reason)
        array = array.astype(np.uint8)
    squeezed = array[..., 0] if array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(squeezed))
