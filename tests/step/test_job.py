"""What a recipe names is found once, and objects travel beside it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memfit
from memfit.cli import main
from memfit.data.loading import source
from memfit.data.sets.opening import open_dataset
from memfit.errors import UsageError
from memfit.recipe.fields import FIELDS
from memfit.recipe.own import Own
from memfit.recipe.recipe import Recipe
from memfit.recipe.toml import load_recipe, recipe_to_toml
from memfit.step.job import resolve
from memfit.study.study import run_study

DATA = "shapes,train=64,val=32,test=32,size=8,channels=1"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time that data is opened, and that its images are looked at."""
    found: list[str] = []
    for name in ("open_dataset", "survey"):
        real = getattr(source, name)

        def spy(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
            found.append(name)
            return real(*args, **options)

        monkeypatch.setattr(source, name, spy)
    return found


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8))


def squared(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores - nn.functional.one_hot(labels, 8)).square().mean()


def brighter(image: Tensor) -> Tensor:
    return image // 2 + 100


def plain_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


OBJECTS: dict[str, Any] = {
    "model": net, "loss": squared, "transform": brighter, "optimizer": plain_sgd,
}  # fmt: skip


# -- found once ------------------------------------------------------------------------------------


def test_a_plan_with_ways_to_fit_more_opens_its_data_once(
    seen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["plan", "cnn", "--data", DATA, "--gpu", "rtx-3060", "--batch-size", "512", "--json"]
    assert main(asked) == 0
    assert len(json.loads(capsys.readouterr().out)["options"]) > 2
    assert seen == ["open_dataset", "survey"]


def test_a_run_opens_its_data_once_and_again_when_it_goes_on(
    seen: list[str], tmp_path: Path
) -> None:
    job = resolve("mlp", data=DATA, global_batch=32, epochs=1)
    memfit.train(job, runs=tmp_path, name="run")
    assert seen == ["open_dataset", "survey"]
    memfit.open_trained(tmp_path / "run").evaluate("train")
    assert seen == ["open_dataset", "survey"] * 2


def test_a_study_with_all_its_trials_opens_its_data_once(seen: list[str], tmp_path: Path) -> None:
    job = resolve("mlp", data=DATA, lr=0.02, epochs=3)
    run_study(job, batch_sizes=(8, 16), seeds=1, budget_seconds=1.0, folder=tmp_path / "study")
    assert len(list((tmp_path / "study" / "runs").iterdir())) > 2
    assert seen == ["open_dataset", "survey"]


def test_other_colours_are_looked_at_without_opening_again(seen: list[str]) -> None:
    job = resolve("mlp", data=DATA)
    assert job.recipe.input_shape == (1, 8, 8)
    assert job.but(colour="rgb").recipe.input_shape == (3, 8, 8)
    assert job.but(lr=0.1).recipe.num_classes == 8
    assert seen == ["open_dataset", "survey", "survey"]
    assert job.but(data=DATA.replace("size=8", "size=16")).recipe.input_shape == (1, 16, 16)
    assert seen.count("open_dataset") == 2


def test_nothing_keeps_data_alive() -> None:
    job = resolve("mlp", data=DATA)
    job.loader()
    opened = weakref.ref(job.data.dataset.train)
    del job
    gc.collect()
    assert opened() is None


def test_a_job_is_made_without_torch() -> None:
    line = f"""
import sys
from memfit.step.job import resolve
assert resolve("cnn", data="{DATA}").recipe.input_shape == (1, 8, 8)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", line], check=True)


# -- objects ---------------------------------------------------------------------------------------


def test_every_field_that_takes_code_takes_it_from_the_users_own() -> None:
    takes = [row.name for row in FIELDS.values() if row.takes_code]
    assert sorted(takes) == sorted(field.name for field in fields(Own))


def test_the_recipe_names_objects_and_comes_back_from_toml(tmp_path: Path) -> None:
    dataset = open_dataset(DATA)
    job = resolve(**OBJECTS, data=dataset, precision="amp-bf16", augment=["flip"], lr=0.1)
    recipe = job.recipe
    assert (recipe.model, recipe.loss, recipe.data) == ("net", "squared", DATA)
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe.to_dict()))
    assert load_recipe(tmp_path / "recipe.toml") == recipe


def test_options_of_an_optimizer_come_back_from_toml(tmp_path: Path) -> None:
    recipe = Recipe(model="mlp", optimizer={"name": "adam", "betas": (0.9, 0.95)})
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe.to_dict()))
    assert load_recipe(tmp_path / "recipe.toml") == recipe


def test_a_run_of_objects_writes_a_recipe_that_comes_back_equal(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": DATA, "global_batch": 32, "epochs": 1, "workers": 0}
    result = memfit.train(**OBJECTS, **options, runs=tmp_path, name="run")
    saved = load_recipe(result.path / "recipe.toml")
    assert {name: getattr(saved, name) for name in OBJECTS} == {
        name: value.__name__ for name, value in OBJECTS.items()
    }
    trained = memfit.open_trained(result.path, model=net, optimizer=plain_sgd, transform=brighter)
    again = trained.evaluate()
    assert result.evaluation is not None
    assert again.accuracy == result.evaluation.accuracy


@pytest.mark.parametrize("name", ["model", "loss", "transform", "optimizer"])
def test_an_object_in_a_recipe_is_refused_and_told_where_it_goes(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is a Python object") as raised:
        Recipe(**{"model": "mlp", name: OBJECTS[name]})
    assert raised.value.hint is not None
    assert f"memfit.plan(recipe, {name}=...)" in raised.value.hint
    recipe = Recipe(model="mlp", input_shape=(1, 8, 8), num_classes=8)
    assert memfit.plan(recipe, gpu="11GiB", **{name: OBJECTS[name]}).recipe != recipe


def test_an_object_holds_as_long_as_the_recipe_names_it() -> None:
    job = resolve(**OBJECTS, data=DATA)
    assert job.but(lr=0.5).own == job.own
    changed = job.but(optimizer="adamw")
    assert changed.optimizer == "adamw"
    assert changed.own.model is net
    assert job.of(job.but(lr=0.5).recipe).own == job.own


@pytest.mark.parametrize("name", ["loss", "step"])
def test_code_that_is_only_named_is_missed(name: str) -> None:
    with pytest.raises(UsageError, match="only your own code has"):
        memfit.plan("mlp", input_shape=(1, 8, 8), **{name: "mine"})


def test_a_text_that_no_path_can_be_is_no_path() -> None:
    job = resolve("mlp", input_shape=(1, 8, 8), weights="x" * 4000)
    assert job.but(lr=0.1).absolute().recipe.weights == "x" * 4000


def test_without_a_model_there_is_no_plan() -> None:
    with pytest.raises(UsageError, match="Which model"):
        memfit.plan(input_shape=(1, 8, 8))
