"""Masks: images whose values are classes, one for each pixel of another image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import is_grey, reading_images
from memfit.data.samples.dataset import Split
from memfit.errors import BadImage, DataError

__all__ = [
    "IGNORED", "MAX_VALUES", "MaskClasses", "Masks", "class_of_each", "classes_in",
    "classes_of_values", "look_like_masks", "stored_values",
]  # fmt: skip

#: The class of pixels that do not count: what ``torch.nn.functional.cross_entropy`` leaves out.
IGNORED = -100
#: More different values than this are no classes but a picture, a depth, or blurred by JPEG.
MAX_VALUES = 256
_MANY_FOR_ONE, _LOOKED_AT, _THREADS = 64, 8, 4
_VOID, _GREY = 255, 0x010101
#: Of a mask that JPEG blurred: so small a share lies in the middle half between black and white.
_BETWEEN, _BETWEEN_SHARE = (64, 192), 0.02


@dataclass(frozen=True, slots=True)
class MaskClasses:
    """Which stored values are which classes.

    Args:
        values: stored, by class number: grey levels, places in a palette, or colours ``0xRRGGBB``.
        are_colours: whether they are colours.
        void: the stored value of pixels that do not count; -1 without one.
        is_blurred: black and white after JPEG, which leaves levels around both.
    """

    values: tuple[int, ...]
    are_colours: bool = False
    void: int = -1
    is_blurred: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """``"0"`` and ``"255"``, or ``"#ff0000"``."""
        return tuple(f"#{v:06x}" if self.are_colours else str(v) for v in self.values)


class Masks:
    """The masks of a split: ``masks[i]`` belongs to its image ``i``.

    Args:
        split: of the mask images.
        classes: what their values are.
    """

    def __init__(self, split: Split, classes: MaskClasses) -> None:
        self.split = split
        self.classes = classes

    def __len__(self) -> int:
        return len(self.split)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of a mask; of a file, its header is read only.

        Raises:
            BadImage: it cannot be read.
        """
        content = self.split.content(index)
        if content is None:
            return self.split.image(index).size
        try:
            with Image.open(io.BytesIO(content)) as image:
                return image.size
        except (OSError, ValueError, SyntaxError) as error:
            raise BadImage(self.split.sample_name(index), str(error)) from None

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        """The class of each pixel: ``(H, W)`` int64, :data:`IGNORED` where none counts.

        Raises:
            BadImage: it cannot be read, or holds a value that is no class.
        """
        name, known = self.split.sample_name(index), self.classes
        image = self.split.image(index)
        if known.is_blurred:
            return np.asarray(np.asarray(image.convert("L")) >= 128, np.int64)
        return class_of_each(stored_values(image, name), known, name)


def class_of_each(stored: NDArray[np.int64], known: MaskClasses, name: str) -> NDArray[np.int64]:
    """The class of each pixel, :data:`IGNORED` where none counts.

    Args:
        stored: ``(H, W)``, as :func:`stored_values` has them.
        known: which of them are classes.
        name: of the mask, for messages.

    Raises:
        BadImage: it holds a value that is no class.
    """
    values = np.asarray(known.values)
    numbers = np.searchsorted(values, stored).clip(max=len(values) - 1)
    is_class = values[numbers] == stored
    strange = stored[~is_class & (stored != known.void)]
    if len(strange):
        raise BadImage(name, f"the value {strange[0]} in the mask is none of its classes")
    return np.where(is_class, numbers, IGNORED)


