"""Runs that meet what is wrong, odd or at the edge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import (
    CONV,
    NORM,
    Watcher,
    assert_same,
    recipe,
    state_of,
    steps_of,
    stop_at,
    weights_of,
)

from memfit.errors import (
    DataError,
    DoesNotFit,
    ModelError,
    NonFiniteLoss,
    RunError,
    UnknownName,
    UsageError,
    WeightsMismatch,
)
from memfit.recipe.toml import load_recipe
from memfit.trainer.run.run import train
from memfit.trainer.run.run_folder import RunFolder

EXPLODES: dict[str, Any] = {
    "optimizer": {"name": "sgd", "momentum": 0.9}, "lr": 1e25, "schedule": "constant",
    "warmup": 0.0,
}  # fmt: skip


@pytest.fixture
def conv(tmp_path: Path) -> str:
    (tmp_path / "conv.py").write_text(CONV)
    return f"{tmp_path}/conv.py:build"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One folder for each of two classes, without splits."""
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(8):
            pixels = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


# -- what is written -------------------------------------------------------------------------------


def test_a_run_and_its_folder(tmp_path: Path) -> None:
    watcher = Watcher()
    result = train(recipe(), runs=tmp_path, name="run", listener=watcher, command=["memfit", "x"])
    folder = RunFolder.open(tmp_path / "run")
    assert result.path == folder.path
    assert (result.status, folder.status, result.step) == ("finished", "finished", 8)
    assert folder.facts()["command"] == ["memfit", "x"]
    assert steps_of(result.path) == list(range(1, 9))
    assert watcher.checkpoints == ["step-00000000.pt", "step-00000004.pt", "step-00000008.pt"]
    assert [(step, epoch) for step, epoch, _, _ in watcher.epochs] == [(4, 1), (8, 2)]
    assert watcher.epochs[-1][2] == result.evaluation
    assert watcher.notes == []
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["evaluation"]["accuracy"] == result.evaluation.accuracy  # type: ignore[union-attr]
    assert summary["memory"]["predicted"]["allocated_bytes"] > 0
    assert load_recipe(folder.path / "recipe.toml").to_dict() == state_of(folder.path)["recipe"]
    assert json.loads((folder.path / "plan.json").read_text())["schema_version"] == 1


def test_the_same_recipe_twice_is_the_same(conv: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(recipe(conv, ema=True, augment=("flip", "cutmix")), runs=tmp_path, name=name)
    assert_same(state_of(tmp_path / "one"), state_of(tmp_path / "two"))


def test_recipes_work_from_other_folders(
    conv: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = recipe("conv.py:build", data="photos", global_batch=8, num_classes=8)
    stop_at(1, given, tmp_path, "run")
    monkeypatch.chdir("/")
    assert train(resume=tmp_path / "run").status == "finished"


# -- the length of a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({"steps": 1}, 1, 1),
        ({"steps": 4}, 4, 1),
        ({"steps": 5, "epochs": 1}, 5, 2),
        ({"steps": 5, "evaluate_every": 100}, 5, 2),
        ({"epochs": 1, "global_batch": 40}, 3, 1),
        ({"epochs": 2, "global_batch": 96}, 2, 2),
    ],
    ids=str,
)
def test_steps_and_epochs(options: dict[str, Any], steps: int, epochs: int, tmp_path: Path) -> None:
    watcher = Watcher()
    result = train(recipe(**options), runs=tmp_path, name="run", listener=watcher)
    assert result.step == steps
    assert [epoch for _, epoch, _, _ in watcher.epochs] == list(range(1, epochs + 1))
    assert result.evaluation is not None, "the end is always evaluated"
    assert result.evaluation.samples == 32


