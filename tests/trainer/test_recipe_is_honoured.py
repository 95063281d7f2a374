"""What a recipe says is what a run does."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import DATA, Watcher, assert_same, recipe, state_of, stop_at
from torch import nn

import memfit
from memfit.errors import UsageError
from memfit.recipe.recipe import EXAMPLE, Recipe, example_recipe
from memfit.trainer.recovery.transaction import fit_micro_batch
from memfit.trainer.run.run import train
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.step.backends import backends_of

CPU = torch.device("cpu")


def test_no_field_is_read_by_the_planner_alone() -> None:
    """Of every field some module that trains, loads or builds says the name."""
    source = Path(inspect.getfile(memfit)).parent
    rooms = [path for name in ("step", "trainer", "data") for path in (source / name).rglob("*.py")]
    places = [*rooms, source / "planner" / "learning_rate.py"]
    text = "\n".join(path.read_text() for path in places)
    # share of a card; language models and detectors are not trained
    plan_only = {"safety", "input_ids", "boxes"}
    unread = {
        f.name for f in fields(Recipe) if f".{f.name}" not in text and f'"{f.name}"' not in text
    }
    assert unread <= plan_only


# -- learning rates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"optimizer": {"name": "sgd", "lr": 0.003}, "lr": None}, 0.003),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.05), "lr": None}, 0.05),
        ({"optimizer": {"name": "sgd", "lr": 0.003}, "lr": 0.2}, 0.2),
        ({"optimizer": "sgd", "lr": None}, 0.1),
        ({"optimizer": "adamw", "lr": None}, 0.001),
        ({"optimizer": "sgd", "lr": None, "base_lr": 0.1, "base_batch_size": 48}, 0.05),
    ],
)
def test_the_learning_rate_that_was_asked_for(
    options: dict[str, Any], rate: float, tmp_path: Path
) -> None:
    watcher = Watcher()
    given = recipe(schedule="constant", warmup=0.0, steps=1)
    train(given, runs=tmp_path, name="run", listener=watcher, **options)
    assert [step.learning_rate for step in watcher.steps] == [pytest.approx(rate)]


def test_groups_keep_their_own_rates(tmp_path: Path) -> None:
    seen: list[list[float]] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def two_groups(parameters: Any) -> torch.optim.Optimizer:
        first, *others = parameters
        return Spy([{"params": [first], "lr": 0.4}, {"params": others, "lr": 0.1}])

    given = recipe(lr=None, schedule="constant", warmup=0.0, steps=2)
    train(given, optimizer=two_groups, runs=tmp_path, name="run")
    assert seen[-1] == [0.4, 0.1]


def test_the_example_is_one_recipe_with_or_without_other_flags() -> None:
    assert example_recipe() == Recipe(**EXAMPLE)
    assert example_recipe(epochs=3) == Recipe(**EXAMPLE, epochs=3)
    assert example_recipe(optimizer="sgd").lr is None


# -- settings of PyTorch ---------------------------------------------------------------------------


def test_settings_hold_inside_and_are_put_back() -> None:
    def now() -> tuple[Any, ...]:
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        )

    before = now()
    given = Recipe(model="mlp", precision="tf32", cudnn_benchmark=True, attention="math")
    with backends_of(given, CPU):
        assert now() == ("high", True, False, False, True)
    assert now() == before
    with backends_of(Recipe(model="mlp", deterministic=True), CPU):
        assert torch.are_deterministic_algorithms_enabled()
    assert now() == before


def test_a_run_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    train(recipe(steps=1, deterministic=True), runs=tmp_path, name="run")
    assert not torch.are_deterministic_algorithms_enabled()


def test_accumulation_makes_the_global_batch(tmp_path: Path) -> None:
    watcher = Watcher()
    given = recipe(batch_size=8, accumulation=4, global_batch=None, steps=2)
    train(given, runs=tmp_path, name="run", listener=watcher)
    assert [(step.samples, step.micro_batch) for step in watcher.steps] == [(32, 8), (32, 8)]


def test_accumulating_needs_room_for_gradients_beside_activations() -> None:
    plan = memfit.plan("mlp", input_shape=(3, 32, 32), gpu="11GiB")
    other = plan.accumulating()
    gradients = 4 * plan.parameter_count
    grown = other.at(64).peak_allocated_bytes - plan.at(64).peak_allocated_bytes
    assert 0 < grown <= 1.1 * gradients
    assert other.accumulating() is other


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 4])
def test_an_epoch_that_the_batch_does_not_divide(step: int, tmp_path: Path) -> None:
    """96 images in batches of 40: the third is short, and a stop after it is at the epoch's end."""
    given = recipe(global_batch=40, checkpoint_every=1)
    train(given, runs=tmp_path, name="whole")
    stop_at(step, given, tmp_path, "stopped")
    train(resume=tmp_path / "stopped")
    assert_same(state_of(tmp_path / "stopped"), state_of(tmp_path / "whole"))


