"""IDX files: what is read, and what is refused with the file's name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from memfit.data.sets.idx import read_idx
from memfit.data.sets.opening import open_dataset
from memfit.errors import DataError

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def idx_bytes(values: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.tobytes()
    )


def write_pair(folder: Path, split: str, count: int, *, compress: bool = False) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count).integers(0, 256, (count, 5, 4), np.uint8)
    labels = (np.arange(count) % 3).astype(np.uint8)
    for what, values in (("images-idx3", images), ("labels-idx1", labels)):
        path = folder / f"{split}-{what}-ubyte{'.gz' if compress else ''}"
        content = idx_bytes(values)
        path.write_bytes(gzip.compress(content) if compress else content)
    return images


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
def test_pairs_are_found_and_read(tmp_path: Path, below: str, compress: bool) -> None:
    train = write_pair(tmp_path / below, "train", 7, compress=compress)
    test = write_pair(tmp_path / below, "t10k", 4, compress=compress)
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "test"]
    np.testing.assert_array_equal(
        np.stack([dataset["train"].pixels(i)[..., 0] for i in range(7)]), train
    )
    np.testing.assert_array_equal(dataset["test"].pixels(3)[..., 0], test[3])
    assert dataset.classes == ("0", "1", "2")
    assert dataset["train"].label(5) == 2
    sizes = sum(path.stat().st_size for path in (tmp_path / below).iterdir())
    assert dataset.bytes_on_disk == sizes


def test_a_sample_is_a_tensor_one_may_write_to(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 3)
    image, label = open_dataset(tmp_path)["train"][1]
    image += 1
    assert tuple(image.shape) == (1, 5, 4)
    assert label == 1


def test_the_same_values_as_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets.mnist import read_image_file

    write_pair(tmp_path, "train", 7)
    path = tmp_path / "train-images-idx3-ubyte"
    np.testing.assert_array_equal(read_idx(path, 3), read_image_file(str(path)).numpy())


def test_a_file_given_directly_brings_its_labels(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 7)
    write_pair(tmp_path, "t10k", 4)
    dataset = open_dataset(tmp_path / "t10k-images-idx3-ubyte")
    assert list(dataset.splits) == ["test"]
    assert dataset["test"].label(2) == 2


def test_images_without_labels(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 7)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    dataset = open_dataset(tmp_path)
    assert dataset["train"].labels is None
    assert dataset.classes == ()


def test_labels_given_directly_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 7)
    with pytest.raises(DataError, match=r"labels-idx1-ubyte holds labels"):
        open_dataset(tmp_path / "train-labels-idx1-ubyte")


def test_two_sets_below_one_folder_are_not_mixed(tmp_path: Path) -> None:
    write_pair(tmp_path / "MNIST/raw", "train", 7)
    write_pair(tmp_path / "FashionMNIST/raw", "train", 7)
    with pytest.raises(DataError, match="holds several sets: MNIST/raw, FashionMNIST/raw"):
        open_dataset(tmp_path)


def test_emnist_names(tmp_path: Path) -> None:
    write_pair(tmp_path, "emnist-letters-train", 7)
    write_pair(tmp_path, "emnist-letters-test", 4)
    assert list(open_dataset(tmp_path).splits) == ["train", "test"]
    write_pair(tmp_path, "emnist-digits-train", 7)
    with pytest.raises(DataError, match="several sets: 'emnist-digits-', 'emnist-letters-'"):
        open_dataset(tmp_path)


GOOD = idx_bytes(np.arange(40, dtype=np.uint8).reshape(2, 5, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file: it begins with nothing"),
        (b"\x89PNG" + GOOD[4:], "is not an IDX file: it begins with 89504e47"),
        (b"\0\0\x0d\3" + GOOD[4:], "holds float32; unsigned bytes are needed"),
        (b"\0\0\x08\1" + GOOD[4:], "has 1 dimensions; 3 are needed"),
        (GOOD[:9], "ends within its header"),
        (GOOD[:-1], "39 bytes instead of the 40 of its shape"),
        (GOOD + b"x", "more bytes than the 40 of its shape"),
        (b"\0\0\x08\3" + b"\xff" * 12, "shorter than its header says"),
        (b"\0\0\x08\3" + struct.pack(">3I", 0, 5, 4), "is empty"),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_damaged_files(tmp_path: Path, content: bytes, message: str, compress: bool) -> None:
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if compress else ''}"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte.*{message}"):
        open_dataset(path)


def test_corrupt_gzip(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    packed = gzip.compress(GOOD)
    for content, message in (
        (packed[:-12], "truncated"),
        (packed[:-8] + bytes(4) + packed[-4:], "corrupt"),  # the sum is wrong
        (b"not gzip at all", "corrupt"),
        (packed[:12] + b"\xff\xff\xff\xff" + packed[16:], "corrupt"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"ubyte.gz: the gzip file is {message}"):
            open_dataset(path)


def test_labels_that_do_not_match(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 7)
    labels = np.zeros(6, np.uint8)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match=r"has 7 images, but .*labels-idx1-ubyte has 6 labels"):
        open_dataset(tmp_path)


def test_labels_beyond_the_classes(tmp_path: Path) -> None:
    for split in ("train", "t10k"):
        write_pair(tmp_path / "mnist", split, 7)
    labels = np.full(7, 10, np.uint8)
    (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match=r"a label is 10, but there are 10 classes"):
        open_dataset("mnist", root=tmp_path)


def test_labels_without_images(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 7)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="labels-idx1-ubyte has no file with images"):
        open_dataset(tmp_path)


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not in ../shared/data")
def test_mnist_itself() -> None:
    dataset = open_dataset("mnist", root=MNIST.parent)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 60_000,
        "test": 10_000,
    }
    # The first digits of MNIST are 5, 0, 4, 1, 9; those of its test set 7, 2, 1, 0, 4.
    assert [dataset["train"].label(i) for i in range(5)] == [5, 0, 4, 1, 9]
    assert [dataset["test"].label(i) for i in range(5)] == [7, 2, 1, 0, 4]
    mean = np.mean([dataset["test"].pixels(i).mean() for i in range(200)]) / 255
    assert 0.11 < mean < 0.15
