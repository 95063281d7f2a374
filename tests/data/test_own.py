"""A ``Dataset`` of one's own, as courses teach it, wherever a path is taken."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

import memfit
from memfit.data.sets.opening import open_dataset
from memfit.errors import BadImage, DataError, ModelError, UserCodeError

PIXELS = np.random.default_rng(3).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


class Items(Dataset[Any]):
    """Twelve items; ``make`` turns pixels and number into one."""

    def __init__(self, make: Callable[[np.ndarray, int], Any], count: int = 12) -> None:
        self.make, self.count, self.asked = make, count, list[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(index)
        self.asked.append(index)
        return self.make(PIXELS[index], index)


@pytest.mark.parametrize(
    "make",
    [
        lambda pixels, n: (Image.fromarray(pixels), n % 3),
        lambda pixels, n: (pixels, n % 3),
        lambda pixels, n: (pixels.transpose(2, 0, 1), np.int64(n % 3)),
        lambda pixels, n: (torch.from_numpy(pixels.transpose(2, 0, 1)), torch.tensor(n % 3)),
        lambda pixels, n: [pixels.astype(np.int64), n % 3, "more"],
        lambda pixels, n: {"image": pixels, "label": n % 3},
        lambda pixels, n: {"pixel_values": torch.from_numpy(pixels), "labels": n % 3},
    ],
)
def test_items_of_bytes(make: Callable[[np.ndarray, int], Any]) -> None:
    dataset = open_dataset(Items(make))
    assert (dataset.task, dataset.classes) == ("classes", ("0", "1", "2"))
    for index in (0, 7):
        np.testing.assert_array_equal(dataset.train.pixels(index), PIXELS[index])
        assert dataset.train.label(index) == index % 3
    images, labels = next(memfit.data.loader(dataset, batch_size=12).epoch(0))
    assert images.shape == (12, 3, 6, 5)
    assert sorted(labels.tolist()) == sorted(n % 3 for n in range(12))


def test_floats_are_delivered_as_they_are() -> None:
    def item(pixels: np.ndarray, n: int) -> Any:
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 100 - 1, n % 2

    dataset = open_dataset(Items(item))
    assert "floats from -1" in dataset.layout
    loader = memfit.data.loader(dataset, split="all", batch_size=4, workers=1)
    order = loader.order(0)
    images, _ = next(loader.epoch(0))
    expected = torch.stack([item(PIXELS[n], 0)[0] for n in order[:4]])
    assert torch.equal(images, expected)
    assert loader.blank(2, "cpu").pixels.dtype == torch.float32
    with pytest.raises(DataError, match="floats are not resized"):
        next(memfit.data.loader(dataset, batch_size=4, input_shape=(3, 8, 8)).epoch(0))


@pytest.mark.parametrize(
    ("answer", "task", "names"),
    [
        (lambda n: n / 4, "values", ("label",)),
        (lambda n: torch.tensor([n / 4, 1.0]), "values", ("0", "1")),
        (lambda n: [n % 2, 1, 1], "labels", ("0", "1", "2")),
        (lambda n: np.eye(3)[n % 3], "classes", ("0", "1", "2")),
        (lambda n: "cat" if n % 2 else "dog", "classes", ("cat", "dog")),
        (lambda n: PIXELS[n, ..., 0] // 128 * 7, "masks", ("0", "7")),
        (lambda n: torch.from_numpy(PIXELS[n, ..., 0] // 128)[None].float(), "masks", ("0", "1")),
        (lambda n: Image.fromarray(PIXELS[n, ..., 0] // 128), "masks", ("0", "1")),
    ],
)
def test_what_its_answers_ask_for(
    answer: Callable[[int], Any], task: str, names: tuple[str, ...]
) -> None:
    dataset = open_dataset(Items(lambda pixels, n: (pixels, answer(n))))
    assert (dataset.task, dataset.value_names or dataset.classes) == (task, names)
    if task == "masks":
        pixels, mask = dataset.train.sample(4)
        np.testing.assert_array_equal(mask, PIXELS[4, ..., 0] // 128)
        np.testing.assert_array_equal(pixels, PIXELS[4])


def test_items_are_asked_for_once_when_it_is_opened() -> None:
    items = Items(lambda pixels, n: (pixels, n % 3))
    open_dataset(items)
    assert items.asked == list(range(12))
    items = Items(lambda pixels, n: (pixels, n % 3), 12)
    items.targets = [n % 3 for n in range(12)]
    items.classes = ["a", "b", "c", "d"]
    dataset = open_dataset(items)
    assert dataset.classes == ("a", "b", "c", "d")
    assert len(items.asked) <= 12


def test_an_image_and_its_mask_come_of_one_item() -> None:
    """A random crop cuts both alike."""

    def crop(pixels: np.ndarray, n: int) -> Any:
        start = int(torch.randint(0, 3, ()))
        part = pixels[start : start + 3]
        return part, part[..., 0] // 128

    split = open_dataset(Items(crop)).train
    for index in range(12):
        pixels, mask = split.sample(index)
        np.testing.assert_array_equal(mask, pixels[..., 0] // 128)


def test_several_in_a_dict_or_a_tuple() -> None:
    items = Items(lambda pixels, n: (pixels, n % 3))
    for given in (
        {"train": items, "valid": Items(items.make, 4)},
        (items, Items(items.make, 4)),
        lambda: (items, Items(items.make, 4)),
    ):
        splits = open_dataset(given).splits
        assert {name: len(split) for name, split in splits.items()} == {"train": 12, "val": 4}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataLoader(Items(lambda pixels, n: (pixels, n))), "Give the Dataset itself"),
        (type("Stream", (IterableDataset,), {"__iter__": lambda self: iter(())})(), "no items"),
        (Items(lambda pixels, n: (pixels, n), 0), "has no items"),
        (Items(lambda pixels, n: (pixels, {"boxes": [], "labels": []})), "detection"),
        (Items(lambda pixels, n: (pixels, [0] * (n + 1))), "different shapes"),
        (Items(lambda pixels, n: ("a.png", 0)), "a str is no image"),
        (Items(lambda pixels, n: (pixels[..., :2], 0)), "no 1, 3 or 4 channels"),
        (Items(lambda pixels, n: {"a": 1}), "has no image"),
        (Items(lambda pixels, n: [][n]), r"IndexError.*test_own\.py, line"),
        (lambda: 3, "yields a int"),
    ],
)
def test_what_is_no_data_set(source: Any, message: str) -> None:
    with pytest.raises((DataError, BadImage)) as caught:
        open_dataset(source)
    assert re.search(message, f"{caught.value} {caught.value.hint}")


FILE = """
import numpy as np