def test_more_memory_than_before_changes_no_step() -> None:
    model = nn.Linear(2, 2)
    small = fit_micro_batch(model, torch.optim.SGD(model.parameters()), (8, 4), grow_after=1)
    large = fit_micro_batch(model, torch.optim.SGD(model.parameters()), (16, 8, 4), grow_after=1)
    large.load_state_dict(small.state_dict())
    inputs = torch.ones(16, 2)
    for _ in range(3):
        large.backward(16, lambda part: model(inputs[part]).sum())
    assert large.size == 8


def test_a_kill_before_the_best_checkpoint_has_its_name(tmp_path: Path) -> None:
    stop_at(5, recipe(), tmp_path, "stopped")  # the first epoch has been evaluated
    run = RunFolder.open(tmp_path / "stopped")
    run.checkpoints.best_path.unlink()
    train(resume=tmp_path / "stopped")
    assert run.checkpoints.best_path.exists()


# -- images that are left out ----------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two classes in two splits; the same file is bad in both."""
    noise = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        (tmp_path / "photos" / split / "cat" / "3.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_skipped_images_of_all_splits_are_listed_also_after_a_resume(
    damaged: Path, tmp_path: Path
) -> None:
    given = recipe(data=str(damaged), global_batch=8, on_bad_image="skip", workers=0)
    stop_at(3, given, tmp_path / "runs", "run")
    result = train(resume=tmp_path / "runs" / "run")
    lines = (result.path / "skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["test/cat/3.png", "train/cat/3.png"]
    assert result.summary.skipped_images == 2


# -- heads -----------------------------------------------------------------------------------------

HEADS = """
from torch import nn

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 4))

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 12))
"""


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    (tmp_path / "heads.py").write_text(HEADS)
    return tmp_path / "heads.py"


def test_fewer_outputs_than_classes_are_refused(heads: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gives 4 scores, the data has 8 classes"):
        train(recipe(f"{heads}:narrow"), runs=tmp_path, name="run")


@pytest.mark.parametrize("augment", [(), ("mixup",)], ids=["plain", "mixup"])
def test_more_outputs_than_classes_count_as_wrong(
    heads: Path, augment: tuple[str, ...], tmp_path: Path
) -> None:
    result = train(recipe(f"{heads}:wide", augment=augment, steps=4), runs=tmp_path, name="run")
    found = result.evaluation
    assert found is not None
    assert len(found.confusion) == len(found.classes) == 12
    assert found.classes[8:] == tuple(f"class {number}" for number in range(8, 12))
    right = sum(found.confusion[n][n] for n in range(12))
    assert found.accuracy == right / 32
    answers = memfit.open_trained(result.path).evaluate("train")
    assert answers.samples == 96


def test_a_gradient_that_is_no_number_spoils_no_checkpoint(tmp_path: Path) -> None:
    """The loss is finite, its gradient is not: the next step's loss tells."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(768, 8)
            self.steps = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.steps += self.training
            scores: torch.Tensor = self.head(images.flatten(1))
            if self.steps == 3:
                scores = scores + (scores * 0).sqrt()  # infinite slope at zero
            return scores

    from memfit.errors import NonFiniteLoss

    given = recipe(checkpoint_every=1)
    with pytest.raises(NonFiniteLoss, match="last checkpoint is sound"):
        train(given, model=Root(), runs=tmp_path, name="run")
    state = state_of(tmp_path / "run")
    assert state["step"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in state["model"].values())


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from memfit.trainer.run.tensorboard import TensorBoardWriter

    result = train(recipe(data=DATA), runs=tmp_path, name="run", listener=TensorBoardWriter())
    events = EventAccumulator(str(result.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 9))
    assert len(events.Scalars("val/accuracy")) == 2
    assert len(events.Scalars("test/accuracy")) == 1
