"""Folders of images: classes, splits, and everything that may lie about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from memfit.data.samples.dataset import Dataset, FileSplit
from memfit.data.sets.opening import open_dataset
from memfit.errors import DataError


def put(root: Path, *names: str) -> None:
    """Images of 4x3 pixels; the classes' files need not be told apart."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (200, 10, 20)).save(path, format="png")


def problems(dataset: Dataset) -> dict[str, str]:
    return {problem.name: problem.reason for problem in dataset.problems}


def names(dataset: Dataset, split: str) -> list[str]:
    return [dataset[split].sample_name(i) for i in range(len(dataset[split]))]


def test_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "dog/2.png", "dog/10.png", "cat/1.JPG", "cat/deeper/still/1.webp")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "class folders"
    assert dataset.classes == ("cat", "dog")
    assert names(dataset, "all") == [
        "cat/1.JPG",
        "cat/deeper/still/1.webp",
        "dog/10.png",
        "dog/2.png",
    ]
    assert [dataset["all"].label(i) for i in range(4)] == [0, 0, 1, 1]
    assert dataset["all"].pixels(3).shape == (3, 4, 3)
    assert not dataset.problems


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Train", "Valid", "TEST"), ("training", "validation", "testing")],
)
def test_split_folders(tmp_path: Path, train: str, val: str, test: str) -> None:
    put(tmp_path, f"{test}/b/1.png", f"{test}/a/1.png", f"{train}/a/1.png", f"{train}/b/1.png")
    put(tmp_path, f"{val}/a/1.png", f"{val}/b/1.png")
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert names(dataset, "test") == [f"{test}/a/1.png", f"{test}/b/1.png"]
    split = dataset["test"]
    assert isinstance(split, FileSplit)
    assert Path(split.path(1)).is_file()
    assert not dataset.problems


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    with pytest.raises(DataError, match="are both the split val"):
        open_dataset(tmp_path)


def test_a_class_called_test(tmp_path: Path) -> None:
    put(tmp_path, "exam/1.png", "test/1.png")
    assert open_dataset(tmp_path).classes == ("exam", "test")


