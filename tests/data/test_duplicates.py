"""Duplicates against a plain dictionary."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memfit.data.facts.duplicates import DuplicateGroup, Duplicates, Leak, find_duplicates
from memfit.data.facts.examine import fingerprint
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Split

#: Of each sample: which picture it is, its label, whether it can be read.
SAMPLES = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 2), st.booleans()), max_size=24)


def split_of(name: str, labels: list[int] | None, count: int) -> Split:
    images = np.zeros((count, 1, 1), dtype=np.uint8)
    return ArraySplit(name, images, None if labels is None else np.array(labels, dtype=np.int64))


def digest_of(picture: int) -> list[int]:
    return list(fingerprint(np.full((1, 1, 1), picture, dtype=np.uint8)))


def find(*samples: list[tuple[int, int, bool]]) -> Duplicates:
    names = ("train", "test")
    splits = [
        split_of(name, [label for _, label, _ in part], len(part))
        for name, part in zip(names, samples, strict=False)
    ]
    rows = [sample for part in samples for sample in part]
    digests = np.array([digest_of(picture) for picture, _, _ in rows], dtype=np.uint8)
    readable = np.array([readable for _, _, readable in rows], dtype=bool)
    return find_duplicates(digests.reshape(-1, 16), readable, splits)


@given(SAMPLES, SAMPLES)
def test_the_counts_are_those_of_a_dictionary(train: list, test: list) -> None:
    found = find(train, test)
    groups: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for name, part in (("train", train), ("test", test)):
        for picture, label, readable in part:
            if readable:
                groups[picture].append((name, label))
    for name in ("train", "test"):
        inside = [sum(member[0] == name for member in group) for group in groups.values()]
        assert found.copies[name] == sum(max(0, count - 1) for count in inside)
    leaked = [group for group in groups.values() if len({name for name, _ in group}) == 2]
    count = sum(name == "test" for group in leaked for name, _ in group)
    assert found.leaks == ((Leak("test", "train", count),) if count else ())
    conflicting = [g for g in groups.values() if _conflicts([label for _, label in g])]
    assert found.mislabelled_groups == len(conflicting)
    assert found.mislabelled == sum(map(len, conflicting))
    assert bool(found) == any(len(group) > 1 for group in groups.values())


def _conflicts(labels: list[int]) -> bool:
    return len({label for label in labels if label >= 0}) > 1


def test_groups_name_a_sample_of_each_split_and_label() -> None:
    train = [(1, 0, True)] * 6 + [(1, 2, True)]
    found = find(train, [(1, 0, True), (2, 0, True)])
    (group,) = found.leaked_examples
    assert group.count == 8
    assert group.names[0] == "train[0]"
    assert "train[6]" in group.names
    assert "test[0]" in group.names
    assert found.mislabelled_examples == found.leaked_examples
    assert found.copied_examples == ()


def test_groups_are_in_the_order_of_their_first_sample() -> None:
    pictures = [5, 3, 4, 3, 5, 4, 5]
    found = find([(picture, 0, True) for picture in pictures])
    assert found.copied_examples == (
        DuplicateGroup(3, ("train[0]", "train[4]", "train[6]"), (0, 0, 0)),
        DuplicateGroup(2, ("train[1]", "train[3]"), (0, 0)),
        DuplicateGroup(2, ("train[2]", "train[5]"), (0, 0)),
    )


def test_nothing_at_all() -> None:
    found = find([])
    assert not found
    assert found.copies == {"train": 0}
    assert not find([(1, 0, False), (1, 0, False)])


def test_equal_pixels_of_another_shape_are_another_picture() -> None:
    wide, tall = (np.zeros(shape, dtype=np.uint8) for shape in ((2, 3, 1), (3, 2, 1)))
    assert fingerprint(wide) != fingerprint(tall)
    assert fingerprint(wide) == fingerprint(wide.copy())
