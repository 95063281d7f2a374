"""The sheet of samples: it is written whole, shows the pixels, and survives odd data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_inspection import clean_dataset

from memfit.data.facts.inspection import inspect_dataset
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, FileSplit
from memfit.data.samples.paths import PathTable
from memfit.errors import DataError, UsageError
from memfit.files.output_path import FIGURE_SUFFIXES, check_figure_path
from memfit.report import figures
from memfit.report.figures import samples_figure

pytest.importorskip("matplotlib")


def draw(dataset: Dataset, path: Path, *, force: bool = False) -> Path:
    return samples_figure(dataset, inspect_dataset(dataset), path, force=force)


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_each_format_is_what_it_says(tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = draw(clean_dataset(), tmp_path / f"sheet{suffix}")
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]  # nothing left beside it


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_same_data_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = (draw(clean_dataset(), tmp_path / f"{k}{suffix}") for k in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_every_cell_shows_its_sample() -> None:
    dataset = clean_dataset(classes=3, each=4)
    labels, rows = figures._rows(dataset, 10**6)
    assert labels == ["class 0", "class 1", "class 2"]
    mosaic = figures._mosaic(rows)
    step, scale = figures._CELL + figures._GAP, figures._CELL // 8
    for line, cells in enumerate(rows):
        assert [dataset.train.label(row) for row, _ in cells] == [line] * 4
        for column, (row, _) in enumerate(cells):
            cell = mosaic[line * step :, column * step :][: figures._CELL, : figures._CELL]
            np.testing.assert_array_equal(cell[::scale, ::scale], dataset.train.pixels(row))


@pytest.mark.parametrize("classes", [1, 2, 200])
@pytest.mark.parametrize("channels", [1, 3])
def test_few_and_many_classes(tmp_path: Path, classes: int, channels: int) -> None:
    dataset = clean_dataset(classes=classes, each=1, channels=channels)
    labels, rows = figures._rows(dataset, 10**6)
    assert len(labels) == len(rows) == min(classes, 16)
    assert (labels[0], labels[-1]) == ("class 0", f"class {classes - 1}")
    with Image.open(draw(dataset, tmp_path / "sheet.png")) as image:
        assert image.width == 1600
        assert image.height < 3000


def test_without_labels_samples_are_spread_evenly(tmp_path: Path) -> None:
    images = np.arange(300, dtype=np.uint16)[:, None, None].astype(np.uint8) * np.ones(
        (1, 2, 2), np.uint8
    )
    dataset = Dataset("flat", "flat folder", {"all": ArraySplit("all", images, None)})
    _, rows = figures._rows(dataset, 10**6)
    numbers = [row for line in rows for row, _ in line]
    assert numbers == [300 * place // 72 for place in range(72)]
    draw(dataset, tmp_path / "sheet.png")


def test_odd_names_sizes_and_broken_files(tmp_path: Path) -> None:
    sizes = {"wide.png": (300, 4), "tall.png": (3, 500), "dot.png": (1, 1)}
    for name, size in sizes.items():
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = [*sizes, "broken.png"]
    classes = ("$\\frac{1$", "猫" * 40, os.fsdecode(b"\xff\xfe"), "only a broken file")
    split = FileSplit("train", tmp_path, PathTable(names), np.arange(4))
    dataset = Dataset(str(tmp_path), "by hand", {"train": split}, classes)
    for suffix in FIGURE_SUFFIXES:
        assert draw(dataset, tmp_path / f"sheet{suffix}").stat().st_size > 1000


def test_unreadable_samples_give_way_to_the_next(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    split = FileSplit("train", tmp_path, PathTable(["bad.png"] * 3 + ["good.png"] * 21), None)
    _, rows = figures._rows(Dataset("x", "x", {"train": split}), 10**6)
    assert [row for line in rows for row, _ in line] == list(range(3, 24))


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_text("mine")
    with pytest.raises(DataError, match="exists") as error:
        draw(clean_dataset(), path)
    assert "--force" in str(error.value)
    assert path.read_text() == "mine"
    assert draw(clean_dataset(), path, force=True).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["sheet.jpeg2", "sheet", "sheet.tiff"])
def test_unknown_suffixes_list_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as error:
        check_figure_path(tmp_path / name)
    assert ".png, .pdf, .svg" in str(error.value)


def test_places_that_take_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        check_figure_path(tmp_path / "missing" / "sheet.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        check_figure_path(tmp_path / "folder.png", force=True)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left"):
        draw(clean_dataset(), tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    split = FileSplit("train", tmp_path, PathTable(["a.png"]), None)
    with pytest.raises(DataError, match="no image"):
        draw(Dataset("x", "x", {"train": split}), tmp_path / "sheet.png")
