"""What is no class is not made one: masks, values and several labels are seen as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import memfit
from memfit.data.facts.inspection import inspect_source
from memfit.data.samples.dataset import Dataset
from memfit.data.samples.masks import IGNORED
from memfit.data.sets.opening import open_dataset
from memfit.errors import BadImage, DataError

RANDOM = np.random.default_rng(13)


def photo(path: Path, size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)


def mask(path: Path, *values: int, size: tuple[int, int] = (32, 32), mode: str = "L") -> None:
    """An image in which every one of the values occurs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.asarray(values, np.uint8), size[::-1])
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.frombytes("P", size, pixels.tobytes())
        image.putpalette(list(range(256)) * 3)
    image.convert(mode).save(path)


def described(dataset: Dataset) -> tuple[object, ...]:
    return (
        dataset.task,
        dataset.classes,
        {name: len(split) for name, split in dataset.splits.items()},
    )


@pytest.mark.parametrize(
    ("image_at", "mask_at"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("{}.png", "{}_mask.png"),
        ("Original/{}.tif", "Ground Truth/{}.tif"),
        ("patient 1/{}.tif", "patient 1/{}_mask.tif"),
        ("imagesTr/{}.png", "labelsTr/{}.png"),
        ("a/{}.png", "b/{}.png"),
    ],
)
def test_images_beside_masks(tmp_path: Path, image_at: str, mask_at: str) -> None:
    for name in range(4):
        photo(tmp_path / image_at.format(name))
        mask(tmp_path / mask_at.format(name), 0, 1, 2)
    dataset = open_dataset(tmp_path)
    assert dataset.task == "masks"
    assert dataset.classes == ("0", "1", "2")
    assert len(dataset) == 4
    assert dataset.train.labels is None
    for index in range(4):
        assert "mask" not in dataset.train.sample_name(index)
        image, target = dataset.train[index]
        assert image.shape == (3, 32, 32)
        assert target.shape == (32, 32)
        assert str(target.dtype) == "torch.int64"
        assert target.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{split}/images/{n}.jpg", "{split}/masks/{n}.png"),
        ("images/{split}/{n}.jpg", "annotations/{split}/{n}.png"),
        ("{split}/{n}.jpg", "{split}_masks/{n}_mask.gif"),
        ("leftImg8bit/{split}/city/{n}_leftImg8bit.png",
         "gtFine/{split}/city/{n}_gtFine_labelIds.png"),
        ("{split}/{n}.png", "{split}annot/{n}.png"),
        ("{split}/{n}.png", "{split}_labels/{n}_L.png"),
        ("{split}/Urban/images_png/{n}.png", "{split}/Urban/masks_png/{n}.png"),
        ("{split}/photos/{n}.png", "{split}/photos_masks/{n}.png"),
    ],
)  # fmt: skip
def test_masks_in_splits(tmp_path: Path, images: str, masks: str) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for n in range(count):
            photo(tmp_path / images.format(split=split, n=n))
            mask(tmp_path / masks.format(split=split, n=n), 0, 255)
    assert described(open_dataset(tmp_path)) == ("masks", ("0", "255"), {"train": 3, "val": 2})


def test_images_without_a_mask(tmp_path: Path) -> None:
    for n in range(3):
        photo(tmp_path / f"train/images/{n}.jpg")
        photo(tmp_path / f"test/images/{n}.jpg")
    for n in range(2):
        mask(tmp_path / f"train/masks/{n}.png", 0, 1)
    dataset = open_dataset(tmp_path)
    assert described(dataset) == ("masks", ("0", "1"), {"train": 2, "test": 3})
    assert not dataset["test"].is_labelled
    (problem,) = dataset.problems
    assert problem.reason == "1 image has no mask, such as train/images/2.jpg: not read"


def test_values_of_masks(tmp_path: Path) -> None:
    """What VOC and the pets have: a palette with void, and numbers from 1."""
    for n, values in enumerate([(0, 15, 255), (0, 7), (7, 15)]):
        photo(tmp_path / f"voc/images/{n}.jpg")
        mask(tmp_path / f"voc/masks/{n}.png", *values, mode="P")
        photo(tmp_path / f"pets/images/{n}.jpg")
        mask(tmp_path / f"pets/annotations/trimaps/{n}.png", 1, 2, 3)
    voc, pets = open_dataset(tmp_path / "voc"), open_dataset(tmp_path / "pets")
    assert voc.classes == ("0", "7", "15")
    assert np.unique(voc.train.target(0)).tolist() == [IGNORED, 0, 2]
    assert np.unique(voc.train.target(2)).tolist() == [1, 2]
    assert np.unique(pets.train.target(0)).tolist() == [0, 1, 2]
    assert pets.classes == ("1", "2", "3")


