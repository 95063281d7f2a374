"""What the images of a split are, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memfit.data.facts.examine import Trait
from memfit.data.facts.tally import Found, Sizes, Tally, Unreadable, counted
from memfit.data.samples.dataset import Split

__all__ = ["SplitFacts", "class_counts", "facts_of"]

_TRAITS_AS_FACTS: tuple[Trait, ...] = (
    "rotated", "animated", "transparent", "extension", "grey as colour",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """What the images of a split are.

    Args:
        name: of the split; ``"all"`` for all splits together.
        images: samples, readable or not.
        readable: samples that decode.
        modes: Pillow's modes with counts; of readable images, as all that follows.
        formats: of the files with counts.
        bits: of a stored value, with counts.
        channels: 1 (grey) and 3 (colour) with counts, as delivered.
        orientations: of EXIF other than 1, with counts.
        profiles: names of colour profiles with counts.
        found: traits of images with counts and examples.
        sizes: None when nothing is readable.
        class_counts: samples of each class; None without labels.
        empty_classes: names of the classes without a sample.
        unlabelled: samples without one of the classes.
        unreadable: every file that does not decode.
        bytes_on_disk: mean of the files, None where images have no file of their own.
    """

    name: str
    images: int
    readable: int
    modes: Mapping[str, int]
    formats: Mapping[str, int]
    bits: Mapping[int, int]
    channels: Mapping[int, int]
    orientations: Mapping[int, int]
    profiles: Mapping[str, int]
    found: Mapping[Trait, Found]
    sizes: Sizes | None
    class_counts: tuple[int, ...] | None
    empty_classes: tuple[str, ...]
    unlabelled: int
    unreadable: tuple[Unreadable, ...]
    bytes_on_disk: float | None


def facts_of(
    name: str,
    tally: Tally,
    sizes: Sizes | None,
    classes: Sequence[str],
    labels: tuple[tuple[int, ...] | None, int],
) -> SplitFacts:
    """The facts of a split.

    Args:
        name: of the split.
        tally: of its images.
        sizes: of its images.
        classes: names by number.
        labels: samples of each class, and of none, see :func:`class_counts`.
    """
    counts, unlabelled = labels
    return SplitFacts(
        name=name,
        images=tally.rows,
        readable=tally.readable,
        modes=counted(tally.modes),
        formats=counted(tally.formats),
        bits=dict(sorted(tally.bits.items())),
        channels=dict(sorted(tally.channels.items())),
        orientations=dict(sorted(tally.orientations.items())),
        profiles=counted(tally.profiles),
        found={trait: tally.found(trait) for trait in _TRAITS_AS_FACTS if tally.traits[trait]},
        sizes=sizes,
        class_counts=counts,
        empty_classes=tuple(
            name for name, count in zip(classes, counts or (), strict=False) if not count
        ),
        unlabelled=unlabelled,
        unreadable=tuple(tally.unreadable.values()),
        bytes_on_disk=tally.stored_bytes / tally.stored if tally.stored else None,
    )


def class_counts(split: Split, classes: int) -> tuple[tuple[int, ...] | None, int]:
    """Samples of each class or label, and samples of which nothing is known."""
    if split.targets is not None and split.targets.shape[1:] == (classes,):
        return tuple(split.targets.sum(axis=0).astype(int).tolist()), 0
    if split.labels is None or not classes:
        return None, 0 if split.is_labelled or not classes else len(split)
    known = split.labels[(split.labels >= 0) & (split.labels < classes)]
    counts = np.bincount(known, minlength=classes)
    return tuple(int(count) for count in counts), len(split) - len(known)
