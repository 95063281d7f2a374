"""Runs of a second, what is told of them, and whether two of them came to the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.recipe.recipe import Recipe
from memfit.step.job import Job
from memfit.trainer.recovery.transaction import MicroBatchEvent
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.run.run import RunResult, train
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult
from memfit.trainer.weights.checkpoint import load_checkpoint

DATA = "shapes,train=96,val=32,test=32,size=16"

#: No layer depends on the other samples of a batch.
CONV = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.ReLU(), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(392, 8),
    )
"""
#: BatchNorm has one value for each channel and sample.
NORM = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)
    )
"""


class Crash(BaseException):
    """Ends a run as a kill would: nothing more is written."""


class Watcher(Listener):
    """Keeps what it is told, and does something at a step."""

    def __init__(self, at: int | None = None, do: Callable[[], object] = lambda: None) -> None:
        self.at, self.do = at, do
        self.beginning: Beginning | None = None
        self.notes: list[str] = []
        self.steps: list[StepResult] = []
        self.events: list[MicroBatchEvent] = []
        self.epochs: list[tuple[int, int, Evaluation | None, bool]] = []
        self.checkpoints: list[str] = []

    def began(self, beginning: Beginning) -> None:
        self.beginning = beginning
        if self.at == beginning.step == 0:
            self.do()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        self.steps.append(result)
        if result.step == self.at:
            self.at = None
            self.do()

    def changed_micro_batch(self, event: MicroBatchEvent) -> None:
        self.events.append(event)

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        self.epochs.append((step, epoch, evaluation, is_best))

    def saved(self, path: Path) -> None:
        self.checkpoints.append(path.name)


def recipe(model: str = "mlp", **options: Any) -> Recipe:
    """Four steps an epoch, two epochs."""
    defaults: dict[str, Any] = {"data": DATA, "global_batch": 24, "epochs": 2, "lr": 0.01}
    return Recipe(model=model, **(defaults | options))


def sigterm() -> None:
    """To this process: the run stops after its step."""
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise Crash


def stop_at(step: int, given: Recipe | Job, runs: Path, name: str) -> RunResult:
    """A run that a signal stops after a step."""
    result = train(given, runs=runs, name=name, listener=Watcher(step, sigterm))
    assert result.status == "stopped"
    assert result.step == step
    return result


def state_of(run: Path) -> dict[str, Any]:
    """Its last checkpoint, and its metrics line by line."""
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    return state | {"metrics": RunFolder.open(run).metrics.read()}


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal to the bit, in every tensor and value."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def weights_of(run: Path) -> dict[str, Any]:
    """What was learned, without how it was cut into micro-batches."""
    state = state_of(run)
    return {name: state[name] for name in ("model", "optimizer", "model_average", "step")}


def steps_of(run: Path) -> list[int]:
    """The steps in the metrics, in order."""
    return [line["step"] for line in state_of(run)["metrics"] if line["event"] == "step"]


def budgets(monkeypatch: Any, capacity_bytes: int = 1 << 30) -> Iterator[CpuBudget]:
    """Runs take place in a budget that a test can make fail."""
    from memfit.trainer.run import run
    from memfit.trainer.step.devices import RunDevice

    budget = CpuBudget(capacity_bytes)
    place = RunDevice(torch.device("cpu"), None, None, budget)
    monkeypatch.setattr(run, "choose_device", lambda *_: place)
    yield budget