def test_masks_in_colours(tmp_path: Path) -> None:
    photo(tmp_path / "images/1.jpg")
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = (255, 0, 128)
    (tmp_path / "masks").mkdir()
    Image.fromarray(pixels).save(tmp_path / "masks/1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("#000000", "#ff0080")
    assert dataset.train.target(0).sum() == 32 * 16


def test_masks_that_jpeg_blurred(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[20:44, 20:44] = 255
    for n in range(2):
        photo(tmp_path / f"images/{n}.jpg", (64, 64))
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(tmp_path / f"masks/{n}.jpg", quality=70)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("0", "255")
    wrong = (dataset.train.target(0) != (pixels > 0)).mean()
    assert wrong < 0.01


def test_what_is_wrong_with_masks(tmp_path: Path) -> None:
    photo(tmp_path / "depth/images/1.jpg", (400, 400))
    Image.fromarray(RANDOM.integers(0, 60_000, (400, 400), dtype=np.uint16)).save(
        (tmp_path / "depth/masks").mkdir() or tmp_path / "depth/masks/1.png"
    )
    with pytest.raises(DataError, match="more than 256 different values"):
        open_dataset(tmp_path / "depth")
    photo(tmp_path / "size/images/1.jpg")
    mask(tmp_path / "size/masks/1.png", 0, 1, size=(16, 8))
    with pytest.raises(BadImage, match="32 x 32 pixels, its mask 16 x 8"):
        open_dataset(tmp_path / "size").train.sample(0)
    (problem,) = inspect_source(tmp_path / "size").problems
    assert problem.reason == "its mask is 16 x 8 pixels, not 32 x 32"
    for n in range(2):
        photo(tmp_path / f"cells/{n}/images/{n}.png")
        mask(tmp_path / f"cells/{n}/masks/a{n}.png", 0, 255)
        mask(tmp_path / f"cells/{n}/masks/b{n}.png", 0, 255)
    with pytest.raises(DataError, match="several masks for an image"):
        open_dataset(tmp_path / "cells")
    photo(tmp_path / "two/images/1.jpg")
    mask(tmp_path / "two/masks/1.png", 0, 1)
    mask(tmp_path / "two/annotations/1.png", 0, 1)
    with pytest.raises(DataError, match="are both masks of"):
        open_dataset(tmp_path / "two")


def test_faces_with_masks_are_classes(tmp_path: Path) -> None:
    """A word in a name is not enough, and neither are equal names."""
    for n in range(4):
        for name in ("with_mask", "without_mask"):
            photo(tmp_path / "faces" / name / f"{n}.png")
        for name in ("mask", "no_mask"):
            photo(tmp_path / "same names" / name / f"{n}.png")
        for name in ("a", "b"):
            mask(tmp_path / "drawn" / name / f"{n}.png", 0, 255)
    for name in ("faces", "same names", "drawn"):
        assert open_dataset(tmp_path / name).task == "classes"


@pytest.mark.parametrize(
    ("image_at", "others", "classes", "splits", "word"),
    [
        ("{s}/images/{n}.jpg", "{s}/labels/{n}.txt", (), {"train": 2, "val": 2}, "YOLO"),
        ("images/{s}/{n}.jpg", "labels/{s}/{n}.txt", (), {"train": 2, "val": 2}, "YOLO"),
        ("{s}2017/{n}.jpg", "{s}2017/all.json", (), {"train": 2, "val": 2}, "COCO"),
        ("JPEGImages/{s}{n}.jpg", "Annotations/{s}{n}.xml", (), {"all": 4}, "Pascal VOC"),
        ("images/{s}/{n}.jpg", "table.csv", (), {"train": 2, "val": 2}, "name it to read it"),
        ("images/00{n}.Bird/{s}.jpg", "images.txt", ("000.Bird", "001.Bird"), {"all": 4}, "lists"),
        ("pets/pets/{n}/{s}.jpg", "readme.md", ("0", "1"), {"all": 4}, None),
    ],
)
def test_folders_that_are_no_classes(
    tmp_path: Path,
    image_at: str,
    others: str,
    classes: tuple[str, ...],
    splits: dict[str, int],
    word: str | None,
) -> None:
    for s in ("train", "val"):
        for n in range(2):
            photo(tmp_path / image_at.format(s=s, n=n))
            other = tmp_path / ("pets" if word is None else "") / others.format(s=s, n=n)
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_text("0 0.5 0.5 0.1 0.1")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == classes
    assert {name: len(split) for name, split in dataset.splits.items()} == splits
    assert word is None or any(word in problem.reason for problem in dataset.problems)


def test_what_is_in_a_split_only(tmp_path: Path) -> None:
    """Kaggle's ``test/test/1.jpg`` and ``test/unknown/1.jpg`` are no classes."""
    for name in ("train/a", "train/b", "test/unknown", "val/images"):
        photo(tmp_path / name / "1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    labelled = {name: split.is_labelled for name, split in dataset.splits.items()}
    assert labelled == {"train": True, "val": False, "test": False}


def test_folds_are_no_classes(tmp_path: Path) -> None:
    for fold in ("fold1", "fold2"):
        for name in "ab":
            photo(tmp_path / fold / name / "1.png")
    with pytest.raises(DataError, match="folds for cross-validation"):
        open_dataset(tmp_path)


def test_numbers_of_rows_are_no_answers(tmp_path: Path) -> None:
    path = table(tmp_path, "")
    path = path.with_name("images.txt")
    path.write_text("1 0.png\n2 1.png\n3 2.png\n")
    assert open_dataset(path).task is None
    path.write_text("1 0.png\n0 1.png\n1 2.png\n")
    assert open_dataset(path).classes == ("0", "1")


def test_a_class_for_each_row_is_doubted(tmp_path: Path) -> None:
    dataset = open_dataset(table(tmp_path, rows("path,label", *(f"w{n}" for n in range(30)))))
    assert "is it the right column?" in dataset.problems[0].reason


@pytest.mark.parametrize("names", [("HR", "LR"), ("trainA", "trainB"), ("noisy", "clean")])
def test_two_pictures_of_the_same_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        for n in range(2):
            photo(tmp_path / name / f"{n}.png")
    with pytest.raises(DataError, match="two pictures of the same things"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, task="classes").classes) == 2
    (tmp_path / names[0] / "0.png").rename(tmp_path / names[0] / "x.png")
    assert len(open_dataset(tmp_path).classes) == 2


def test_the_task_can_be_said(tmp_path: Path) -> None:
    for n in range(2):
        photo(tmp_path / f"images/{n}.jpg")
        mask(tmp_path / f"masks/{n}.png", 0, 1)
    assert open_dataset(tmp_path, task="classes").classes == ("images", "masks")
    with pytest.raises(DataError, match="no values were found"):
        open_dataset(tmp_path, task="values")
    with pytest.raises(DataError, match="has classes, not masks"):
        open_dataset("shapes,train=8,test=8", task="masks")


def table(folder: Path, text: str) -> Path:
    """A CSV beside images ``0.png`` to ``29.png``."""
    for n in range(30):
        if not (folder / f"{n}.png").exists():
            photo(folder / f"{n}.png", (4, 4))
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def rows(header: str, *cells: object) -> str:
    return header + "\n" + "".join(f"{n}.png,{cell}\n" for n, cell in enumerate(cells))


@pytest.mark.parametrize(
    ("text", "task", "classes", "value_names"),
    [
        (rows("path,age", 20.5, 23.6, 26.7), "values", (), ("age",)),
        (rows("path,age", 20, 23, 20), "values", (), ("age",)),
        (rows("path,label", -3, 4, 2), "values", (), ("label",)),
        (rows("path,target", *range(100, 130)), "values", (), ("target",)),
        (rows("path,label", -1, 1, -1), "classes", ("-1", "1"), ()),
        (rows("path,label", 3, 1, 3), "classes", ("1", "3"), ()),
        (rows("path,label", "1.0", "0.0", "1"), "classes", ("0", "1"), ()),
        (rows("path,age_group", 1, 2, 1), "classes", ("1", "2"), ()),
        (rows("path,breed", "golden retriever", "pug", "pug"), "classes",
         ("golden retriever", "pug"), ()),
        (rows("path,rust,scab", "1,0", "1,1", "0,0"), "labels", ("rust", "scab"), ()),
        (rows("path,rust,scab", "1,-1", "1,1", "-1,-1"), "labels", ("rust", "scab"), ()),
        (rows("path,rust,scab", "1,0", "0,1", "1,0"), "classes", ("rust", "scab"), ()),
        (rows("path,tags", "haze road", "road", "haze road", "road haze"), "labels",
         ("haze", "road"), ()),
        (rows("Image Index,Finding Labels", "A|B", "B", "C"), "labels", ("A", "B", "C"), ()),
        (rows("path,x,y1", "0.5,0.25", "1,0.5"), "values", (), ("x", "y1")),
        ("path;weight\n0.png;1,5\n1.png;2,25\n", "values", (), ("weight",)),
        (rows("path,labels", "\"['a', 'b']\"", "\"['b']\""), "labels", ("a", "b"), ()),
    ],
)  # fmt: skip
def test_columns_ask_for(
    tmp_path: Path,
    text: str,
    task: str,
    classes: tuple[str, ...],
    value_names: tuple[str, ...],
) -> None:
    dataset = open_dataset(table(tmp_path, text))
    assert (dataset.task, dataset.classes, dataset.value_names) == (task, classes, value_names)
    assert bool(dataset.task_reason) == ("pug" not in classes)  # words leave no choice


def test_targets_of_columns(tmp_path: Path) -> None:
    split = open_dataset(table(tmp_path, rows("path,age", 20.5, 23.25))).train
    assert split.targets is not None
    assert (split.targets.shape, split.targets.dtype) == ((2,), np.float32)
    assert split[1][1].item() == 23.25
    split = open_dataset(table(tmp_path, rows("path,a,b", "0.5,2", "3,4.5"))).train
    assert np.array_equal(split.targets, [[0.5, 2], [3, 4.5]])
    split = open_dataset(table(tmp_path, rows("path,a,b", "1,-1", "1,1", "-1,-1"))).train
    assert np.array_equal(split.targets, [[1, 0], [1, 1], [0, 0]])
    split = open_dataset(table(tmp_path, rows("path,labels", "a|b", "b"))).train
    assert np.array_equal(split.targets, [[1, 1], [0, 1]])
    split = open_dataset(table(tmp_path, rows("path,a,b", "1,0", "0,1", "1,0"))).train
    assert split.labels.tolist() == [0, 1, 0]


def test_a_column_can_be_asked_otherwise(tmp_path: Path) -> None:
    ages = table(tmp_path, rows("path,age", 20, 23, 20))
    assert open_dataset(ages, task="classes").classes == ("20", "23")
    hot = table(tmp_path, rows("path,a,b", "1,0", "0,1"))
    assert open_dataset(hot, task="labels").train.targets.tolist() == [[1, 0], [0, 1]]
    words = table(tmp_path, rows("path,label", "cat", "dog"))
    with pytest.raises(DataError, match="hold no values"):
        open_dataset(words, task="values")


def test_a_column_of_masks(tmp_path: Path) -> None:
    for n in range(3):
        mask(tmp_path / f"drawn/{n}.png", 0, 1, size=(4, 4))
    text = "image,mask\n" + "".join(f"{n}.png,drawn/{n}.png\n" for n in range(3))
    dataset = open_dataset(table(tmp_path, text))
    assert described(dataset) == ("masks", ("0", "1"), {"all": 3})
    assert dataset.train.sample(2)[1].shape == (4, 4)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("image_id,bbox\n0.png,\"[1, 2, 3, 4]\"\n", "detection"),
        ("filename,xmin,ymin,xmax,ymax\n0.png,1,2,3,4\n0.png,2,3,4,5\n", "detection"),
        ("0.png,1,2,3,4,cow\n", "detection"),
        ("ImageId,EncodedPixels\n0.png,1 3 10 5\n", "run-length"),
    ],
)  # fmt: skip
def test_tables_of_something_else(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        open_dataset(table(tmp_path, text))


def test_columns_that_do_not_decide(tmp_path: Path) -> None:
    text = "path,city,note\n0.png,Ulm,a\n1.png,Ulm,b\n"
    dataset = open_dataset(table(tmp_path, text))
    assert dataset.task is None
    assert "city, note" in dataset.problems[0].reason


@pytest.mark.parametrize("kind", ["masks", "values", "labels"])
def test_other_tasks_are_delivered_as_what_they_are(tmp_path: Path, kind: str) -> None:
    texts = {"values": rows("path,age", 1.5, 2.5), "labels": rows("path,a,b", "1,1", "0,1")}
    if kind == "masks":
        photo(tmp_path / "images/1.jpg")
        mask(tmp_path / "masks/1.png", 0, 1)
    source = tmp_path if kind == "masks" else table(tmp_path, texts[kind])
    _, targets = next(memfit.data.loader(source, batch_size=1).epoch(0))
    shape = {"masks": (1, 32, 32), "values": (1, 1), "labels": (1, 2)}[kind]
    assert targets.shape == shape
    assert targets.is_floating_point() == (kind != "masks")


def test_a_batch_costs_what_its_targets_cost(tmp_path: Path) -> None:
    """Class numbers of 8 bytes, masks of 8 a pixel, values of 4."""
    rng = np.random.default_rng(0)
    for folder, shape, high in (("images", (16, 16, 3), 256), ("masks", (16, 16), 3)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / folder / f"{number}.png")
    images = 64 * 3 * 16 * 16 * 4
    masks = inspect_source(tmp_path / "set").cost
    assert masks is not None
    assert masks.batch_bytes(64) == images + 64 * 16 * 16 * 8
    rows = "\n".join(f"set/images/{n}.png,{n + 0.5},{n - 0.25}" for n in range(4))
    (tmp_path / "t.csv").write_text(f"path,age,height\n{rows}\n")
    values = inspect_source(tmp_path / "t.csv").cost
    assert values is not None
    assert values.batch_bytes(64) == images + 64 * 2 * 4