def test_a_global_batch_larger_than_the_data(tmp_path: Path) -> None:
    watcher = Watcher()
    train(recipe(global_batch=512), runs=tmp_path, name="run", listener=watcher)
    assert watcher.notes == [
        "A global batch of 512 is more than the 96 images: each step takes them all."
    ]
    assert watcher.beginning is not None
    assert watcher.beginning.global_batch == watcher.beginning.micro_batch == 96
    assert [step.samples for step in watcher.steps] == [96, 96]


def test_data_without_a_val_split(photos: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    given = recipe(data=str(photos), global_batch=8, val_share=0)
    result = train(given, runs=tmp_path, name="run", listener=watcher)
    (note,) = watcher.notes
    assert note.startswith("Nothing is validated: the data has no val split")
    assert result.evaluation is None
    assert result.summary.best_score is None
    assert [found for _, _, found, _ in watcher.epochs] == [None, None]
    assert not (result.path / "checkpoints" / "best.pt").exists()


# -- BatchNorm -------------------------------------------------------------------------------------


def test_one_sample_alone_with_batch_norm(tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(NORM)
    watcher = Watcher()
    given = recipe(f"{tmp_path}/norm.py:build", data="shapes,train=33,val=8,test=8,size=16",
                   global_batch=16, epochs=2)  # fmt: skip
    result = train(given, runs=tmp_path, name="run", listener=watcher)
    assert [step.samples for step in watcher.steps] == [16, 16, 1, 16, 16, 1]
    assert sum("alone in its batch" in note for note in watcher.notes) == 1
    counted = state_of(result.path)["model"]["2.num_batches_tracked"]
    assert counted == 4, "the lone sample leaves the running statistics as they are"


def test_splitting_a_batch_with_batch_norm_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(NORM)
    watcher = Watcher()
    given = recipe(f"{tmp_path}/norm.py:build", batch_size=8)
    train(given, runs=tmp_path, name="run", listener=watcher)
    assert sum("not the same as one large batch" in note for note in watcher.notes) == 1


# -- a loss that is no number ----------------------------------------------------------------------


def test_a_loss_that_is_no_number(conv: str, tmp_path: Path) -> None:
    given = recipe(conv, **EXPLODES)
    watcher = Watcher()
    with pytest.raises(NonFiniteLoss) as caught:
        train(given, runs=tmp_path, name="run", listener=watcher)
    step = caught.value.step
    assert step == len(watcher.steps) + 1 > 1
    assert f"The loss of step {step} is " in caught.value.message
    assert len(caught.value.samples) == 24
    assert caught.value.samples[0] in caught.value.message
    assert RunFolder.open(tmp_path / "run").status == "stopped"
    stop_at(step - 1, given, tmp_path, "before")
    assert_same(state_of(tmp_path / "run"), state_of(tmp_path / "before"))
    with pytest.raises(NonFiniteLoss) as again:
        train(resume=tmp_path / "run")
    assert again.value.samples == caught.value.samples
    assert_same(state_of(tmp_path / "run"), state_of(tmp_path / "before"))


# -- what cannot begin -----------------------------------------------------------------------------


def refused(kind: type[Exception], message: str, tmp_path: Path, **options: Any) -> str:
    """The error of a run that leaves no folder behind."""
    with pytest.raises(kind, match=message) as caught:
        train(recipe(**options), runs=tmp_path / "runs", name="run")
    assert not (tmp_path / "runs" / "run").exists(), "its name is free again"
    return str(caught.value)


def test_labels_outside_of_the_classes(tmp_path: Path) -> None:
    text = refused(DataError, "labels of train lie outside of 0 to 3", tmp_path, num_classes=4)
    assert "--num-classes" in text


@pytest.mark.parametrize(("shape", "word"), [((1, 16, 16), "grey"), ((3, 8, 8), "")])
def test_shapes_that_disagree(shape: tuple[int, ...], word: str, tmp_path: Path) -> None:
    if word:
        text = refused(UsageError, "takes grey images, the data delivers RGB", tmp_path,
                       input_shape=shape)  # fmt: skip
        assert f"--colour {word}" in text
    else:
        train(recipe(input_shape=shape, epochs=1), runs=tmp_path, name="resized")


def test_nothing_to_train(tmp_path: Path) -> None:
    refused(UsageError, "There is nothing to train", tmp_path, frozen="*")


def test_weights_of_another_model(conv: str, tmp_path: Path) -> None:
    path = train(recipe(conv, epochs=1), runs=tmp_path, name="conv").path / "checkpoints/last.pt"
    text = refused(WeightsMismatch, "of another model", tmp_path, weights=str(path))
    assert "0.weight" in text
    refused(ModelError, "No such file", tmp_path, weights=str(tmp_path / "none.pt"))


def test_weights_of_the_same_model(conv: str, tmp_path: Path) -> None:
    first = train(recipe(conv, epochs=1), runs=tmp_path, name="first")
    watcher = Watcher()
    given = recipe(conv, weights=str(first.path / "checkpoints/last.pt"), epochs=1)
    second = train(given, runs=tmp_path, name="second", listener=watcher)
    assert any(note.startswith("Started from") for note in watcher.notes)
    begun = RunFolder.open(second.path).checkpoints
    start = torch.load(begun.path(0), weights_only=True)
    assert_same(start["model"], state_of(first.path)["model"])


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    path = train(recipe(epochs=1), runs=tmp_path, name="run").path
    before = state_of(path)
    with pytest.raises(RunError, match="never writes over it"):
        train(recipe(epochs=1), runs=tmp_path, name="run")
    assert_same(state_of(path), before)


def test_unknown_keys_in_a_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('model = "mlp"\nglobal_bach = 3\n')
    with pytest.raises(UnknownName) as caught:
        load_recipe(tmp_path / "a.toml")
    assert caught.value.nearest[0] == "global_batch"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "no CUDA GPU here"), ("cuda:3", "no CUDA GPU"), ("gpu", "is no device"),
     ("mps", "not on mps")],
)  # fmt: skip
def test_devices_that_are_not_there(device: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train(recipe(), runs=tmp_path / "runs", name="run", device=device)
    assert not (tmp_path / "runs").exists()


DROP = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from small_runs import recipe
from memfit.errors import RunError
from memfit.trainer.run.run import train
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
for given in ({"runs": sys.argv[1], "name": "new"}, {"resume": sys.argv[1] + "/run"}):
    try:
        train(None if "resume" in given else recipe(), **given)
    except RunError as error:
        print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_places_that_may_not_be_written(open_folder: Path) -> None:
    path = stop_at(2, recipe(), open_folder, "run").path
    before = state_of(path)
    for folder in (path / "checkpoints", path, open_folder):
        folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", DROP, str(open_folder), str(Path(__file__).parent)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": "/tmp", "HOME": "/tmp", "USER": "nobody"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Permission denied.") == 2
    assert_same(state_of(path), before)


# -- memory ----------------------------------------------------------------------------------------


def test_a_small_budget_takes_a_smaller_micro_batch(conv: str, tmp_path: Path) -> None:
    watcher = Watcher()
    given = recipe(conv, global_batch=96, data="shapes,train=96,val=32,test=32,size=16")
    result = train(given, runs=tmp_path, name="run", listener=watcher, memory_bytes=6 << 20)
    assert result.status == "finished"
    assert watcher.beginning is not None
    size = watcher.beginning.micro_batch
    assert size < 96
    measured = result.summary.measured
    assert measured is not None
    assert measured.reserved_bytes <= measured.limit_bytes == 6 << 20
    if not watcher.events:
        plain = train(given.but(batch_size=size), runs=tmp_path, name="plain")
        assert_same(weights_of(result.path), weights_of(plain.path))


def test_not_even_the_model_fits(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="The model and the optimizer's state do not fit"):
        train(recipe(), runs=tmp_path / "runs", name="run", memory_bytes=1 << 20)
    assert not (tmp_path / "runs" / "run").exists()
