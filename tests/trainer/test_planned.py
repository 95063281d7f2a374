"""The plan of a run against the run itself, on the CPU under a virtual budget: to the byte.

Compared are every allocation of the steps (its phase, its bytes, what is allocated after it), the
peaks of the allocator, and the parts at the peak. Left aside in the plan is what CUDA's kernels
take beside their outputs (workspaces and other temporaries), and left out are allocations of no
bytes. Optimizers are given CUDA's default on the CPU: lists instead of one tensor at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from small_runs import NORM, Watcher, budgets, recipe

from memfit.memory.allocator.timeline import Timeline, replay
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.recording.ledger import Record
from memfit.memory.tape.tape import Phase
from memfit.planner.plan import Plan
from memfit.torch_inside import lists_on
from memfit.trainer.run.run import train

STEPS = 2
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9}, "clip_grad_norm": 1.0},
    "zero": {"optimizer": "adam", "zero_grad": "zero"},
    "adamw": {"optimizer": "adamw", "ema": True},
    "adagrad": {"optimizer": "adagrad", "ema": True},
    "lion": {"optimizer": "lion", "label_smoothing": 0.1},
    "accumulated": {"optimizer": "adamw", "batch_size": 12, "clip_grad_norm": 0.5},
    "accumulated-zero": {"batch_size": 12, "zero_grad": "zero", "ema": True},
}


@dataclass(frozen=True)
class Row:
    """An allocation: when, how much, and what is allocated with it."""

    phase: Phase
    size_bytes: int
    allocated_bytes: int


class Account(Watcher):
    """Writes down what a budget counts, from the first checkpoint to the end of a step."""

    def __init__(self, budget: CpuBudget, steps: int = STEPS) -> None:
        super().__init__(steps, self._end)
        self._budget = budget
        self._ledger: Any = budget.recorder.ledger
        self._allocate = self._ledger.allocate
        self.rows: list[Row] = []

    def saved(self, path: Path) -> None:
        if not self.checkpoints:
            self._budget.reset_peak()
            self._ledger.allocate = self._note
        super().saved(path)

    def _note(self, record: Record) -> int:
        number: int = self._allocate(record)
        if record.size_bytes:
            self.rows.append(Row(record.phase, record.size_bytes, self._budget.allocated_bytes))
        return number

    def _end(self) -> None:
        del self._ledger.allocate
        self.peaks = self._budget.max_allocated_bytes, self._budget.max_reserved_bytes
        self.parts = self._budget.peak_parts


def planned(plan: Plan, micro_batch: int) -> tuple[list[Row], Timeline]:
    """Of the tensors on the plan's tape: a kernel's own has no type."""
    tape, sizes = plan.tape_at(micro_batch)
    number_of = {event: event if event >= 0 else ~event for event in tape.events}
    events = tuple(e for e in tape.events if tape.allocations[number_of[e]].dtype)
    timeline = replay(replace(tape, events=events), sizes)
    rows = [
        Row(tape.allocations[event].phase, sizes[event], allocated)
        for event, allocated in zip(events, timeline.allocated_bytes, strict=True)
        if event >= 0 and sizes[event]
    ]
    return rows, timeline


def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[CpuBudget]:
    """Runs take place in a budget, and optimizers take lists."""
    with lists_on("cpu"):
        yield from budgets(monkeypatch)


budget = pytest.fixture(as_on_cuda, name="budget")


def peaks(timeline: Timeline) -> tuple[int, int]:
    return timeline.peak_allocated_bytes, timeline.peak_reserved_bytes


def without_numbers(rows: list[Row]) -> list[Row]:
    """Between steps an average counts on the host, which here is the device, and ranks vote."""
    return [row for row in rows if row.phase is not Phase.DATA or row.size_bytes > 8]


def assert_as_planned(account: Account, micro_batch: int) -> None:
    """The same rows, after those of what was there before the first step."""
    assert account.beginning is not None
    plan = account.beginning.plan
    rows, timeline = planned(plan, micro_batch)
    are_many = account.beginning.world_size > 1
    if plan.recipe.ema or are_many:
        rows, account.rows = without_numbers(rows), without_numbers(account.rows)
    if are_many:  # gloo's own thread lets go of what was sent when it likes
        rows = [replace(row, allocated_bytes=0) for row in rows]
        account.rows = [replace(row, allocated_bytes=0) for row in account.rows]
    before, during = rows[: -len(account.rows)], rows[-len(account.rows) :]
    assert account.rows == during
    assert {row.phase for row in before} == {Phase.DATA}, "model, state and what undoes a step"
    assert {row.phase for row in during} >= {Phase.DATA, Phase.FORWARD, Phase.BACKWARD}
    assert account.peaks == peaks(timeline)
    assert account.parts == timeline.peak.parts


@pytest.fixture(scope="session")
def norm(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "norm.py"
    path.write_text(NORM)
    return f"{path}:build"


@pytest.mark.parametrize("model", ["mlp", "norm", "cnn"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_takes_what_its_plan_says(
    name: str, model: str, norm: str, budget: CpuBudget, tmp_path: Path
) -> None:
    account = Account(budget)
    given = recipe(norm if model == "norm" else model, **OPTIONS[name])
    train(given, runs=tmp_path, name="run", listener=account)
    assert_as_planned(account, OPTIONS[name].get("batch_size", 24))


def test_frozen_layers(budget: CpuBudget, tmp_path: Path) -> None:
    account = Account(budget)
    train(recipe(optimizer="adamw", frozen=("1",)), runs=tmp_path, name="run", listener=account)
    assert_as_planned(account, 24)


def test_parameters_of_half_the_size(budget: CpuBudget, tmp_path: Path) -> None:
    account = Account(budget)
    train(recipe(optimizer="adam", precision="bf16"), runs=tmp_path, name="run", listener=account)
    assert_as_planned(account, 24)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 8, "ema": True},
        {"augment": ("crop=2", "flip", "mixup=0.2")},
        {"augment": ("cutmix=1",), "optimizer": "adamw"},
    ],
)
def test_the_peak_where_steps_are_not_alike(
    options: dict[str, Any], budget: CpuBudget, tmp_path: Path
) -> None:
    """Three micro-batches are planned as two; labels are mixed by other kernels."""
    account = Account(budget)
    train(recipe("cnn", **options), runs=tmp_path, name="run", listener=account)
    assert account.beginning is not None
    _, timeline = planned(account.beginning.plan, options.get("batch_size", 24))
    assert account.peaks == peaks(timeline)
    assert account.parts == timeline.peak.parts


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_mixed_precision(optimizer: str, budget: CpuBudget, tmp_path: Path) -> None:
    """The CPU casts in another order within forward and backward; what is there after is equal."""
    account = Account(budget)
    given = recipe(optimizer=optimizer, precision="amp-bf16", clip_grad_norm=1.0)
    train(given, runs=tmp_path, name="run", listener=account)
    assert account.beginning is not None
    rows, _ = planned(account.beginning.plan, 24)
    outside = [row for row in rows if row.phase in (Phase.DATA, Phase.OPTIMIZER)]
    own = [row for row in account.rows if row.phase in (Phase.DATA, Phase.OPTIMIZER)]
    assert own == outside[-len(own) :]
    assert {row.phase for row in own} == {Phase.DATA, Phase.OPTIMIZER}


RANKS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "clip_grad_norm": 1.0, "ema": True},
    "accumulated": {"batch_size": 6},
}


def one_of_two(rank: int, folder: Path) -> None:
    """A process: its gradients lie in buckets, its buffers are sent."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    for name, options in RANKS.items():
        for model in ("mlp", "cnn"):
            with pytest.MonkeyPatch.context() as monkeypatch:
                places = as_on_cuda(monkeypatch)
                account = Account(next(places))
                run = f"{name}-{model}"
                train(recipe(model, **options), runs=folder, name=run, listener=account)
                if rank == 0:  # listeners hear the first
                    assert_as_planned(account, options.get("batch_size", 12))
    torch.distributed.destroy_process_group()


def test_two_ranks_take_what_their_plan_says(tmp_path: Path) -> None:
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
