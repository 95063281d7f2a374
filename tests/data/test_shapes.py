"""The generated set: the same everywhere, balanced, learnable in kind."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.data.sets.opening import open_dataset
from memfit.data.sets.shape_outlines import OUTLINES, outline
from memfit.data.sets.shapes import ShapesOptions, generate, parse_shapes
from memfit.errors import UnknownName, UsageError


def test_defaults() -> None:
    dataset = open_dataset("shapes")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 4000,
        "test": 1000,
    }
    assert dataset["train"].pixels(0).shape == (32, 32, 3)
    assert dataset.classes == tuple(OUTLINES)[:8]
    assert dataset["test"].labels is not None
    assert np.bincount(dataset["train"].labels).tolist() == [500] * 8
    assert np.bincount(dataset["test"].labels).tolist() == [125] * 8


def test_the_same_on_every_machine() -> None:
    """Recorded once; only arithmetic and square roots are used, so it holds everywhere."""
    images, labels = generate(ShapesOptions(classes=len(OUTLINES)), "train", 0, 48)
    assert labels[:12].tolist() == LABELS
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == HASH


LABELS = [0, 2, 11, 9, 1, 8, 5, 4, 3, 10, 6, 7]
HASH = "17586e317f67d54c"


@given(
    first=st.integers(0, 300), count=st.integers(1, 40), classes=st.integers(2, 12),
    split=st.sampled_from(["train", "test"]), seed=st.integers(0, 2**63 - 1),
)  # fmt: skip
def test_a_sample_depends_only_on_its_number(
    first: int, count: int, classes: int, split: str, seed: int
) -> None:
    options = ShapesOptions(size=8, classes=classes, seed=seed)
    images, labels = generate(options, split, first, count)
    for index in {0, count // 2, count - 1}:
        image, label = generate(options, split, first + index, 1)
        np.testing.assert_array_equal(image[0], images[index])
        assert label[0] == labels[index]


def test_chunks_do_not_show() -> None:
    options = ShapesOptions(size=256)  # four images to a chunk
    together, _ = generate(options, "test", 0, 10)
    apart = np.concatenate([generate(options, "test", i, 5)[0] for i in (0, 5)])
    np.testing.assert_array_equal(together, apart)


def test_seeds_and_splits_differ() -> None:
    def sample(split: str = "train", **options: int) -> bytes:
        return generate(ShapesOptions(**options), split, 0, 4)[0].tobytes()

    assert len({sample(), sample("test"), sample(seed=1)}) == 3
    train, _ = generate(ShapesOptions(), "train", 0, 4000)
    test, _ = generate(ShapesOptions(), "test", 0, 1000)
    hashes = {image.tobytes() for image in (*train, *test)}
    assert len(hashes) == 5000


@given(classes=st.integers(2, 12), train=st.integers(1, 100))
def test_classes_have_equal_shares(classes: int, train: int) -> None:
    _, labels = generate(ShapesOptions(size=8, classes=classes), "train", 0, train)
    counts = np.bincount(labels, minlength=classes)
    assert counts.max() - counts.min() <= 1


def test_grey() -> None:
    dataset = open_dataset("shapes,channels=1,size=48,train=20,test=5")
    assert dataset["train"].pixels(0).shape == (48, 48, 1)


def test_grey_is_the_same_scene_as_colour() -> None:
    """But for noise: the luma of the one is near to the other."""
    colour, labels = generate(ShapesOptions(), "train", 0, 50)
    grey, same = generate(ShapesOptions(channels=1), "train", 0, 50)
    np.testing.assert_array_equal(labels, same)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - grey).mean() < 20


@pytest.mark.parametrize("name", OUTLINES)
def test_outlines_fill_a_fair_part_and_stay_within_reach(name: str) -> None:
    steps = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    x, y = np.meshgrid(steps, steps)
    label = np.array([list(OUTLINES).index(name)])
    inside = outline(label, x[None], y[None])[0] < 0
    assert np.hypot(x[inside], y[inside]).max() <= 1.12
    area = inside.mean() * 9  # of the circle with radius 1: 3.14
    assert 0.8 < area < 2.8


def test_the_shape_stands_out() -> None:
    """Its middle differs from the corners: brighter as often as darker."""
    options = ShapesOptions(classes=2, channels=1)  # circles and squares have a filled middle
    images, _ = generate(options, "train", 0, 400)
    spread = images.reshape(400, -1).astype(float).std(axis=1)
    assert spread.min() > 12
    assert 80 < images.mean() < 175


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shapes,size=7", "size is 7; it goes from 8 to 512"),
        ("shapes,size=1000", "size is 1000"),
        ("shapes,channels=2", r"channels is 2; it must be 1 \(grey\) or 3 \(RGB\)"),
        ("shapes,classes=1", "classes is 1; it goes from 2 to 12"),
        ("shapes,classes=13", "classes is 13"),
        ("shapes,train=0", "train is 0"),
        ("shapes,seed=-1", "seed is -1"),
        ("shapes,size=big", "size is 'big'; it must be a whole number"),
        ("shapes,size=32.5", "size is 32.5; it must be a whole number"),
        ("shapes,size", "'size' is no option"),
        ("shapes,size=512,train=1000000", "at most 4.00 GiB are generated"),
    ],
)
def test_options_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(text)


def test_an_unknown_option() -> None:
    with pytest.raises(UnknownName, match=r"Unknown option of shapes: 'sise'\.\n.*size"):
        parse_shapes("shapes,sise=3")
