"""What the usual loaders would silently ruin in these images, and what memfit does instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memfit.data.facts.examine import Trait
from memfit.data.facts.tally import Found, Sizes, Tally
from memfit.data.samples.dataset import Dataset

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
        "scaled from 0..65535, or from the --window, to 0..255",
    ),
    "16-bit, dark": (
        "16-bit grey that leaves the upper three quarters empty",
        "values of 10 to 14 bits lose most of their levels in 8 bits",
        "the same, from 0..65535: name their range, such as --window 0:4095",
    ),
    "16-bit colour": (
        "16-bit colour", "Pillow keeps the upper 8 bits only", "the same: 8 bits are delivered",
    ),
    "float": (
        "floating point", "convert cuts values off: 0..1 becomes black",
        "scaled from 0..1, or from the --window, to 0..255",
    ),
    "palette": (
        "palette",
        "without convert, and by torchvision's decoders, indices are read as if they were pixels",
        "the palette's colours",
    ),
    "transparent": (
        "with transparency",
        "alpha is dropped, and colours that nobody saw appear; torchvision's decoders keep it as "
        "a fourth channel, torchcodec's drop it",
        "laid on white",
    ),
    "cmyk": (
        "CMYK",
        "kept as four channels (torchvision's decoders), or colours come out inverted",
        "converted to RGB, Adobe's inversion undone",
    ),
    "rotated": (
        "turned by EXIF",
        "Image.open and torchvision's decoders (deprecated since 0.29) leave pictures on their "
        "side, torchcodec turns them",
        "turned upright",
    ),
    "animated": (
        "animated or of several pages",
        "all but the first frame are lost without a word; torchcodec adds a dimension",
        "the first frame or the one that --frame names, and this line",
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


def hazards_of(
    dataset: Dataset, tally: Tally, sizes: Sizes | None, channels: int
) -> tuple[Hazard, ...]:
    """What to be warned of.

    Args:
        dataset: the source.
        tally: of all splits.
        sizes: of all splits.
        channels: that are delivered.
    """
    return (*_by_trait(tally), *_of_the_set(tally, sizes, channels), *_of_folders(dataset))


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
            "1 and 3 channels do not stack to a batch (torchvision's decoders; torchcodec's "
            "make grey ones RGB)",
            "delivered as RGB, grey in each channel",
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


def _of_folders(dataset: Dataset) -> Iterator[Hazard]:
    """What ``torchvision.datasets.ImageFolder`` makes of the folders of classes.

    Its ``find_classes`` takes every folder, hidden or not, in the order of the text
    (torchvision 0.29, datasets/folder.py).
    """
    if dataset.hidden:
        yield Hazard(
            "images in hidden folders", len(dataset.hidden), dataset.hidden[0],
            "torchvision's ImageFolder takes a hidden folder for a class: the numbers of the "
            "classes after it shift by one", "not read",
        )  # fmt: skip
    names = dataset.classes
    are_folders = dataset.layout.startswith("class folders")
    if are_folders and all(name.isdecimal() for name in names):
        numbers = list(map(int, names))
        if numbers != sorted(numbers):
            place = next(n for n, name in enumerate(numbers) if name != sorted(numbers)[n])
            yield Hazard(
                "numbers in the order of text", len(names), f"folder {names[place]}",
                f"class {place} is folder {names[place]}, not {sorted(numbers)[place]}: a label "
                "is not the number of its folder",
                "the same numbers, with the names of the folders; leading zeros would sort them",
            )  # fmt: skip
