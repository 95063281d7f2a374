"""Masks, values and several labels, trained and judged: against figures worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from memfit import plan
from memfit.data import loader
from memfit.data.loading.reading import Shaping, resized, resized_mask
from memfit.data.samples.masks import IGNORED
from memfit.errors import StepError, UsageError
from memfit.step.job import resolve
from memfit.study.study import run_study
from memfit.trainer.run.run import train
from memfit.trainer.run.trained import mask_image, open_trained
from memfit.trainer.step.tally import average_precision, overlaps

SMALL: dict[str, Any] = {"batch_size": 4, "device": "cpu"}
RANDOM = np.random.default_rng(5)


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Bright squares on a dark ground, 16 x 16; the mask says where, 255 at the left edge."""
    for number in range(10):
        row, column = RANDOM.integers(1, 8, 2)
        where = np.zeros((16, 16), bool)
        where[row : row + 6, column : column + 6] = True
        image = RANDOM.integers(0, 40, (16, 16, 3)) + 200 * where[..., None]
        write(tmp_path / f"squares/images/{number}.png", image)
        mask = where.astype(np.uint8)
        mask[:, 0] = 255
        write(tmp_path / f"squares/masks/{number}.png", mask)
    return tmp_path / "squares"


def table(folder: Path, columns: str, rows: Sequence[tuple[Any, ...]]) -> Path:
    """A table of grey 8 x 8 images; the first of a row is how bright they are."""
    lines = [f"path,{columns}"]
    for number, (level, *answers) in enumerate(rows):
        write(folder / f"{number}.png", np.full((8, 8, 3), level))
        lines.append(",".join([f"{number}.png", *map(str, answers)]))
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


@pytest.fixture
def ages(tmp_path: Path) -> Path:
    levels = range(20, 240, 20)
    return table(tmp_path / "ages", "age", [(level, level / 10 + 0.5) for level in levels])


@pytest.fixture
def several(tmp_path: Path) -> Path:
    rows = [(40 + 100 * (n % 2) + n, n % 2, (n // 2) % 2) for n in range(12)]
    return table(tmp_path / "several", "bright,other", rows)


# -- figures, by hand ------------------------------------------------------------------------------


def test_overlaps() -> None:
    # class 0: 5 of 5 + 2 + 1; class 1: 3 of 3 + 1 + 2; class 2 never occurs
    assert overlaps([[5, 2, 0], [1, 3, 0], [0, 0, 0]]) == (5 / 8, 3 / 6, None)


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([0.1, 0.9], [1, 0], 1 / 2),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4),  # all come at once
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 1], (1 + 2 / 3 + 3 / 4) / 3),
        ([0.2, 0.3], [0, 0], None),
    ],
)
def test_average_precision(scores: list[float], targets: list[int], expected: float | None) -> None:
    found = average_precision(torch.tensor(scores), torch.tensor(targets).float())
    assert found == (expected if expected is None else pytest.approx(expected))


# -- what is delivered -----------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [("flip=1",), ("crop=3",), ("random-resized-crop",)])
def test_masks_move_with_their_images(squares: Path, augment: tuple[str, ...]) -> None:
    for images, masks in loader(squares, batch_size=5, augment=augment).epoch(0):
        assert masks.dtype == torch.int64
        assert masks.shape == (5, 16, 16)
        bright = images[:, 0] > 0.5
        counts = masks != IGNORED
        same = bright[counts] == (masks[counts] == 1)
        # a mask is cut at pixels, its image between them
        assert same.float().mean() > (0.9 if "random" in augment[0] else 0.999)


def test_padding_around_a_mask_is_ignored(squares: Path) -> None:
    (plain,) = (masks for _, masks in loader(squares, batch_size=10).epoch(0))
    (moved,) = (m for _, m in loader(squares, batch_size=10, augment=("crop=3",)).epoch(0))
    assert (plain == IGNORED).sum() == 10 * 16, "the left edge is void"
    assert (moved == IGNORED).sum() > 10 * 16


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_a_mask_is_resized_as_its_image(resize: Any) -> None:
    where = np.zeros((20, 32), np.int64)
    where[4:12, 8:20] = 1
    image = torch.from_numpy((where * 200).astype(np.uint8))[None]
    shaping = Shaping((1, 10, 10), resize)
    mask = resized_mask(torch.from_numpy(where), shaping)
    pixels = resized(image, shaping)[0]
    assert mask.shape == (10, 10)
    inside = mask != IGNORED
    assert ((pixels > 100) == (mask == 1))[inside].float().mean() >= 0.9
    assert bool((~inside).any()) == (resize == "pad")


def test_values_and_labels_are_delivered_as_they_are(ages: Path, several: Path) -> None:
    ((_, values),) = loader(ages, batch_size=11).epoch(0)
    assert values.shape == (11, 1)
    assert sorted(values[:, 0].tolist()) == [level / 10 + 0.5 for level in range(20, 240, 20)]
    ((_, labels),) = loader(several, batch_size=12).epoch(0)
    assert labels.shape == (12, 2)
    assert labels.sum(0).tolist() == [6, 6]


# -- runs ------------------------------------------------------------------------------------------


