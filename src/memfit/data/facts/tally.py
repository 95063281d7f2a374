"""Counting facts about many images in little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from memfit.data.facts.examine import Facts, Trait
from memfit.data.facts.statistics import Histogram

__all__ = [
    "Found",
    "SizeBin",
    "SizeCount",
    "Sizes",
    "Tally",
    "Unreadable",
    "counted",
    "summarise_sizes",
]

_EXAMPLES = 3
_COMMON_SIZES, _SIZE_BINS, _OUTLIER_EXAMPLES = 20, 10, 5
#: A size is an outlier when its area is more than this many times that of the median image, or less
#: than this part of it, ...
OUTLYING_AREA = 4.0
#: ... or when its aspect ratio is further than this factor from the median's.
OUTLYING_ASPECT = 2.0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that cannot be read.

    Args:
        name: of the file, printable.
        reason: in a few words.
        rows: samples that point to it, usually 1.
    """

    name: str
    reason: str
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """How many images have something in common, and the first few."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SizeCount:
    """How many images have exactly this size."""

    width: int
    height: int
    count: int


@dataclass(frozen=True, slots=True)
class SizeBin:
    """How many images have a longer side of ``low`` to ``high`` pixels, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the delivered images, in pixels.

    Args:
        smallest: ``(width, height)`` of least area.
        median: width and height, each on its own.
        largest: ``(width, height)`` of greatest area.
        distinct: different sizes.
        common: the most common sizes, at most 20.
        histogram: of the longer side; empty when all sizes are equal.
        outliers: images far from the median, with the first few names.
        outlier_rule: what that means.
        mean_pixels: of one image.
    """

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    distinct: int
    common: tuple[SizeCount, ...]
    histogram: tuple[SizeBin, ...]
    outliers: Found
    outlier_rule: str
    mean_pixels: float

    @property
    def vary(self) -> bool:
        """Whether the images cannot be stacked as they are."""
        return self.distinct > 1


@dataclass(slots=True)
class Tally:
    """Counts of one split, or of several added up."""

    rows: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    bits: Counter[int] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    orientations: Counter[int] = field(default_factory=Counter)
    profiles: Counter[str] = field(default_factory=Counter)
    traits: Counter[Trait] = field(default_factory=Counter)
    examples: dict[Trait, list[str]] = field(default_factory=dict)
    histograms: dict[int, Histogram] = field(default_factory=dict)
    unreadable: dict[str, Unreadable] = field(default_factory=dict)
    stored_bytes: int = 0
    stored: int = 0

    def add(self, facts: Facts, name: Callable[[], str], count: int = 1) -> None:
        """Count ``count`` images with the same facts; the histogram is of all of them together."""
        self.rows += count
        self.modes[facts.mode] += count
        self.formats[facts.format] += count
        self.bits[facts.bits] += count
        self.channels[facts.channels] += count
        if facts.orientation != 1:
            self.orientations[facts.orientation] += count
        if facts.profile is not None:
            self.profiles[facts.profile] += count
        for trait in facts.traits:
            self.mark(trait, name, count)
        if facts.stored_bytes is not None:
            self.stored_bytes += facts.stored_bytes * count
            self.stored += count

    def mark(self, trait: Trait, name: Callable[[], str], count: int = 1) -> None:
        """Count a trait."""
        self.traits[trait] += count
        examples = self.examples.setdefault(trait, [])
        if len(examples) < _EXAMPLES:
            examples.append(name())

    def add_histogram(self, histogram: Histogram) -> None:
        """Add ``(C, 256)`` counts to those of as many channels."""
        channels = len(histogram)
        if channels not in self.histograms:
            self.histograms[channels] = np.zeros((channels, 256), dtype=np.int64)
        self.histograms[channels] += histogram

    def add_unreadable(self, name: str, reason: str, rows: int = 1) -> None:
        """List a file that cannot be read, once."""
        self.rows += rows
        known = self.unreadable.get(name)
        self.unreadable[name] = Unreadable(name, reason, rows + (known.rows if known else 0))

    @property
    def readable(self) -> int:
        """Images that were counted."""
        return sum(self.modes.values())

    def found(self, trait: Trait) -> Found:
        """How many images have a trait, and the first few."""
        return Found(self.traits[trait], tuple(self.examples.get(trait, ())))

    def histogram(self, channels: int) -> Histogram:
        """``(channels, 256)``: of 3 channels, grey images count in each of them."""
        total = np.zeros((channels, 256), dtype=np.int64)
        for histogram in self.histograms.values():
            total += histogram
        return total

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """All splits together."""
        result = cls()
        for tally in tallies:
            result.rows += tally.rows
            result.stored += tally.stored
            result.stored_bytes += tally.stored_bytes
            for name in ("modes", "formats", "bits", "channels", "orientations", "profiles"):
                getattr(result, name).update(getattr(tally, name))
            result.traits.update(tally.traits)
            for trait, names in tally.examples.items():
                result.examples[trait] = [*result.examples.get(trait, ()), *names][:_EXAMPLES]
            for histogram in tally.histograms.values():
                result.add_histogram(histogram)
            result.unreadable.update(tally.unreadable)
        return result


def summarise_sizes(sizes: NDArray[np.uint32], name: Callable[[int], str]) -> Sizes | None:
    """What there is to know about sizes.

    Args:
        sizes: ``(N, 2)`` width and height; ``(0, 0)`` for images that could not be read.
        name: of the sample in a row.

    Returns:
        None without any readable image.
    """
    packed = (sizes[:, 0].astype(np.uint64) << np.uint64(32)) | sizes[:, 1]
    distinct, counts = np.unique(packed, return_counts=True)
    if len(distinct) and not distinct[0]:  # images that could not be read
        distinct, counts = distinct[1:], counts[1:]
    if not len(distinct):
        return None
    unpacked = [(int(size) >> 32, int(size) & 0xFFFFFFFF) for size in distinct]
    areas = [width * height for width, height in unpacked]
    width, height = (_median([size[side] for size in unpacked], counts) for side in (0, 1))
    common = sorted(zip(counts.tolist(), unpacked, strict=True), key=lambda pair: (-pair[0], pair))
    return Sizes(
        smallest=unpacked[int(np.argmin(areas))],
        median=(width, height),
        largest=unpacked[int(np.argmax(areas))],
        distinct=len(distinct),
        common=tuple(SizeCount(*size, count) for count, size in common[:_COMMON_SIZES]),
        histogram=_size_bins(list(map(max, unpacked)), counts) if len(distinct) > 1 else (),
        outliers=_outliers(packed, distinct, (width, height), name),
        outlier_rule=f"area more than {OUTLYING_AREA:g} times or less than 1/{OUTLYING_AREA:g} of "
        f"{width} x {height} (the median), or aspect ratio more than {OUTLYING_ASPECT:g} times off",
        mean_pixels=sum(a * int(n) for a, n in zip(areas, counts, strict=True)) / int(counts.sum()),
    )


def _median(values: Sequence[int], counts: NDArray[np.int64]) -> int:
    """The lower of the two in the middle, where there are two."""
    order = np.argsort(values)
    middle = (int(counts.sum()) + 1) // 2
    return int(values[order[np.searchsorted(np.cumsum(counts[order]), middle)]])


def _size_bins(longer: Sequence[int], weights: NDArray[np.int64]) -> tuple[SizeBin, ...]:
    low, high = min(longer), max(longer)
    bins = min(_SIZE_BINS, high - low + 1)
    edges = [low + (high + 1 - low) * k // bins for k in range(bins + 1)]
    counts, _ = np.histogram(longer, bins=edges, weights=weights)
    return tuple(
        SizeBin(low, end - 1, int(count))
        for (low, end), count in zip(pairwise(edges), counts, strict=True)
    )


def _outliers(
    packed: NDArray[np.uint64],
    distinct: NDArray[np.uint64],
    median: tuple[int, int],
    name: Callable[[int], str],
) -> Found:
    width = (distinct >> np.uint64(32)).astype(np.float64)
    height = (distinct & np.uint64(0xFFFFFFFF)).astype(np.float64)
    area = width * height / (median[0] * median[1])
    aspect = (width / height) / (median[0] / median[1])
    far = (area > OUTLYING_AREA) | (area * OUTLYING_AREA < 1)
    far |= (aspect > OUTLYING_ASPECT) | (aspect * OUTLYING_ASPECT < 1)
    outlying = np.flatnonzero(np.isin(packed, distinct[far])) if far.any() else far[:0]
    names = tuple(name(int(row)) for row in outlying[:_OUTLIER_EXAMPLES])
    return Found(len(outlying), names)


def counted(counter: Mapping[str, int]) -> dict[str, int]:
    """Most common first, equal ones by name: the same for every order of counting."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
