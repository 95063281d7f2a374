"""What the processes of ``test_ranks.py`` do together; each leaves its results in a folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from memfit.errors import UsageError
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.tape.tape import Phase
from memfit.step.job import Job, resolve
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.run.listener import Listener
from memfit.trainer.run.planned import planned
from memfit.trainer.run.run import RunResult
from memfit.trainer.run.run import train as train_recipe
from memfit.trainer.step.ingredients import prepare_ingredients
from memfit.trainer.step.training import StepResult, Training

CPU = torch.device("cpu")

#: A user's model whose second rank fails in its fifth training step, as an environment asks.
MODEL = """
import os, signal
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU())
        self.head = nn.Linear(32, 8)
        self.calls = 0

    def forward(self, x):
        if self.training and x.device.type == "cpu" and os.environ.get("RANK") == "1":
            self.calls += 1
            if self.calls == 5:
                fail(x)
        return self.head(self.body(x))

def fail(x):
    wanted = os.environ.get("TEST_ACT")
    if wanted == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if wanted == "memory" and len(x) > 8:
        raise torch.OutOfMemoryError("injected")
    if wanted == "raise":
        raise ZeroDivisionError("a mistake in the model")

build = Net
"""


class Partly(nn.Module):
    """A layer that no sample reaches, which weight decay must not shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(768, 8)
        self.never = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


SHAPES = "shapes,train={},val=33,test=33,size=16"
#: The last batches have 2 and 1 samples, less than three and two ranks.
JOBS: dict[str, Job] = {
    "adamw": resolve(
        model="mlp", data=SHAPES.format(98), global_batch=32, epochs=2, optimizer="adamw",
        lr=0.003, ema=True, clip_grad_norm=0.5, augment=("crop=2", "flip", "mixup=0.2"),
    ),
    "sgd": resolve(
        model="mlp", data=SHAPES.format(97), global_batch=32, batch_size=4, epochs=2,
        optimizer={"name": "sgd", "momentum": 0.9}, lr=0.01,
    ),
    "plain-sgd": resolve(model="mlp", data=SHAPES.format(64), global_batch=32, epochs=1, lr=0.01),
    "bf16": resolve(
        model="mlp", data=SHAPES.format(64), global_batch=32, epochs=2, lr=0.01,
        precision="amp-bf16",
    ),
    "norm": resolve(model="cnn", data=SHAPES.format(96), global_batch=32, epochs=1, lr=0.01),
    "partly": resolve(
        model=Partly, data=SHAPES.format(64), global_batch=32, epochs=1, optimizer="adamw",
    ),
}  # fmt: skip


def train(key: str, folder: Path, name: str, **options: Any) -> RunResult:
    return train_recipe(JOBS[key].but(**options), name=name, runs=folder, device="cpu")


def prepared(job: Job, ranks: Ranks, sizes: tuple[int, ...]) -> Training:
    _, job = planned(job)
    made = prepare_ingredients(job, CPU, ranks)
    samples = job.loader(rank=ranks.rank, world_size=ranks.world_size)
    return Training(made, samples, 2 * len(samples), sizes, ranks=ranks)


def all_steps(training: Training, before: Callable[[], None]) -> None:
    for epoch in range(2):
        for batch in training.loader.batches(epoch):
            before()
            assert training.take_step(batch) is not None


def fails_on_one_rank(folder: Path, ranks: Ranks) -> None:
    """Step 3 fails once on the last rank; beside it a run that takes 5 from there on by itself."""
    for phase, after in ((Phase.FORWARD, 1), (Phase.BACKWARD, 2)):
        recipe = JOBS["sgd"].but(grow_after=10**6)
        budget = CpuBudget(1 << 30)
        training = prepared(recipe, ranks, (16, 5, 2))
        with budget:
            budget.adopt(training.ingredients.model)

            def fail(training: Training = training, budget: CpuBudget = budget) -> None:
                if training.step == 2 and ranks.rank == ranks.world_size - 1:
                    budget.fail(phase, after)  # noqa: B023

            all_steps(training, fail)
        told = [(e.step, e.phase, e.from_size, e.to_size) for e in training.fitting.events]
        other = prepared(recipe, ranks, (16, 5, 2))

        def shrink(other: Training = other) -> None:
            if other.step == 2:
                other.fitting.load_state_dict(other.fitting.state_dict() | {"size": 5})

        all_steps(other, shrink)
        state = {"failed": training.state_dict(), "other": other.state_dict(), "events": told}
        torch.save(state, folder / f"fails-{phase.name}-{ranks.rank}.pt")