def test_classes_are_the_same_in_all_splits(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/c/1.png", "test/b/1.png", "test/c/1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert [dataset["train"].label(i) for i in range(2)] == [0, 2]
    assert [dataset["test"].label(i) for i in range(2)] == [1, 2]
    assert problems(dataset) == {
        "train/b": "no image of this class in train",
        "test/a": "no image of this class in test",
    }


def test_a_class_without_images(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/c/1.png")
    (tmp_path / "train/b").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert dataset["train"].label(1) == 2
    assert problems(dataset) == {"train/b": "class without images"}


def test_test_images_without_labels(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png")
    dataset = open_dataset(tmp_path)
    assert dataset["test"].labels is None
    assert problems(dataset) == {"test": "no class folders, so no labels"}


def test_the_folder_around_an_extracted_archive(tmp_path: Path) -> None:
    put(tmp_path, "photos/train/a/1.png", "photos/train/b/1.png", "photos/test/a/1.png")
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "test"]
    assert dataset.classes == ("a", "b")
    assert dataset["train"].pixels(1).shape == (3, 4, 3)


def test_the_same_samples_as_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    put(tmp_path, "b/2.png", "b/1.jpg", "B/x.png", "a/z/1.png", "a/c.png", "a/z/y/0.jpg", "é/1.png")
    theirs = ImageFolder(str(tmp_path))
    dataset = open_dataset(tmp_path)
    samples = [
        (str(tmp_path / dataset["all"].sample_name(i)), dataset["all"].label(i))
        for i in range(len(dataset))
    ]
    assert samples == theirs.samples
    assert list(dataset.classes) == theirs.classes


def test_a_flat_folder(tmp_path: Path) -> None:
    put(tmp_path, "2.png", "1.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.classes) == ("flat folder", ())
    assert names(dataset, "all") == ["1.png", "2.png"]
    assert dataset["all"].label(0) == -1


def test_flat_split_folders(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "test/2.png")
    dataset = open_dataset(tmp_path)
    assert names(dataset, "test") == ["test/2.png"]
    assert dataset.layout == "flat folder in split folders"


def test_a_single_image(tmp_path: Path) -> None:
    put(tmp_path, "one.png")
    dataset = open_dataset(tmp_path / "one.png")
    assert names(dataset, "all") == ["one.png"]
    assert dataset["all"].pixels(0)[0, 0].tolist() == [200, 10, 20]


def test_other_files_are_counted_by_ending(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png", "4.png")
    for name in ("a/x.txt", "b/y.TXT", "a/README", "a/.DS_Store", "b/Thumbs.db", "b/z.pdf"):
        (tmp_path / name).write_text("no image")
    assert problems(open_dataset(tmp_path)) == {
        ".": "1 image outside of the class folders: not read",
        "*": "1 file without an ending: no image",
        "*.pdf": "1 file with .pdf: no image",
        "*.txt": "2 files with .txt: no image (boxes, as of YOLO, or lists of files?)",
        ".*": "2 files hidden: not read",
    }


def test_what_lies_beside_split_folders(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "extra/a/1.png", "cover.png")
    assert problems(open_dataset(tmp_path)) == {
        "extra": "beside the split folders: not read",
        ".": "1 image beside the split folders: not read",
    }


def test_an_empty_split_folder(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png")
    (tmp_path / "test").mkdir()
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train"]
    assert problems(dataset) == {"test": "no images"}


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No images in .*: it is empty"):
        open_dataset(tmp_path)


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("")
    with pytest.raises(DataError, match=r"a: class without images; \*\.txt: 1 file with \.txt"):
        open_dataset(tmp_path)


def test_a_table_in_the_folder_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(DataError, match=r"To open labels\.csv, name that file"):
        open_dataset(tmp_path)


def test_symlink_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b/self").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b/nowhere.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b/ouroboros.png").symlink_to(tmp_path / "b/ouroboros.png")
    dataset = open_dataset(tmp_path)
    assert names(dataset, "all") == ["a/1.png", "b/1.png"]
    found = problems(dataset)
    assert set(found) == {"a/up", "b/nowhere.png", "b/ouroboros.png", "b/self"}
    assert "already read" in found["a/up"]
    assert "already read" in found["b/self"]
    assert "broken link" in found["b/nowhere.png"]


def test_many_links_to_each_other_end(tmp_path: Path) -> None:
    """Two links in each of 40 folders to the next one: 2**40 ways through them."""
    put(tmp_path, "a/1.png")
    for level in range(40):
        (tmp_path / f".level{level}").mkdir()
    for level in range(39):
        for name in ("x", "y"):
            (tmp_path / f".level{level}" / name).symlink_to(tmp_path / f".level{level + 1}")
    put(tmp_path, ".level30/2.png")
    (tmp_path / "a/in").symlink_to(tmp_path / ".level0")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 2


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "store", "x/1.png")
    root = tmp_path / "set"
    put(root, "a/1.png")
    (root / "b").symlink_to(tmp_path / "store/x", target_is_directory=True)
    dataset = open_dataset(root)
    assert names(dataset, "all") == ["a/1.png", "b/1.png"]
    assert not dataset.problems


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a/2.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert problems(dataset) == {"a/2.png": "a broken link, or no regular file"}


def test_unreadable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def guarded(path: bytes) -> object:  # permissions do not stop root
        if os.fsencode(path).endswith(b"/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    assert [(p.name, p.reason) for p in dataset.problems] == [
        ("b", "Permission denied"),
        ("b", "class without images"),
    ]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    put(tmp_path, "a/1.png")
    put(folder, os.fsdecode(b"\xff\xfe.png"))
    (folder / os.fsdecode(b"x.\xff")).touch()
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", r"caf\xe9")
    assert names(dataset, "all") == ["a/1.png", r"caf\xe9/\xff\xfe.png"]
    assert dataset["all"].pixels(1).shape == (3, 4, 3)
    assert problems(dataset) == {r"*.\xff": r"1 file with .\xff: no image"}
    assert open_dataset(folder).name.endswith(r"caf\xe9")


def test_a_deep_folder(tmp_path: Path) -> None:
    deep = tmp_path / "a"
    for _ in range(300):
        deep /= "d"
    deep.mkdir(parents=True)
    put(deep, "1.png")
    assert len(open_dataset(tmp_path)) == 1
