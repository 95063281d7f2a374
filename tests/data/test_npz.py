"""NumPy archives under the names people use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memfit.data.sets.opening import open_dataset
from memfit.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9, 8), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 8, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("train", "labels", "test", "test_labels"),
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_splits(tmp_path: Path, train: str, labels: str, test: str, test_labels: str) -> None:
    arrays = {train: GREY, labels: LABELS, test: GREY[:2], test_labels: LABELS[:2, None]}
    dataset = open_dataset(save(tmp_path, **arrays))
    assert list(dataset.splits) == ["train", "test"]
    np.testing.assert_array_equal(dataset["train"].pixels(4)[..., 0], GREY[4])
    assert dataset["test"].label(1) == 1
    assert dataset.classes == ("0", "1", "2")


def test_val_comes_between(tmp_path: Path) -> None:
    arrays = {f"{s}_{w}": v for s in ("test", "val", "train") for w, v in
              (("images", COLOUR), ("labels", LABELS))}  # fmt: skip
    assert list(open_dataset(save(tmp_path, **arrays)).splits) == ["train", "val", "test"]


@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"), ("Images", "Labels")],
)
def test_one_split(tmp_path: Path, names: tuple[str, str]) -> None:
    dataset = open_dataset(save(tmp_path, **dict(zip(names, (COLOUR, LABELS), strict=True))))
    assert list(dataset.splits) == ["all"]
    np.testing.assert_array_equal(dataset["all"].pixels(3), COLOUR[3])


def test_a_single_array(tmp_path: Path) -> None:
    dataset = open_dataset(save(tmp_path, whatever=GREY))
    assert dataset["all"].labels is None
    assert len(dataset) == 6


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first(tmp_path: Path, channels: int) -> None:
    images = RNG.integers(0, 256, (4, channels, 9, 8), np.uint8)
    dataset = open_dataset(save(tmp_path, images=images))
    np.testing.assert_array_equal(dataset["all"].pixels(2), images[2].transpose(1, 2, 0))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, images=np.array([{"a": 1}, print], dtype=object))
    with pytest.raises(DataError, match="contains pickled objects"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY, "labels": LABELS[:5]}, "6 images and labels of shape"),
        ({"images": GREY, "labels": LABELS - 1}, "labels from -1 to 1"),
        ({"images": GREY, "labels": LABELS * 10**8}, "class numbers are from 0"),
        ({"images": GREY, "labels": LABELS + 0.5}, "labels have fractions"),
        ({"images": GREY, "labels": np.eye(6)}, r"labels of shape \(6, 6\)"),
        ({"images": GREY, "labels": LABELS.astype(str)}, "labels are <U21, not class numbers"),
        ({"features": GREY, "kind": LABELS}, r"no images among its arrays \(features, kind\)"),
        ({"images": GREY.reshape(6, -1)}, r"have shape \(6, 72\)"),
        ({"images": GREY.astype(str)}, "not uint8"),
        ({"images": GREY[:0]}, "images is empty"),
        ({"images": COLOUR[0]}, "one colour image, or many grey ones"),
        ({}, r"no images among its arrays \(none\)"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=rf"set\.npz.*{message}"):
        open_dataset(save(tmp_path, **arrays))


def test_damaged_archives(tmp_path: Path) -> None:
    path = save(tmp_path, images=GREY)
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        b"", b"text", content[:middle], content[:middle] + bytes(50) + content[middle + 50 :],
    ):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"set\.npz cannot be read as a NumPy archive"):
            open_dataset(path)