class Noise:
    def __init__(self, count=8):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        pixels = np.full((8, 8, 3), 10 * index, np.uint8)
        return pixels, index % 2

class Late(Noise):
    def __getitem__(self, index):
        if index == 3:
            raise RuntimeError("the disk is full")
        return super().__getitem__(index)

def make():
    return {"train": Noise(), "val": Noise(4)}

def needs(folder):
    return Noise()

def raises():
    raise ValueError("no folder")

known = Noise(6)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_data.py"
    path.write_text(FILE)
    return path


def test_a_file_and_a_name(file: Path) -> None:
    assert len(open_dataset(f"{file}:make")) == 12
    assert len(open_dataset(f"{file}:Noise")) == 8
    assert len(open_dataset(f"{file}:known")) == 6
    for name, kind, message in (
        ("needs", ModelError, "needs the argument 'folder'"),
        ("raises", UserCodeError, r"ValueError: no folder\n  at .*my_data\.py, line"),
        ("Late", BadImage, r"RuntimeError: the disk is full at .*my_data\.py, line"),
        ("nothing", ModelError, "has no 'nothing'"),
    ):
        with pytest.raises(kind, match=message):
            open_dataset(f"{file}:{name}")


def test_it_travels_to_another_process_by_its_name(file: Path) -> None:
    split = open_dataset(f"{file}:make")["val"]
    again = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(again.pixels(3), split.pixels(3))
    assert again.labels.tolist() == [0, 1, 0, 1]


def test_plan_and_train(file: Path, tmp_path: Path) -> None:
    plan = memfit.plan("cnn", data=f"{file}:make", batch_size=4)
    assert plan.recipe.input_shape == (3, 8, 8)
    assert plan.recipe.num_classes == 2
    command = [
        sys.executable, "-m", "memfit", "train", "cnn", "--data", "my_data.py:make", "--epochs",
        "1", "--device", "cpu", "--name", "run", "--workers", "1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/run/checkpoints").is_dir()
