"""What the usual loaders would silently ruin in these images, and what memfit does instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memfit.data.facts.examine import Trait
from memfit.data.facts.tally import Found, Sizes, Tally

__all__ = ["Hazard", "hazards_of"]


@dataclass(frozen=True, slots=True)
class Hazard:
    """A way in which pixels get lost without an error.

    Args:
        kind: what the images are, in a few words.
        count: images.
        example: the name of one; empty where it is about all together.
        usually: what the usual loaders do (``Image.open``, ``convert("RGB")``, ``ToTensor``).
        here: what memfit does.
    """

    kind: str
    count: int
    example: str
    usually: str
    here: str


#: The rows follow the table of decode.py.
_TRAITS: dict[Trait, tuple[str, str, str]] = {
    "16-bit grey": (
        "16-bit grey", "convert cuts all values off at 255: mostly white",
        "scaled from 0..65535 to 0..255",
    ),
    "16-bit, dark": (
        "16-bit grey that leaves the upper three quarters empty",
        "values of 10 to 14 bits lose most of their levels in 8 bits",
        "the same, from 0..65535: stretch them first, or with a transform",
    ),
    "16-bit colour": (
        "16-bit colour", "Pillow keeps the upper 8 bits only", "the same: 8 bits are delivered",
    ),
    "float": (
        "floating point", "convert cuts values off: 0..1 becomes black",
        "scaled from 0..1 to 0..255",
    ),
    "palette": (
        "palette", "without convert, indices are read as if they were pixels",
        "the palette's colours",
    ),
    "transparent": (
        "with transparency", "alpha is dropped, and colours that nobody saw appear",
        "laid on white",
    ),
    "cmyk": (
        "CMYK", "kept as four channels, or colours come out inverted",
        "converted to RGB, Adobe's inversion undone",
    ),
    "rotated": (
        "turned by EXIF", "the orientation is ignored: pictures lie on their side",
        "turned upright",
    ),
    "animated": (
        "animated or of several pages", "all but the first frame are lost without a word",
        "the first frame, and this line",
    ),
    "profile": (
        "with a colour profile other than sRGB", "colours are taken for sRGB: they shift",
        "the same: profiles are not applied",
    ),
    "extension": (
        "of another format than the name says", "read by content, or missed by the name",
        "read by content",
    ),
}  # fmt: skip


def hazards_of(tally: Tally, sizes: Sizes | None, channels: int) -> tuple[Hazard, ...]:
    """What to be warned of.

    Args:
        tally: of all splits.
        sizes: of all splits.
        channels: that are delivered.
    """
    return (*_by_trait(tally), *_of_the_set(tally, sizes, channels))


def _by_trait(tally: Tally) -> Iterator[Hazard]:
    for trait, (kind, usually, here) in _TRAITS.items():
        found: Found = tally.found(trait)
        if found.count:
            yield Hazard(kind, found.count, found.examples[0], usually, here)


def _of_the_set(tally: Tally, sizes: Sizes | None, channels: int) -> Iterator[Hazard]:
    grey, colour = tally.channels[1], tally.channels[3]
    if grey and colour and channels == 3:
        yield Hazard(
            "grey among colour", grey, "",
            "1 and 3 channels do not stack to a batch", "delivered as RGB, grey in each channel",
        )  # fmt: skip
    elif grey and colour:
        yield Hazard(
            "colour outside of training", colour, "",
            "1 and 3 channels do not stack to a batch",
            "delivered as grey, as the training images are",
        )  # fmt: skip
    same = tally.found("grey as colour")
    if same.count and same.count == tally.readable and channels == 3:
        yield Hazard(
            "grey in three equal channels", same.count, same.examples[0],
            "three times the memory for the same picture", "as stored; one channel says the same",
        )  # fmt: skip
    if sizes is not None and sizes.vary:
        yield Hazard(
            "of different sizes", tally.readable, "",
            "they do not stack to a batch", "resized or cropped to the recipe's input_shape",
        )  # fmt: skip