def fails_in_the_optimizer(folder: Path, ranks: Ranks) -> None:
    """One rank cannot take the optimizer's step: all go back to the checkpoint and do it again."""
    calls = [0]

    def once(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        calls[0] += optimizer.param_groups[0]["params"][0].device.type == "cpu"  # not the plan's
        if calls[0] == 3 and ranks.rank == 1:
            raise torch.OutOfMemoryError("injected")

    from torch.optim.optimizer import register_optimizer_step_pre_hook

    handle = register_optimizer_step_pre_hook(once)
    train("sgd", folder, "optimizer-failed")
    handle.remove()


def sees_other_data(folder: Path, ranks: Ranks) -> None:
    """As on a machine with other files."""
    recipe = JOBS["plain-sgd"].but(data=SHAPES.format(64 + ranks.rank))
    with pytest.raises(UsageError, match="Number of images is 64 on rank 0 and 65 on rank 1"):
        train_recipe(recipe, name="other-data", runs=folder, device="cpu")


def own_model(folder: Path, ranks: Ranks) -> None:
    recipe = JOBS["adamw"].but(
        model=f"{folder}/model.py:build", data=SHAPES.format(96), epochs=3, checkpoint_every=2
    )
    train_recipe(recipe, name="own-2", runs=folder, device="cpu")


def shares_statistics(folder: Path, ranks: Ranks) -> None:
    """Each rank's BatchNorm has seen other samples; after the step all have the first one's."""
    training = prepared(JOBS["norm"], ranks, (16,))
    norm = training.ingredients.model[0].norm  # type: ignore[union-attr,index]
    own: list[Tensor] = []
    norm.register_forward_hook(lambda *_: own.append(norm.running_mean.clone()))  # type: ignore[union-attr]
    training.take_step(next(iter(training.loader.batches(0))))
    seen, now = ranks.gather(own[0]), ranks.gather(norm.running_mean)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(now[0], seen[0])
    assert torch.equal(now[1], seen[0])


def unreadable_on_one_rank(folder: Path, ranks: Ranks) -> None:
    """The second rank's whole share cannot be read: the others' samples are the batch."""
    training = prepared(JOBS["plain-sgd"], ranks, (16, 8))
    for batch in training.loader.batches(0):
        gone = ranks.rank == 1 or training.step == 1
        result = training.take_step(batch[:0] if gone else batch)
        if training.step == 0:
            assert result is None
        elif result is not None:
            assert result.samples == 16
    torch.save(training.state_dict(), folder / f"unreadable-{ranks.rank}.pt")


class StopsAfter(Listener):
    """Sends this process what ``kill`` sends, in the middle of the second epoch."""

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:
        if result.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)


def stops(folder: Path, name: str, **options: Any) -> None:
    recipe = JOBS["adamw"].but(**options)
    result = train_recipe(recipe, name=name, runs=folder, device="cpu", listener=StopsAfter())
    assert result.status == "stopped"
    assert result.step == 5


def stops_on_two(folder: Path, ranks: Ranks) -> None:
    stops(folder, "stopped-2")
    stops(folder, "stopped-2shard", shard=True)


def goes_on(folder: Path, ranks: Ranks) -> None:
    """What one process began."""
    train_recipe(resume=folder / "stopped-1", device="cpu")
    train_recipe(resume=folder / "stopped-1shard", device="cpu", shard=True)


def work(rank: int, world_size: int, folder: Path, names: tuple[str, ...]) -> None:
    """One process."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    meeting = f"file://{folder}/meeting-{world_size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    ranks = Ranks.join(CPU)
    for name in names:
        key, _, way = name.partition("/")
        if key in JOBS:
            train(key, folder, f"{key}-{world_size}{way}", shard=way == "shard")
        else:
            globals()[key](folder, ranks)
        dist.barrier()
    dist.destroy_process_group()
