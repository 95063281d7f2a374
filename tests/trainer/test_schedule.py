"""The learning rate at every step, against PyTorch's own schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from memfit.recipe.recipe import Recipe
from memfit.trainer.step.schedule import peak_learning_rate, rate_at

STEPS = 40


def rates(**options: Any) -> list[float]:
    made = Recipe(model="mlp", **options)
    return [rate_at(step, STEPS, made) for step in range(STEPS)]


def torchs(make: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_torchs() -> None:
    expected = torchs(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS))
    assert rates(warmup=0.0) == pytest.approx(expected)


def test_steps_are_torchs() -> None:
    expected = torchs(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [20, 30]))
    assert rates(schedule="step", warmup=0.0) == pytest.approx(expected)
    expected = torchs(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [10]))
    assert rates(schedule="step", warmup=0.0, milestones=(0.25,)) == pytest.approx(expected)


def test_warm_up_is_torchs() -> None:
    expected = torchs(
        lambda optimizer: lr_scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    )
    assert rates(schedule="constant", warmup=0.2) == pytest.approx(expected)


@given(
    st.sampled_from(["cosine", "step", "constant"]),
    st.floats(0, 0.99),
    st.integers(1, 300),
    st.data(),
)
def test_a_rate_is_a_share(kind: Any, warmup: float, total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))
    made = Recipe(model="mlp", schedule=kind, warmup=warmup)
    assert 0 < rate_at(step, total, made) <= 1


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"lr": 0.3, "base_lr": 0.1}, 0.3),
        ({"base_lr": 0.1, "base_batch_size": 256}, 0.4),  # linear for SGD
        ({"base_lr": 0.1, "base_batch_size": 256, "optimizer": "adamw"}, 0.2),  # square root
        ({}, 0.1),
        ({"optimizer": {"name": "adamw", "fused": True}}, 1e-3),
        ({"optimizer": "lion"}, 2e-4),
    ],
)
def test_the_peak(options: dict[str, Any], rate: float) -> None:
    made = Recipe(model="mlp", **options)
    assert peak_learning_rate(made, 1024) == pytest.approx(rate)
