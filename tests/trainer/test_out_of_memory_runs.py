"""Runs that run out of memory: none dies, and what they learn is what a smaller batch learns.

The references, for models whose samples do not depend on each other:

- Memory ran out in forward or backward of step k: the micro-batch is smaller from step k on. The
  reference is a run that was stopped before step k, whose checkpoint was told the smaller
  micro-batch, and which was resumed. For the first step it is literally a run with the smaller
  micro-batch from its start.
- Memory ran out in the optimizer's step or in the evaluation: the undisturbed run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import (
    CONV,
    DATA,
    NORM,
    Watcher,
    assert_same,
    budgets,
    recipe,
    state_of,
    steps_of,
    stop_at,
    weights_of,
)

from memfit.errors import DoesNotFit, ExitCode
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.tape.tape import Phase
from memfit.trainer.run.run import train
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.weights.checkpoint import save_checkpoint

OPTIONS: dict[str, Any] = {
    "optimizer": "adamw", "ema": True, "clip_grad_norm": 1.0, "augment": ("flip", "mixup"),
    "grow_after": 1000,
}  # fmt: skip
LAST = 8  # of two epochs of four steps


@pytest.fixture(scope="session")
def conv(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "conv.py"
    path.write_text(CONV)
    return f"{path}:build"


@pytest.fixture(scope="session")
def undisturbed(conv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = recipe(conv, **OPTIONS)
    return train(given, runs=tmp_path_factory.mktemp("whole"), name="run").path


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[CpuBudget]:
    yield from budgets(monkeypatch)


def smaller_from(step: int, size: int, conv: str, runs: Path) -> dict[str, Any]:
    """The weights of a run with a smaller micro-batch from a step on, as the module says."""
    given = recipe(conv, **OPTIONS)
    if step == 1:
        return weights_of(train(given.but(batch_size=size), runs=runs, name="small").path)
    path = stop_at(step - 1, given, runs, "small").path
    checkpoints = RunFolder.open(path).checkpoints
    file, state = checkpoints.newest()
    state["micro_batch"]["size"] = size
    save_checkpoint(file, state)
    checkpoints.last_path.unlink()
    return weights_of(train(resume=path).path)


@pytest.mark.parametrize("step", [1, 2, 4, LAST])
@pytest.mark.parametrize(
    ("phase", "after"),
    [(Phase.FORWARD, 1), (Phase.FORWARD, 4), (Phase.BACKWARD, 1), (Phase.BACKWARD, 5)],
)
def test_in_forward_or_backward(
    step: int, phase: Phase, after: int, conv: str, budget: CpuBudget, tmp_path: Path,
    references: Callable[[int], dict[str, Any]],
) -> None:  # fmt: skip
    watcher = Watcher(step - 1, lambda: budget.fail(phase, after))
    result = train(recipe(conv, **OPTIONS), runs=tmp_path, name="run", listener=watcher)
    assert not budget.is_failure_pending
    assert (result.status, result.step) == ("finished", LAST)
    (event,) = watcher.events
    assert (event.step, event.phase, event.from_size, event.to_size) == (step - 1, phase, 24, 12)
    assert [made.micro_batch for made in watcher.steps] == [24] * (step - 1) + [12] * (9 - step)
    assert_same(weights_of(result.path), references(step))
    (line,) = (m for m in state_of(result.path)["metrics"] if m["event"] == "micro-batch")
    assert (line["step"], line["from"], line["to"]) == (step, 24, 12)
    assert line["predicted_bytes"] > 0
    assert "virtual budget" in line["message"]
    assert result.summary.micro_batch_events[0].to_size == 12


@pytest.fixture(scope="session")
def references(
    conv: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, Any]]:
    """The reference for each step, made once."""
    known: dict[int, dict[str, Any]] = {}

    def reference(step: int) -> dict[str, Any]:
        if step not in known:
            known[step] = smaller_from(step, 12, conv, tmp_path_factory.mktemp("reference"))
        return known[step]

    return reference


def test_references_are_not_all_the_same(
    references: Callable[[int], dict[str, Any]], undisturbed: Path
) -> None:
    """Or the tests above could not fail."""
    weights = [references(1)["model"], references(4)["model"], weights_of(undisturbed)["model"]]
    assert not any(
        torch.equal(one["0.weight"], other["0.weight"])
        for one, other in zip(weights, [*weights[1:], weights[0]], strict=True)
    )


@pytest.mark.parametrize("step", [1, 3, LAST])
@pytest.mark.parametrize("after", [1, 4])
def test_in_the_optimizers_step(
    step: int, after: int, conv: str, undisturbed: Path, budget: CpuBudget, tmp_path: Path
) -> None:
    watcher = Watcher(step - 1, lambda: budget.fail(Phase.OPTIMIZER, after))
    result = train(recipe(conv, **OPTIONS), runs=tmp_path, name="run", listener=watcher)
    assert not budget.is_failure_pending
    back = 0 if step <= 4 else 4
    assert [note for note in watcher.notes if "optimizer" in note] == [
        f"Memory ran out in the optimizer's step {step}: back to step-{back:08}.pt."
    ]
    assert_same(state_of(result.path), state_of(undisturbed))
    assert steps_of(result.path) == list(range(1, LAST + 1))


@pytest.mark.parametrize("step", [4, LAST])
@pytest.mark.parametrize("after", [1, 3, 6])
def test_in_the_evaluation(
    step: int, after: int, conv: str, undisturbed: Path, budget: CpuBudget, tmp_path: Path
) -> None:
    watcher = Watcher(step, lambda: budget.fail(Phase.FORWARD, after))
    result = train(recipe(conv, **OPTIONS), runs=tmp_path, name="run", listener=watcher)
    assert not budget.is_failure_pending
    assert watcher.events == [], "evaluation has its own size"
    assert watcher.notes == []
    assert result.evaluation is not None
    assert result.evaluation.samples == 32
    assert_same(weights_of(result.path), weights_of(undisturbed))
    expected = [m["accuracy"] for m in state_of(undisturbed)["metrics"] if "accuracy" in m]
    assert [found.accuracy for _, _, found, _ in watcher.epochs if found] == expected


def test_again_and_again(conv: str, budget: CpuBudget, tmp_path: Path) -> None:
    """Failures in every step: the smallest size ends it, and nothing is lost."""

    class FailsAlways(Watcher):
        def changed_micro_batch(self, event: Any) -> None:
            super().changed_micro_batch(event)
            budget.fail(Phase.BACKWARD, 2)

    watcher = FailsAlways(2, lambda: budget.fail(Phase.BACKWARD, 2))
    with pytest.raises(DoesNotFit, match="Not even a micro-batch of 1 fits") as caught:
        train(recipe(conv, **OPTIONS), runs=tmp_path, name="run", listener=watcher)
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
    assert [event.to_size for event in watcher.events] == [12, 8, 6, 4, 3, 2, 1]
    state = state_of(tmp_path / "run")
    assert state["step"] == 2, "a checkpoint from before the step"
    assert RunFolder.open(tmp_path / "run").status == "stopped"
    before = stop_at(2, recipe(conv, **OPTIONS), tmp_path, "before").path
    assert_same(weights_of(tmp_path / "run"), weights_of(before))
    assert train(resume=tmp_path / "run").status == "finished"


def test_an_optimizers_step_that_never_fits(conv: str, budget: CpuBudget, tmp_path: Path) -> None:
    class FailsAgain(Watcher):
        def note(self, text: str) -> None:
            super().note(text)
            self.at = 2

    watcher = FailsAgain(2, partial(budget.fail, Phase.OPTIMIZER, 1))
    with pytest.raises(DoesNotFit, match="The optimizer's step does not fit"):
        train(recipe(conv, **OPTIONS), runs=tmp_path, name="run", listener=watcher)
    assert state_of(tmp_path / "run")["step"] == 0
    assert train(resume=tmp_path / "run").status == "finished"
    whole = train(recipe(conv, **OPTIONS), runs=tmp_path, name="whole")
    assert_same(state_of(tmp_path / "run"), state_of(whole.path))


def test_it_grows_back_and_is_resumed_in_between(
    conv: str, budget: CpuBudget, tmp_path: Path
) -> None:
    """The count of clean steps is in the checkpoint: sizes change at the same steps."""
    given = recipe(conv, **(OPTIONS | {"grow_after": 3}))
    watcher = Watcher(1, lambda: budget.fail(Phase.FORWARD, 2))
    whole = train(given, runs=tmp_path, name="whole", listener=watcher)
    assert [made.micro_batch for made in watcher.steps] == [24, 12, 12, 24, 24, 24, 24, 24]
    assert [event.phase for event in watcher.events] == ["forward", "growth"]

    class Stops(Watcher):
        def took_step(self, result: Any, used_bytes: int | None) -> None:
            super().took_step(result, used_bytes)
            if result.step == 1:
                budget.fail(Phase.FORWARD, 2)
            if result.step == 3:
                os.kill(os.getpid(), 15)

    assert train(given, runs=tmp_path, name="run", listener=Stops()).status == "stopped"
    train(resume=tmp_path / "run")
    states = [state_of(path) for path in (tmp_path / "run", whole.path)]
    for line in (line for state in states for line in state["metrics"]):
        line.pop("message", None)  # tells how much was allocated
    assert_same(*states)


def test_batch_norm_survives_down_to_one_sample(budget: CpuBudget, tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(NORM)

    class FailsOften(Watcher):
        def changed_micro_batch(self, event: Any) -> None:
            super().changed_micro_batch(event)
            if event.to_size > 1:
                budget.fail(Phase.FORWARD, 1)

    watcher = FailsOften(2, lambda: budget.fail(Phase.FORWARD, 1))
    given = recipe(f"{tmp_path}/norm.py:build", **(OPTIONS | {"augment": ()}))
    result = train(given, runs=tmp_path, name="run", listener=watcher)
    assert result.status == "finished"
    assert watcher.events[-1].to_size == 1
    assert sum("alone in its batch" in note for note in watcher.notes) == 1


def test_the_command_says_that_it_does_not_fit(tmp_path: Path) -> None:
    """The weights fit, a single sample's activations do not."""
    (tmp_path / "wide.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Upsample(scale_factor=64), nn.Conv2d(3, 2, 3), nn.ReLU(),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 8))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "memfit", "train", "--model", "wide.py:build", "--data", DATA,
         "--memory", "8MiB", "--name", "run", "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.DOES_NOT_FIT, done.stderr
    assert "error: Not even a micro-batch of 1 fits" in done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "runs" / "run"
    assert RunFolder.open(run).status == "stopped"
    assert state_of(run)["step"] == 0
    assert (run / "plan.json").exists()
