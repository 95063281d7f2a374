"""Images that live in memory as one array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import MAX_PIXELS, eight_bits
from memfit.data.samples.dataset import Split, Targets
from memfit.errors import DataError

__all__ = ["ArraySplit"]


class ArraySplit(Split):
    """Images that live in memory as one array.

    Args:
        name: of the split.
        images: ``(N, H, W)`` grey or ``(N, H, W, C)`` with 1 to 4 channels; uint8, whole numbers
            of more bits, or float.
        labels: ``(N,)``; None when there are none.
        targets: ``(N,)`` or ``(N, K)`` float32; None when there are none.
        source: the file, for messages.

    Raises:
        DataError: shapes or types are impossible, or the counts differ.
    """

    def __init__(
        self,
        name: str,
        images: NDArray[Any],
        labels: NDArray[Any] | None,
        source: str = "",
        *,
        targets: Targets | None = None,
    ) -> None:
        where = f"{source}: " if source else ""
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (2, 3, 4)):
            raise DataError(
                f"{where}images of {name} have shape {images.shape}; "
                "(N, H, W) or (N, H, W, channels) is needed."
            )
        if images.dtype.kind not in "iuf":
            raise DataError(
                f"{where}images of {name} are {images.dtype}, not uint8, other whole numbers or "
                "float."
            )
        if labels is not None:
            labels = labels.reshape(-1) if labels.size == len(labels) else labels
            if labels.shape != (len(images),):
                raise DataError(
                    f"{where}{name} has {len(images):,} images and labels of shape {labels.shape}."
                )
        if targets is not None and len(targets) != len(images):
            raise DataError(
                f"{where}{name} has {len(images):,} images and {len(targets):,} targets."
            )
        super().__init__(name, None if labels is None else labels.astype(np.int64), targets=targets)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def sample_name(self, index: int) -> str:
        """As one would index it: ``train[17]``."""
        return f"{self.name}[{index}]"

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:  # noqa: ARG002
        """A sample as a Pillow image."""
        pixels = self.images[index]
        if pixels.ndim == 3 and pixels.dtype != np.uint8:  # Pillow has no such colour
            pixels = eight_bits(pixels, self.sample_name(index), self.window)
        elif pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32)
        elif pixels.dtype not in (np.uint8, np.uint16):
            pixels = pixels.astype(np.int32)
        return Image.fromarray(pixels)
