"""A source of images as a document: facts, pictures and batches that agree with the source."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import memfit
from memfit.errors import DataError, UnknownName
from memfit.page.documents.data import data_document

SHAPES = "shapes,train=64,test=16,size=32"


@pytest.fixture(scope="module")
def shapes() -> dict[str, Any]:
    return data_document(SHAPES)


def test_it_is_plain_and_small(shapes: dict[str, Any]) -> None:
    assert len(json.dumps(shapes, allow_nan=False)) < 400_000
    assert (shapes["kind"], shapes["images"], shapes["readable"]) == ("data", 80, 80)
    assert shapes["shape"] == [3, 32, 32]
    assert [split["counts"] for split in shapes["classes"]["counts"]] == [[8] * 8, [2] * 8]


def test_samples_are_the_images_themselves(shapes: dict[str, Any]) -> None:
    split = memfit.data.open(SHAPES).train
    assert len(shapes["samples"]) == 24
    assert {sample["label"] for sample in shapes["samples"]} == set(shapes["classes"]["names"])
    for sample in shapes["samples"][:3]:
        index = int(sample["name"].removeprefix("train[").removesuffix("]"))
        assert np.array_equal(decoded(sample["png"]), split.pixels(index))


def test_one_sample_is_numbers_channel_by_channel(shapes: dict[str, Any]) -> None:
    sample = shapes["sample"]
    view = sample["view"]
    planes = np.array(view["channels"]).reshape(3, view["height"], view["width"])
    index = int(sample["name"].removeprefix("train[").removesuffix("]"))
    original = memfit.data.open(SHAPES).train.pixels(index)
    assert np.array_equal(planes.transpose(1, 2, 0), original)


def test_histograms_have_every_pixel_and_give_the_mean(shapes: dict[str, Any]) -> None:
    known = shapes["statistics"]
    assert known["pixels"] == 64 * 32 * 32
    for histogram, mean in zip(known["histograms"], known["mean"], strict=True):
        assert sum(histogram) == known["pixels"]
        total = sum(value * count for value, count in enumerate(histogram))
        assert total / 255 / known["pixels"] == pytest.approx(mean)


def test_the_batch_is_the_loaders(shapes: dict[str, Any]) -> None:
    plain, augmented = shapes["delivered"]["batches"]
    images, labels = next(memfit.data.loader(SHAPES, batch_size=64).epoch(0))
    assert plain["shape"] == list(images.shape)
    assert plain["max"] == pytest.approx(images.max().item())
    assert plain["mean"] == pytest.approx(images.mean().item(), abs=1e-6)
    assert plain["bytes"] + plain["label_bytes"] == images.nbytes + labels.nbytes
    assert augmented["augment"] == ["crop=4", "flip"]
    assert augmented["pngs"] != plain["pngs"]


def test_grey_has_one_channel() -> None:
    grey = data_document("shapes,train=16,test=8,size=16,channels=1")
    assert grey["channels"] == 1
    assert len(grey["statistics"]["histograms"]) == len(grey["sample"]["view"]["channels"]) == 1
    assert decoded(grey["samples"][0]["png"]).ndim == 2


def test_large_images_of_different_sizes_stay_small_in_the_document(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(30):
        folder = tmp_path / "set" / ("noise" if number % 2 else "more noise")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (200 + number, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "set" / "noise" / "broken.png").write_bytes(b"no image")
    found = data_document(str(tmp_path / "set"))
    assert len(json.dumps(found)) < 400_000
    assert found["warnings"]["unreadable_count"] == 1
    assert found["readable"] == found["images"] - 1
    assert found["delivered"]["is_resized"]
    assert found["delivered"]["batches"][0]["shape"][1:] == [3, 224, 224]
    assert max(decoded(found["samples"][0]["png"]).shape) == 48


def test_images_without_labels_have_no_batch_and_a_reason(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("L", (8, 8), 60 * number).save(tmp_path / f"{number}.png")
    found = data_document(str(tmp_path))
    problem = found["delivered"]["problem"]
    assert problem["key"] == "unlabelled"
    assert "no labels" in problem["text"]
    assert found["classes"]["count"] == 0
    assert len(found["samples"]) == 3


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        data_document(str(tmp_path / "nothing.csv"))
    with pytest.raises(UnknownName):
        data_document("mnits")


def decoded(url: str) -> np.ndarray[Any, Any]:
    head, content = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_an_unreadable_image_gives_way_to_one_that_is_not_shown_yet(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(tmp_path / "a" / f"{number}.png")
    for number in (0, 1):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"no image")
    found = data_document(str(tmp_path))
    assert [sample["name"] for sample in found["samples"]] == ["a/2.png", "a/3.png"]
    assert found["warnings"]["unreadable_count"] == 2
