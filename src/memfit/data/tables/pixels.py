"""Tables whose cells are pixels, as Kaggle's MNIST: a column for each, or one text for all."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.errors import DataError

__all__ = ["Pixels", "images_of_rows", "in_eight_bits", "pixel_columns"]

_NAME = re.compile(r"(pixel|pix|px|p|x|feature|attr|f|v)?[_ ]?\d+([_x ]\d+)?|r\d+c\d+")
#: Fewer columns are no picture.
_LEAST = 16
_BLOCK = 1024


def pixel_columns(header: Sequence[str]) -> tuple[int, ...]:
    """Places of the columns that hold pixels; none where these are too few for a picture.

    >>> pixel_columns(["label", *(f"pixel{n}" for n in range(784))])[:2]
    (1, 2)
    """
    names = [str(name).strip().lower() for name in header]
    if "pixels" in names:
        return (names.index("pixels"),)
    found = tuple(place for place, name in enumerate(names) if _NAME.fullmatch(name))
    return found if len(found) >= _LEAST else ()


class Pixels:
    """Rows of pixels, collected.

    Args:
        places: of the cells that hold them; one alone holds all, with spaces between.
    """

    def __init__(self, places: Sequence[int]) -> None:
        self._places = places
        self._width = 0
        self._rows: list[NDArray[np.float32]] = []
        self._blocks: list[NDArray[Any]] = []

    def append(self, cells: Sequence[Any]) -> None:
        """Add a row.

        Raises:
            ValueError: a cell is no number, or the first row had more or fewer.
        """
        if len(self._places) == 1:
            chosen: Sequence[Any] = str(cells[self._places[0]]).split()
        else:
            chosen = [cells[place] for place in self._places]
        row = np.asarray(chosen, np.float32)
        self._width = self._width or len(row)
        if len(row) != self._width:
            raise ValueError(f"{len(row)} pixels, not {self._width}")
        self._rows.append(row)
        if len(self._rows) == _BLOCK:
            self._pack()

    def _pack(self) -> None:
        self._blocks.append(in_eight_bits(np.stack(self._rows)))
        self._rows = []

    def images(self, where: str) -> NDArray[Any]:
        """All rows as :func:`images_of_rows` has them.

        Raises:
            DataError: they are no pictures.
        """
        if self._rows:
            self._pack()
        return images_of_rows(np.concatenate(self._blocks), where)


def in_eight_bits(values: NDArray[Any]) -> NDArray[Any]:
    """The same as uint8 where all are whole numbers from 0 to 255; floats up to 1 stay shares."""
    if not values.size or values.dtype == np.uint8 or values.dtype.kind not in "iuf":
        return values
    if not (values.min() >= 0 and values.max() <= 255):
        return values
    if values.dtype.kind == "f" and values.max() <= 1:
        return values
    whole = values.astype(np.uint8)
    return whole if np.array_equal(whole, values) else values


def images_of_rows(rows: NDArray[Any], where: str) -> NDArray[Any]:
    """Flattened square images in their shape.

    Args:
        rows: ``(N, H * W)`` grey, or ``(N, H * W * 3)`` colour, whichever way its channels lie:
            neighbours in a picture are alike, and that tells.
        where: the file, for messages.

    Returns:
        ``(N, H, W)`` or ``(N, H, W, 3)`` of the same type.

    Raises:
        DataError: so many values are no square image.
    """
    count, values = rows.shape
    side = math.isqrt(values)
    if side * side == values:
        return rows.reshape(count, side, side)
    side = math.isqrt(values // 3)
    if side * side * 3 != values:
        raise DataError(
            f"{where}: {values:,} pixels in a row are no square image, grey or colour.",
            hint="Store the images as an .npz of (N, H, W) or (N, H, W, 3).",
        )
    some = rows[:256].astype(np.float32)
    beside = np.abs(some[:, 1:] - some[:, :-1]).mean()
    third = np.abs(some[:, 3:] - some[:, :-3]).mean()
    if third < beside:
        return rows.reshape(count, side, side, 3)
    return rows.reshape(count, 3, side, side).transpose(0, 2, 3, 1)
