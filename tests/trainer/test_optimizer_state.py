"""State that is made ahead trains as state that the first step makes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from memfit.errors import DoesNotFit
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.tape.tape import Phase
from memfit.trainer.recovery.optimizer_state import allocate_state

optim = torch.optim
Make = Callable[[Any], torch.optim.Optimizer]

READY: dict[str, Make] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    "adam": lambda p: optim.Adam(p, weight_decay=1e-2),
    "adamw": optim.AdamW,
    "amsgrad": lambda p: optim.AdamW(p, amsgrad=True),
    "fused": lambda p: optim.AdamW(p, fused=True),
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "adamax": optim.Adamax,
    "adadelta": optim.Adadelta,
    "adagrad": optim.Adagrad,
    "rmsprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "rprop": optim.Rprop,
    "asgd": optim.ASGD,
    "adafactor": optim.Adafactor,
}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(4, 6, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


def shapes(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    states = optimizer.state_dict()["state"]
    return [{key: getattr(v, "shape", None) for key, v in one.items()} for one in states.values()]


@pytest.mark.parametrize("name", READY)
def test_nothing_changes_but_when(name: str) -> None:
    lazy, ahead = model(), model()
    lazy_optimizer, optimizer = READY[name](lazy.parameters()), READY[name](ahead.parameters())
    assert allocate_state(optimizer)
    assert all(parameter.grad is None for parameter in ahead.parameters())
    made = shapes(optimizer)
    train(lazy, lazy_optimizer, 1)
    assert made == [one for one in shapes(lazy_optimizer) if one.keys() != {"momentum_buffer"} or
                    one["momentum_buffer"] is not None]  # fmt: skip
    train(lazy, lazy_optimizer, 3)
    train(ahead, optimizer, 1)
    train(ahead, optimizer, 3)
    for one, other in zip(lazy.parameters(), ahead.parameters(), strict=True):
        assert torch.equal(one, other)


def test_frozen_parameters_get_none_and_gradients_stay() -> None:
    net = model()
    net[0].requires_grad_(False)
    gradient = net[2].weight.grad = torch.ones_like(net[2].weight)
    optimizer = optim.AdamW(net.parameters())
    assert allocate_state(optimizer)
    assert set(optimizer.state) == set(net[2].parameters())
    assert net[2].weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_state_that_is_there_is_left_alone() -> None:
    net = model()
    optimizer = optim.AdamW(net.parameters())
    train(net, optimizer, 2)
    before = copy.deepcopy(optimizer.state_dict())
    assert allocate_state(optimizer)
    assert str(before) == str(optimizer.state_dict())


class Own(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


def test_says_when_it_cannot_know() -> None:
    assert not allocate_state(Own(model().parameters()))
    damped = optim.SGD(model().parameters(), momentum=0.9, dampening=0.5)
    assert not allocate_state(damped)
    assert not any(damped.state.values())


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_state_that_does_not_fit_leaves_none(after: int) -> None:
    net = model()
    optimizer = optim.AdamW(net.parameters())
    with CpuBudget(64 * 1024**2) as budget:
        budget.adopt(net)
        before = budget.allocated_bytes
        budget.fail(Phase.DATA, after)
        with pytest.raises(DoesNotFit, match="state does not fit") as error:
            allocate_state(optimizer)
        assert error.value.__context__ is None
        assert not optimizer.state
        assert budget.allocated_bytes == before
        assert all(parameter.grad is None for parameter in net.parameters())
        assert allocate_state(optimizer)