def stored_values(image: Image.Image, name: str) -> NDArray[np.int64]:
    """``(H, W)``: grey levels, places in the palette, or colours ``0xRRGGBB``.

    Raises:
        BadImage: its mode holds no classes.
    """
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    elif image.mode == "RGBA":
        image = image.convert("RGB")
    elif image.mode == "P" and is_grey(image):  # GIF numbers the levels that occur
        image = image.convert("L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "F"):
        raise BadImage(name, f"a mask holds classes, not {image.mode} values")
    values = np.asarray(image).astype(np.int64)
    return values @ np.array([1 << 16, 1 << 8, 1]) if values.ndim == 3 else values


# -- what masks hold -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """One mask: its values (too many are None), and whether they may have been blurred."""

    values: frozenset[int] | None
    is_colour: bool
    is_blurred: bool

    @property
    def has_few(self) -> bool:
        return self.values is not None and len(self.values) <= _MANY_FOR_ONE


def _look(split: Split, index: int) -> _Seen | None:
    """None where it cannot be read: that is said where it is wanted."""
    try:
        image = split.image(index)
        stored = stored_values(image, "")
    except BadImage:
        return None
    is_colour = image.mode in ("RGB", "RGBA")
    values, counts = np.unique(stored, return_counts=True)
    is_blurred = False
    if image.format == "JPEG":
        grey = values // _GREY if (values % _GREY == 0).all() else values
        between = counts[(grey >= _BETWEEN[0]) & (grey < _BETWEEN[1])].sum()
        is_blurred = grey.max() < 256 and between <= _BETWEEN_SHARE * counts.sum()
    few = frozenset(values.tolist()) if len(values) <= MAX_VALUES else None
    return _Seen(few, is_colour, bool(is_blurred))


def look_like_masks(split: Split) -> bool:
    """Whether the first few images have so few different values that these may be classes."""
    with reading_images():
        seen = [_look(split, index) for index in range(min(len(split), _LOOKED_AT))]
    return all(
        one is None
        or one.is_blurred
        or (one.values is not None and len(one.values) <= _MANY_FOR_ONE)
        for one in seen
    )


def classes_in(splits: list[Split], where: str) -> MaskClasses:
    """The classes of masks: all of them are read for it.

    A class is a value that occurs, in rising order. 255 does not count ("void", as in VOC and
    Cityscapes) where at least two others occur and all of them are below 128.

    Args:
        splits: of mask images.
        where: the source, for messages.

    Raises:
        DataError: they hold too many values to be classes.
    """
    values: set[int] = set()
    are_colours = is_blurred = False
    for name, seen in _all_of(splits):
        are_colours |= seen.is_colour
        is_blurred |= seen.is_blurred and (seen.values is None or len(seen.values) > 2)
        values |= seen.values or set()
        if not is_blurred and (seen.values is None or len(values) > MAX_VALUES):
            raise _too_many(where, name)
    if is_blurred:
        return MaskClasses((0, 255), is_blurred=True)
    if not values:
        raise DataError(f"{where}: none of the masks can be read.")
    if are_colours:
        return MaskClasses(tuple(sorted(values)), are_colours=True)
    return classes_of_values(values, where)


def classes_of_values(values: set[int], where: str) -> MaskClasses:
    """The classes of masks by the values in them, as :func:`classes_in` has them.

    Raises:
        DataError: they are too many.
    """
    if len(values) > MAX_VALUES:
        raise _too_many(where, "the last")
    others = values - {_VOID}
    if _VOID in values and len(others) > 1 and max(others) < 128:
        return MaskClasses(tuple(sorted(others)), void=_VOID)
    return MaskClasses(tuple(sorted(values)))


def _all_of(splits: list[Split]) -> Iterator[tuple[str, _Seen]]:
    """All masks that can be read, with their names."""
    with reading_images(), ThreadPoolExecutor(_THREADS) as pool:
        for split in splits:
            for index, seen in enumerate(pool.map(partial(_look, split), range(len(split)))):
                if seen is not None:
                    yield split.sample_name(index), seen


def _too_many(where: str, name: str) -> DataError:
    return DataError(
        f"{where}: the masks up to {name} hold more than {MAX_VALUES} different values: "
        "no classes of pixels.",
        hint="Store a mask as PNG with one value for each class; JPEG blurs them. "
        'If these are no masks: task="classes" (--task classes).',
    )