def test_masks_are_trained_judged_and_written(squares: Path, tmp_path: Path) -> None:
    result = train(
        model="unet", data=str(squares), epochs=6, optimizer="adam", lr=0.01, val_share=0.3,
        augment=("flip",), runs=tmp_path, **SMALL,
    )  # fmt: skip
    found = result.evaluation
    assert found is not None
    assert (found.task, found.samples) == ("masks", 3)
    assert sum(map(sum, found.confusion)) == 3 * 16 * 15, "void pixels do not count"
    shares = [share for share in overlaps(found.confusion) if share is not None]
    assert found.score == sum(shares) / len(shares)
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["best_mean_iou"] == max(
        row["mean_iou"]
        for row in map(json.loads, (result.path / "metrics.jsonl").read_text().splitlines())
        if row["event"] == "evaluation"
    )
    trained = open_trained(result.path)
    assert trained.evaluate("val").score == pytest.approx(summary["best_mean_iou"])
    ((_, mask),) = trained.predict_masks([squares / "images" / "0.png"])
    assert mask.size == (16, 16)
    assert set(np.unique(np.asarray(mask))) <= {0, 1}


def test_values_are_trained_and_judged(ages: Path, tmp_path: Path) -> None:
    result = train(model="mlp", data=str(ages), epochs=4, lr=0.001, runs=tmp_path, **SMALL)
    found = result.evaluation
    assert found is not None
    assert list(found.per_class) == ["age"]
    trained = open_trained(result.path, which="last")
    source = loader(ages, val_share=0.1, split="val")
    names = [source.split.sample_name(index) for index in range(len(source.split))]
    truth = [float(source.split.target(index)) for index in range(len(source.split))]
    given = [answers[0][1] for _, answers in trained.predict([ages.parent / n for n in names])]
    errors = np.abs(np.array(given) - truth)
    assert found.score == pytest.approx(errors.mean(), rel=1e-4)
    assert found.loss == pytest.approx((errors**2).mean(), rel=1e-4)
    summary = json.loads((result.path / "summary.json").read_text())
    scores = [
        row["mean_absolute_error"]
        for row in map(json.loads, (result.path / "metrics.jsonl").read_text().splitlines())
        if row["event"] == "evaluation"
    ]
    assert summary["best_mean_absolute_error"] == min(scores), "less is better"


def test_several_labels_are_trained_and_judged(several: Path, tmp_path: Path) -> None:
    result = train(
        model="mlp", data=str(several), epochs=3, val_share=0.5, runs=tmp_path, **SMALL
    )  # fmt: skip
    found = result.evaluation
    assert found is not None
    assert (found.task, list(found.per_class), found.samples) == ("labels", ["bright", "other"], 6)
    trained = open_trained(result.path, which="last")
    ((_, answers),) = trained.predict([several.parent / "1.png"])
    assert [name for name, _ in answers] in (["bright", "other"], ["other", "bright"])
    assert all(0 < share < 1 for _, share in answers)


def test_the_loss_is_of_the_task(ages: Path, several: Path) -> None:
    for data, name in ((ages, "mse"), (several, "bce")):
        made = plan("mlp", data=str(data), batch_size=4)
        assert made.step.batch_words.loss == name
    assert plan("mlp", data=str(ages), batch_size=4, loss="l1").step.batch_words.loss == "l1"
    with pytest.raises(UsageError, match="The loss bce is not of values"):
        plan("mlp", data=str(ages), batch_size=4, loss="bce")


def test_a_plan_counts_masks_as_they_are_delivered(squares: Path) -> None:
    spec = plan("unet", data=str(squares), batch_size=4).step.batch
    images, masks = spec.make(4, torch.device("meta"))
    (target,) = spec.targets
    assert (masks.shape[1:], masks.dtype) == (target.shape, target.dtype)
    assert (target.shape, target.dtype) == ((16, 16), torch.int64)
    assert images.shape == (4, 3, 16, 16)


# -- refused ---------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(squares: Path, ages: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asks for a class of each pixel; cnn gives one answer"):
        train(model="cnn", data=str(squares), runs=tmp_path, **SMALL)
    for word in ("mixup", "randaugment"):
        with pytest.raises(UsageError, match=f"augment {word}"):
            train(model="unet", data=str(squares), augment=(word,), runs=tmp_path, **SMALL)
    with pytest.raises(UsageError, match="a study compares accuracies"):
        run_study(resolve("mlp", data=str(ages)), batch_sizes=(2, 4), folder=tmp_path / "study")


def test_one_number_too_few_dimensions_is_refused(ages: Path, tmp_path: Path) -> None:
    """``(N,)`` against ``(N, 1)`` would be spread to ``(N, N)`` without a word."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(192, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.line(images.flatten(1))[:, 0]
            return out

    with pytest.raises(StepError, match=r"gives shape \(\) for a sample, the data has 1 values"):
        train(model=Flat(), data=str(ages), runs=tmp_path, **SMALL)


def test_masks_are_written_in_the_values_that_were_learned() -> None:
    numbers = np.array([[0, 1], [1, 0]])
    assert np.asarray(mask_image(numbers, ("0", "255"))).tolist() == [[0, 255], [255, 0]]
    colours = np.asarray(mask_image(numbers, ("#ff0000", "#000080")))
    assert colours[0].tolist() == [[255, 0, 0], [0, 0, 128]]
