"""The named sets: where they are looked for, and what is said when they are not there."""

from __future__ import annotations

import gzip
import struct
import urllib.request
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import pytest
from PIL import Image

from memfit.data.sets import named
from memfit.data.sets.named import NAMED_SETS
from memfit.data.sets.opening import open_dataset
from memfit.errors import DataError


def write_idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, count in (("train", 3), ("t10k", 2)):
        images = b"\0\0\x08\3" + struct.pack(">3I", count, 2, 2) + bytes(4 * count)
        labels = b"\0\0\x08\1" + struct.pack(">I", count) + bytes(range(count))
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "mnist"),
        ("mnist", "."),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_places_below_the_root(tmp_path: Path, name: str, folder: str) -> None:
    write_idx(tmp_path / "root" / folder)
    dataset = open_dataset(name, root=tmp_path / "root")
    assert {split: len(dataset[split]) for split in dataset.splits} == {"train": 3, "test": 2}
    assert dataset.classes == NAMED_SETS[name].classes
    assert dataset.name == name


def test_one_is_not_taken_for_the_other(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST/raw")
    with pytest.raises(DataError, match="Fashion-MNIST is not here"):
        open_dataset("fashion-mnist", root=tmp_path)


def test_the_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "data/mnist")
    assert len(open_dataset("mnist")) == 5


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_an_image_folder_of_the_set(tmp_path: Path, below: str) -> None:
    for split in ("train", "test"):
        for number in range(10):
            path = tmp_path / below / split / f"class{number}" / "1.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(path)
    assert len(open_dataset("cifar10", root=tmp_path)) == 20
    if not below:
        with pytest.raises(DataError, match="has 10 classes; CIFAR-100 has 100"):
            open_dataset("cifar100", root=tmp_path)


@pytest.mark.parametrize("name", sorted(NAMED_SETS))
def test_a_missing_set(tmp_path: Path, name: str) -> None:
    known = NAMED_SETS[name]
    with pytest.raises(DataError) as caught:
        open_dataset(name, root=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{known.title} is not here; looked in ")
    for word in (str(tmp_path / known.folders[0]), "--download", "--root", known.page):
        assert word in message
    assert "ROOT" not in message


@pytest.mark.parametrize("file", ["t10k-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz"])
def test_a_part_is_not_taken_for_the_whole(tmp_path: Path, file: str) -> None:
    write_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / file).unlink()
    if "images" in file:
        (tmp_path / "mnist" / file.replace("images-idx3", "labels-idx1")).unlink()
    with pytest.raises(DataError, match=r"MNIST is incomplete in .*mnist, and not elsewhere"):
        open_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize("name", sorted(NAMED_SETS))
def test_download_without_network(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        open_dataset(name, root=tmp_path, download=True)
    message = str(caught.value)
    assert "name resolution" in message
    assert "By hand: put" in message
    assert NAMED_SETS[name].page in message
    assert str(tmp_path) in message
    assert not capsys.readouterr().out


def test_what_was_downloaded_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(known: named.NamedSet, root: Path) -> None:
        write_idx(root / known.folders[0])

    monkeypatch.setattr(named, "_download", download)
    assert len(open_dataset("mnist", root=tmp_path, download=True)) == 5

    def again(known: named.NamedSet, root: Path) -> NoReturn:
        raise AssertionError("it is already there")

    monkeypatch.setattr(named, "_download", again)
    assert len(open_dataset("mnist", root=tmp_path, download=True)) == 5


def test_a_download_that_brings_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "_download", lambda known, root: None)
    with pytest.raises(DataError, match="was downloaded, but is still not here"):
        open_dataset("mnist", root=tmp_path, download=True)
