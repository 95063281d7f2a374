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
        ({"images": GREY, "labels": LABELS * 10**8}, "class numbers are from 0"),
        ({"kind": LABELS, "number": LABELS}, r"no images among its arrays \(kind \(6,\), number"),
        ({"images": GREY.reshape(6, -1)}, "72 pixels in a row are no square image"),
        ({"images": GREY, "labels": LABELS.astype("datetime64[D]")}, "says nothing of images"),
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


ONE_HOT = np.eye(3)[[0, 1, 2, 0, 1, 2]]
SEVERAL = np.array([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0]])


@pytest.mark.parametrize(
    ("labels", "task", "classes", "given"),
    [
        (LABELS, "classes", ("0", "1", "2"), LABELS),
        (ONE_HOT, "classes", ("0", "1", "2"), LABELS),
        (np.array(list("cabcab")), "classes", ("a", "b", "c"), [2, 0, 1, 2, 0, 1]),
        (LABELS + 0.5, "values", (), LABELS + 0.5),
        (LABELS - 1, "values", (), LABELS - 1),
        (SEVERAL, "labels", ("0", "1"), SEVERAL),
        (SEVERAL * 1.5, "values", (), SEVERAL * 1.5),
    ],
)
@pytest.mark.parametrize("names", [("arr_0", "arr_1"), ("X", "Y"), ("images", "targets"),
                                   ("something", "else")])  # fmt: skip
def test_what_arrays_ask_for(
    tmp_path: Path,
    names: tuple[str, str],
    labels: np.ndarray,
    task: str,
    classes: tuple[str, ...],
    given: np.ndarray,
) -> None:
    dataset = open_dataset(save(tmp_path, **dict(zip(names, (GREY, labels), strict=True))))
    assert (dataset.task, dataset.classes, len(dataset)) == (task, classes, 6)
    found = dataset.train.labels if task == "classes" else dataset.train.targets
    np.testing.assert_array_equal(found, given)


def test_two_pairs_without_names(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, GREY, LABELS, GREY[:2], LABELS[:2])
    assert {name: len(split) for name, split in open_dataset(path).splits.items()} == {
        "train": 6, "test": 2,
    }  # fmt: skip


def test_arrays_of_masks(tmp_path: Path) -> None:
    masks = (GREY > 128).astype(np.int64) * 2
    dataset = open_dataset(save(tmp_path, arr_0=np.stack([GREY] * 3, axis=-1), arr_1=masks))
    assert (dataset.task, dataset.classes) == ("masks", ("0", "2"))
    np.testing.assert_array_equal(dataset.train.target(3), masks[3] // 2)


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.uint16])
def test_bytes_in_a_wider_type(tmp_path: Path, kind: type) -> None:
    dataset = open_dataset(save(tmp_path, images=GREY.astype(kind), labels=LABELS))
    np.testing.assert_array_equal(dataset.train.pixels(1)[..., 0], GREY[1])


@pytest.mark.parametrize("order", ["channels last", "channels first"])
def test_rows_of_colour(tmp_path: Path, order: str) -> None:
    """A smooth picture, so that neighbours are alike."""
    rows = np.arange(16)[:, None, None] * 8 + np.arange(16)[None, :, None] + np.array([0, 60, 99])
    images = np.stack([rows, rows + 1]).astype(np.uint8)
    flat = images if order == "channels last" else images.transpose(0, 3, 1, 2)
    dataset = open_dataset(save(tmp_path, x=flat.reshape(2, -1), y=np.array([0, 1])))
    np.testing.assert_array_equal(dataset.train.pixels(1), images[1])
