"""CIFAR's pickles: read exactly, and nothing but plain arrays."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.data.sets.cifar import load_plain_pickle
from memfit.data.sets.opening import open_dataset
from memfit.errors import DataError

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def dump(path: Path, content: Any, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def write_cifar10(folder: Path, protocol: int = 2) -> np.ndarray:
    for number in range(1, 6):
        batch = {b"data": rows(4, number), b"labels": [0, 1, 2, 9], b"batch_label": b"some"}
        dump(folder / f"data_batch_{number}", batch, protocol)
    dump(folder / "test_batch", {b"data": rows(3, 9), b"labels": [3, 4, 5]}, protocol)
    dump(folder / "batches.meta", {b"label_names": [n.encode() for n in NAMES10]}, protocol)
    return np.concatenate([rows(4, number) for number in range(1, 6)])


@pytest.mark.parametrize("protocol", range(6))
def test_cifar10(tmp_path: Path, protocol: int) -> None:
    data = write_cifar10(tmp_path / "cifar-10-batches-py", protocol)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == tuple(NAMES10)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 20, "test": 3}
    for index in (0, 7, 19):
        red, green, blue = data[index].reshape(3, 32, 32)
        np.testing.assert_array_equal(
            dataset["train"].pixels(index), np.stack([red, green, blue], axis=-1)
        )
    assert dataset["test"].label(1) == 4
    assert len(open_dataset(tmp_path / "cifar-10-batches-py")) == 23


def test_python_2_wrote_text_keys_as_bytes(tmp_path: Path) -> None:
    # {'data': 'x'} in protocol 0 of Python 2: its strings are bytes here.
    assert load_plain_pickle(b"(dp0\nS'data'\np1\nS'\\xff'\np2\ns.", "f") == {b"data": b"\xff"}


def write_cifar100(folder: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        batch = {
            b"data": rows(count, count),
            b"fine_labels": [99] * count,
            b"coarse_labels": [1] * count,
        }
        dump(folder / split, batch)
    dump(folder / "meta", {b"fine_label_names": [f"c{n}".encode() for n in range(100)]})


def test_cifar100(tmp_path: Path) -> None:
    write_cifar100(tmp_path / "cifar-100-python")
    dataset = open_dataset("cifar100", root=tmp_path)
    assert dataset.classes[dataset["train"].label(0)] == "c99"


def test_both_in_one_folder(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    write_cifar100(tmp_path / "cifar-100-python")
    with pytest.raises(DataError, match="several sets: cifar10, cifar100"):
        open_dataset(tmp_path)
    assert len(open_dataset("cifar10", root=tmp_path)) == 23
    assert len(open_dataset("cifar100", root=tmp_path)) == 7


def test_archive(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    dataset = open_dataset(path)
    assert dataset.classes == tuple(NAMES10)
    assert len(dataset) == 23
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="the archive is damaged"):
        open_dataset(path)


def test_another_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("photos/1.jpg"), io.BytesIO())
    assert open_dataset(path).layout == "flat folder in a tar"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/memfit-was-here",))


class Builtin:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1 + 1",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("content", "named"),
    [(Evil(), r"(posix|nt)\.system"), (Builtin(), r"(__builtin__|builtins)\.eval")],
)
def test_a_pickle_with_code_is_refused(
    tmp_path: Path, content: object, named: str, protocol: int
) -> None:
    write_cifar10(tmp_path)
    dump(tmp_path / "data_batch_3", {b"data": rows(4, 3), b"labels": content}, protocol)
    with pytest.raises(DataError, match=rf"data_batch_3 is refused: it names {named}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "load"), ("numpy", "save"), ("builtins", "getattr"), ("builtins", "object"),
        ("numpy.core.multiarray", "scalar"), ("numpy", "ndarray.tofile"),
    ],
)  # fmt: skip
def test_other_names_are_refused(module: str, name: str) -> None:
    for content in (
        f"c{module}\n{name}\n.".encode(),
        b"\x80\x04" + b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c"
        + bytes([len(name)]) + name.encode() + b"\x93.",
    ):  # fmt: skip
        with pytest.raises(DataError, match="is refused: it names"):
            load_plain_pickle(content, "file")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"data": rows(4, 1), b"labels": [1, 2]}, "4 images, but 2 labels"),
        ({b"data": rows(4, 1)}, "no list of labels"),
        (
            {b"data": rows(4, 1), b"labels": [0, 1, 2, 10]},
            "a label is 10, but there are 10 classes",
        ),
        ({b"data": rows(4, 1), b"labels": [0, 1, 2, -1]}, "labels from -1"),
        ({b"data": rows(4, 1), b"labels": [0, 1, 2, "cat"]}, "no list of labels"),
        ({b"labels": [0]}, "no array 'data'"),
        ({b"data": rows(4, 1)[:, :100].copy(), b"labels": [0] * 4}, r"not uint8 \(N, 3072\)"),
        ({b"data": rows(4, 1).astype(object), b"labels": [0] * 4}, "other than plain numbers"),
        ({b"data": rows(4, 1) / 255, b"labels": [0] * 4}, "other than plain numbers"),
        ([1, 2], "holds list, not the dictionary"),
    ],
)
def test_batches_that_are_wrong(tmp_path: Path, batch: object, message: str) -> None:
    write_cifar10(tmp_path)
    dump(tmp_path / "data_batch_2", batch)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


def test_an_array_whose_bytes_are_missing_is_refused(tmp_path: Path) -> None:
    class Short:
        def __reduce__(self) -> tuple[Any, ...]:
            make, arguments, state = rows(4, 1).__reduce__()
            return make, arguments, (*state[:4], state[4][:-1])

    write_cifar10(tmp_path)
    dump(tmp_path / "data_batch_2", {b"data": Short(), b"labels": [0] * 4})
    with pytest.raises(DataError, match="data_batch_2: a damaged array"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02}q\x00(U\x04data", b"\x80\x09."])
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch: a damaged pickle"):
        open_dataset(tmp_path)


def test_a_missing_batch_is_not_passed_over(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4 is missing"):
        open_dataset(tmp_path)
