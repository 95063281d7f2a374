"""Images that are there twice: within a split, in two splits (a leak), under two labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.dataset import Split

__all__ = ["DuplicateGroup", "Duplicates", "Leak", "find_duplicates"]

#: Groups of each kind that are named, and names in each.
_GROUPS, _NAMES = 10, 4
_NO_LABEL = -1
_HUGE = np.iinfo(np.int64).max
#: Up to here the number of a row takes 4 bytes.
_MANY = 2**31

_Integers = NDArray[np.signedinteger[Any]]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Samples with the same pixels.

    Args:
        count: of the samples.
        names: of the first of them, at least one from each split that has any.
        labels: of those named, -1 without.
    """

    count: int
    names: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leak:
    """Samples of one split whose pixels are in another one, too.

    Args:
        split: that should not know them, such as ``"test"``.
        known_from: the split that has them, such as ``"train"``.
        count: samples of ``split``.
    """

    split: str
    known_from: str
    count: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Samples with exactly the same delivered pixels and size.

    Args:
        copies: by split: samples beyond the first of their kind within that split.
        leaks: between splits, those with any.
        mislabelled_groups: groups whose samples do not all have the same label.
        mislabelled: samples in those groups.
        leaked_examples: the first groups that span splits.
        mislabelled_examples: the first groups with several labels.
        copied_examples: the first groups within one split, with one label.
    """

    copies: Mapping[str, int]
    leaks: tuple[Leak, ...]
    mislabelled_groups: int
    mislabelled: int
    leaked_examples: tuple[DuplicateGroup, ...]
    mislabelled_examples: tuple[DuplicateGroup, ...]
    copied_examples: tuple[DuplicateGroup, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.leaks or any(self.copies.values()))


def find_duplicates(
    digests: NDArray[np.uint8], readable: _Flags, splits: Sequence[Split]
) -> Duplicates:
    """Compare all fingerprints.

    Args:
        digests: ``(N, 16)``, the splits' samples one after the other.
        readable: ``(N,)``, False for samples without a fingerprint.
        splits: that the samples belong to.
    """
    sorted_ = _Sorted.of(digests, readable, splits)
    names = [split.name for split in splits]
    mislabelled, spanning = sorted_.mislabelled(), sorted_.spanning()
    repeated = sorted_.sizes > 1
    plain = repeated & ~mislabelled & ~spanning
    return Duplicates(
        copies=dict(zip(names, sorted_.copies(len(splits)), strict=True)),
        leaks=_leaks(sorted_, names),
        mislabelled_groups=int(mislabelled.sum()),
        mislabelled=int(sorted_.sizes[mislabelled].sum()),
        leaked_examples=_examples(sorted_, spanning, splits),
        mislabelled_examples=_examples(sorted_, mislabelled, splits),
        copied_examples=_examples(sorted_, plain, splits),
    )


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Readable samples, sorted by fingerprint, then by place; ``(M,)`` but for the last two.

    Args:
        rows: place in the whole source.
        split: number of the split.
        label: class, -1 without.
        group: number of the fingerprint.
        starts: ``(G,)`` where each group begins.
        sizes: ``(G,)`` samples in each group.
    """

    rows: _Integers
    split: _Integers
    label: _Integers
    group: _Integers
    starts: _Integers
    sizes: _Integers

    @classmethod
    def of(cls, digests: NDArray[np.uint8], readable: _Flags, splits: Sequence[Split]) -> _Sorted:
        keys = digests.view("<u8")  # (N, 2)
        order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal ones stay in their order
        place: type[np.signedinteger[Any]] = np.int32 if len(order) < _MANY else np.int64
        rows: _Integers = order[readable[order]].astype(place)
        del order
        is_start = np.ones(len(rows), dtype=bool)
        for half in (keys[rows, 0], keys[rows, 1]):
            is_start[1:] &= half[1:] == half[:-1]
        np.logical_not(is_start[1:], out=is_start[1:])
        starts = np.flatnonzero(is_start)
        ends = np.cumsum([len(split) for split in splits])
        return cls(
            rows=rows,
            split=np.searchsorted(ends, rows, side="right").astype(np.int16),
            label=_labels(splits)[rows],
            group=np.cumsum(is_start, dtype=rows.dtype) - 1,
            starts=starts,
            sizes=np.diff(starts, append=len(rows)),
        )

    def copies(self, split_count: int) -> list[int]:
        """By split: samples that are not the first of their group within the split."""
        is_first = np.ones(len(self.rows), dtype=bool)
        is_first[1:] = (np.diff(self.group) != 0) | (np.diff(self.split) != 0)
        counts = np.bincount(self.split[~is_first], minlength=split_count)
        return [int(count) for count in counts]

    def mislabelled(self) -> _Flags:
        """``(G,)`` groups with more than one label."""
        if not len(self.rows):
            return np.zeros(0, dtype=bool)
        least = np.where(self.label == _NO_LABEL, _HUGE, self.label)
        low = np.minimum.reduceat(least, self.starts)
        high = np.maximum.reduceat(self.label, self.starts)
        return np.asarray((high != _NO_LABEL) & (low != high))

    def spanning(self) -> _Flags:
        """``(G,)`` groups with samples of more than one split."""
        ends = self.starts + self.sizes - 1
        return np.asarray(self.split[self.starts] != self.split[ends])


def _labels(splits: Sequence[Split]) -> _Integers:
    parts = [
        np.full(len(split), _NO_LABEL) if split.labels is None else split.labels for split in splits
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def _leaks(sorted_: _Sorted, names: Sequence[str]) -> tuple[Leak, ...]:
    leaks = []
    for known, other in combinations(range(len(names)), 2):
        has_known = np.zeros(len(sorted_.starts), dtype=bool)
        has_known[sorted_.group[sorted_.split == known]] = True
        count = int(has_known[sorted_.group[sorted_.split == other]].sum())
        if count:
            leaks.append(Leak(names[other], names[known], count))
    return tuple(leaks)


def _examples(
    sorted_: _Sorted, groups: _Flags, splits: Sequence[Split]
) -> tuple[DuplicateGroup, ...]:
    """The first groups by the place of their first sample."""
    chosen = np.flatnonzero(groups)
    by_place = chosen[np.argsort(sorted_.rows[sorted_.starts[chosen]])]
    return tuple(_example(sorted_, int(group), splits) for group in by_place[:_GROUPS])


def _example(sorted_: _Sorted, group: int, splits: Sequence[Split]) -> DuplicateGroup:
    start, size = int(sorted_.starts[group]), int(sorted_.sizes[group])
    split = sorted_.split[start : start + size]
    label = sorted_.label[start : start + size]
    _, first_of_split = np.unique(split, return_index=True)
    _, first_of_label = np.unique(label, return_index=True)
    telling = [0, *first_of_split.tolist(), *first_of_label.tolist(), *range(min(size, _NAMES))]
    members = sorted(list(dict.fromkeys(telling))[:_NAMES])
    starts = np.cumsum([0, *(len(split) for split in splits)])
    names = []
    for member in members:
        owner = int(split[member])
        row = int(sorted_.rows[start + member]) - int(starts[owner])
        names.append(splits[owner].sample_name(row))
    return DuplicateGroup(size, tuple(names), tuple(int(label[member]) for member in members))
