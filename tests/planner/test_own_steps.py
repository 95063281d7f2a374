"""Whole steps of the user's own: several models, several optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import memfit
from memfit.errors import UsageError


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 784))
        self.critic = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 1))


class GanStep:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.of_critic = torch.optim.Adam(model.critic.parameters())
        self.of_generator = torch.optim.Adam(model.generator.parameters())

    def __call__(self, real: Any, _: Any) -> None:
        critic, ones = self.model.critic, torch.ones(len(real), 1, device=real.device)
        fake = self.model.generator(torch.randn(len(real), 64, device=real.device))
        loss = bce(critic(real), ones) + bce(critic(fake.detach()), 0 * ones)
        self.of_critic.zero_grad()
        loss.backward()
        self.of_critic.step()
        loss = bce(critic(fake), ones)
        self.of_generator.zero_grad()
        loss.backward()
        self.of_generator.step()


def test_a_class_does_whole_steps_with_two_optimizers() -> None:
    plan = memfit.plan(Gan, input_shape=(784,), step=GanStep, gpu="rtx-3060")
    with memfit.VirtualGPU("rtx-3060") as gpu:
        step = GanStep(Gan().cuda())
        for _ in range(2):
            images = torch.empty(64, 784, device="cuda")
            target = torch.empty(64, dtype=torch.int64, device="cuda")
            step(images, target)
    at, own = plan.at(64), gpu.timeline
    assert at.peak_allocated_bytes == own.peak_allocated_bytes
    assert at.peak_reserved_bytes == own.peak_reserved_bytes
    weights = 4 * plan.parameter_count
    assert at.parts_most["gradients"] == weights
    assert at.parts_most["optimizer"] == 2 * weights
    assert not any("optimizer sgd" in sentence for sentence in plan.assumptions)


@pytest.mark.parametrize(
    "asked", [{"accumulation": 2}, {"optimizer": "adam"}, {"precision": "amp-bf16"}, {"ema": True}]
)
def test_what_a_class_does_itself_is_not_asked_beside_it(asked: Any) -> None:
    with pytest.raises(UsageError, match=f"GanStep does whole steps; {next(iter(asked))}"):
        memfit.plan(Gan, input_shape=(784,), step=GanStep, **asked)
