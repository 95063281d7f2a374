"""Which weights are best is decided by val; test is looked at once, at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import Crash, Watcher

from memfit.data.loading.source import Source
from memfit.recipe.recipe import Recipe
from memfit.trainer.run.run import train
from memfit.trainer.run.trained import open_trained
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.weights.checkpoint import load_checkpoint, save_checkpoint

#: Without a split to validate on.
DATA = "shapes,train=96,test=32,size=16"
SMALL = {"model": "mlp", "input_shape": (3, 8, 8), "device": "cpu"}


def photo(path: Path, value: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(path.name)) % 1000)
    low, high = (0, 256) if value is None else (value, value + 4)
    Image.fromarray(rng.integers(low, high, (8, 8, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Val says what train says; the labels of test are chance, seven of them."""
    for split, count in (("train", 32), ("val", 8)):
        for name, value in (("a", 16), ("b", 224)):
            for number in range(count):
                photo(tmp_path / "data" / split / name / f"{number}.png", value)
    for name, count in (("a", 3), ("b", 4)):
        for number in range(count):
            photo(tmp_path / "data" / "test" / name / f"{number}.png")
    return tmp_path / "data"


class Ending(Watcher):
    """Keeps what it is told of the test split."""

    def __init__(self) -> None:
        super().__init__()
        self.tests: list[tuple[Evaluation, int]] = []

    def tested(self, evaluation: Evaluation, step: int) -> None:
        self.tests.append((evaluation, step))


def evaluations(run: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["event"] == "evaluation"]


def test_the_best_follows_val_and_test_is_looked_at_once(three: Path, tmp_path: Path) -> None:
    ending = Ending()
    result = train(data=str(three), epochs=3, runs=tmp_path, listener=ending, **SMALL)
    assert [row["split"] for row in evaluations(result.path)] == ["val"] * 3
    assert result.evaluation is not None
    assert (result.evaluation.split, result.evaluation.samples) == ("val", 16)
    assert result.summary.best_score == 1.0, "val says what train says"
    ((found, step),) = ending.tests
    assert (found.split, found.samples) == ("test", 7)
    assert result.test == found
    best = load_checkpoint(result.path / "checkpoints" / "best.pt")
    assert step == best["step"], "the best weights, not the last"
    assert open_trained(result.path).evaluate("test") == found
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["evaluation"]["split"] == "val"
    assert summary["test"]["accuracy"] == found.accuracy


def test_a_test_folder_without_classes_is_for_predicting(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for name in "ab":
            for number in range(4):
                photo(tmp_path / "data" / split / name / f"{number}.png")
    for number in range(3):
        photo(tmp_path / "data" / "test" / f"{number}.png")
    watcher = Watcher()
    result = train(data=str(tmp_path / "data"), epochs=1, runs=tmp_path, listener=watcher, **SMALL)
    assert result.evaluation is not None
    assert (result.evaluation.split, result.evaluation.samples) == ("val", 8)
    assert result.test is None
    assert "The test images have no answers: they are for memfit predict." in watcher.notes
    assert (result.path / "checkpoints" / "best.pt").exists()
    images = sorted((tmp_path / "data" / "test").iterdir())
    assert len(open_trained(result.path).predict(images)) == 3


def test_without_val_a_share_of_train_is_held_out_and_said(tmp_path: Path) -> None:
    watcher = Watcher()
    result = train(data=DATA, epochs=1, runs=tmp_path, listener=watcher, model="mlp", device="cpu")
    assert result.evaluation is not None
    assert result.test is not None
    assert (result.evaluation.split, result.evaluation.samples) == ("val", 10)
    assert (result.test.split, result.test.samples) == ("test", 32)
    said = "10 of 96 training images are held out for validation, the same in every run"
    assert f"{said} (--val-share 0.1)." in watcher.notes
    assert result.summary.step == 2, "86 samples in batches of 64"


def held(share: float, data: str = DATA, **options: Any) -> Any:
    return Source(data, Recipe(model="mlp", data=data, val_share=share, **options)).dataset


def test_the_parts_are_the_whole_and_every_class_gives_its_share() -> None:
    whole = held(0)
    dataset = held(0.25)
    train, val = dataset["train"], dataset["val"]
    assert sorted((*train.numbers, *val.numbers)) == list(range(96))
    assert len(val) == 24
    of_whole = np.bincount(whole.train.labels, minlength=8)
    of_val = np.bincount(val.labels, minlength=8)
    assert (np.abs(of_val - of_whole / 4) < 1).all()
    for part in (train, val):
        for index in (0, len(part) - 1):
            number = int(part.numbers[index])
            assert part.sample_name(index) == whole.train.sample_name(number)
            assert torch.equal(part[index][0], whole.train[number][0])
            assert part[index][1] == whole.train[number][1]


def test_runs_of_every_seed_hold_out_the_same() -> None:
    assert np.array_equal(held(0.1, seed=1)["val"].numbers, held(0.1, seed=2)["val"].numbers)


def test_a_split_val_is_taken_as_it_is(three: Path) -> None:
    assert len(held(0.5, str(three))["val"]) == 16
    assert len(held(0.5, str(three)).train) == 64


def test_without_a_share_nothing_is_validated(tmp_path: Path) -> None:
    watcher, options = Watcher(), {"model": "mlp", "device": "cpu", "val_share": 0}
    result = train(data=DATA, epochs=2, runs=tmp_path, listener=watcher, **options)
    assert result.evaluation is None
    assert result.summary.best_score is None
    assert not (result.path / "checkpoints" / "best.pt").exists()
    assert result.test is not None, "the last weights"
    assert any(note.startswith("Nothing is validated") for note in watcher.notes)


def test_a_run_from_before_validation_goes_on_as_it_began(three: Path, tmp_path: Path) -> None:
    def crash() -> None:
        raise Crash

    path = tmp_path / "old"
    with pytest.raises(Crash):
        train(data=str(three), epochs=3, runs=tmp_path, name="old", val_share=0,
              listener=Watcher(2, crash), checkpoint_every=1, batch_size=16, **SMALL)  # fmt: skip
    recipe = (path / "recipe.toml").read_text().replace("val_share = 0\n", "")
    assert "val_share" not in recipe
    (path / "recipe.toml").write_text(recipe)
    for file in (path / "checkpoints").glob("*.pt"):
        state = load_checkpoint(file)
        del state["recipe"]["val_share"], state["progress"]["split"]
        save_checkpoint(file, state)
    watcher = Watcher()
    result = train(resume=path, device="cpu", listener=watcher)
    assert result.status == "finished"
    assert {row["split"] for row in evaluations(path)} == {"test"}
    assert result.evaluation is not None
    assert result.evaluation.samples == 7
    assert any("chosen by the test images" in note for note in watcher.notes)
    assert open_trained(path).evaluate("train").samples == 64, "nothing was held out"
