"""What a run has learned, put to use: here, and in plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import CONV, recipe

from memfit.errors import BadImage, DataError, RunError, UnknownName, UsageError
from memfit.models.user_code import import_object
from memfit.trainer.run.run import RunResult, train
from memfit.trainer.run.trained import open_trained


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with images of several sizes, and a transform."""
    root = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for split, number in (("train", 12), ("val", 6), ("test", 6)):
        for label in ("cat", "dog"):
            folder = root / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(number):
                size = (16 + i % 3, 18, 3)
                pixels = noise.integers(0, 128 if label == "cat" else 255, size, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (root / "conv.py").write_text(CONV)
    (root / "own.py").write_text("def dark(image):\n    return image // 2\n")
    return root


def learned(photos: Path, runs: Path, **options: Any) -> RunResult:
    given = recipe(f"{photos}/conv.py:build", data=str(photos / "images"), global_batch=8,
                   input_shape=(3, 16, 16), num_classes=8, lr=0.05, **options)  # fmt: skip
    return train(given, runs=runs, name="run")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": True, "resize": "pad"},
        {"precision": "bf16"},
        {"precision": "amp-bf16", "memory_format": "nhwc"},
        {"transform": "own.py:dark"},
    ],
    ids=str,
)
def test_predict_answers_as_evaluate_counts(
    options: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    if "transform" in options:
        options = {"transform": f"{photos}/{options['transform']}"}
    result = learned(photos, tmp_path, **options)
    trained = open_trained(result.path, which="last")
    found = trained.evaluate()
    assert result.evaluation is not None
    validated = trained.evaluate("val")
    assert validated.confusion == result.evaluation.confusion, "the run's own last evaluation"
    counts = [[0] * len(found.classes) for _ in found.classes]
    for label in ("cat", "dog"):
        files = sorted((photos / "images" / "test" / label).iterdir())
        for _, answers in trained.predict(files, top=1):
            counts[found.classes.index(label)][found.classes.index(answers[0][0])] += 1
    assert [list(row) for row in found.confusion] == counts


def test_other_splits_and_checkpoints(photos: Path, tmp_path: Path) -> None:
    result = learned(photos, tmp_path)
    trained = open_trained(result.path)
    assert trained.evaluate("train").samples == 24
    assert trained.evaluate("train") == trained.evaluate("train"), "not shuffled, not augmented"
    with pytest.raises(UnknownName):
        trained.evaluate("tests")
    best = open_trained(result.path, which="best")
    assert best.evaluate("val").accuracy == result.summary.best_score
    assert result.test is not None
    assert best.evaluate().confusion == result.test.confusion, "with the best weights"


def test_a_split_that_is_not_there(tmp_path: Path, photos: Path) -> None:
    given = recipe(
        data=str(photos / "images" / "train"), input_shape=(3, 16, 16), global_batch=8, val_share=0
    )
    result = train(given, runs=tmp_path, name="run")
    trained = open_trained(result.path)  # the last one: there is no best
    with pytest.raises(RunError, match="no test split") as caught:
        trained.evaluate()
    assert "--split: all" in str(caught.value)
    assert trained.evaluate("all").samples == 24


def test_images_that_are_none(photos: Path, tmp_path: Path) -> None:
    trained = open_trained(learned(photos, tmp_path).path)
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "missing.png"):
        with pytest.raises(BadImage, match=name):
            trained.predict([tmp_path / name])
    with pytest.raises(UsageError, match="top is 0"):
        trained.predict([], top=0)


def test_a_transform_that_fails(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def fine(image):\n    return image\n")
    result = learned(photos, tmp_path, transform=f"{tmp_path}/own.py:fine")
    (tmp_path / "own.py").write_text("def fine(image):\n    raise KeyError('oops')\n")
    with pytest.raises(DataError, match="oops"):
        open_trained(result.path).predict([photos / "images/test/cat/0.png"])


def test_the_state_dict_loads_in_plain_pytorch(photos: Path, tmp_path: Path) -> None:
    result = learned(photos, tmp_path)
    model = import_object(f"{photos}/conv.py:build")()
    state = torch.load(f"{result.path}/checkpoints/last.pt", weights_only=True)
    model.load_state_dict(state["model"])
    trained = open_trained(result.path, which="last")
    assert state["classes"] == list(trained.classes)
    made = state["recipe"]
    pixels = np.asarray(Image.open(photos / "images/test/cat/0.png").crop((1, 0, 17, 16)))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(made[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        shares = model.eval()((image - mean) / std)[0].softmax(0)
    ((_, answers),) = trained.predict([photos / "images/test/cat/0.png"], top=len(state["classes"]))
    for label, share in answers:
        assert share == pytest.approx(float(shares[trained.classes.index(label)]), abs=1e-5)
