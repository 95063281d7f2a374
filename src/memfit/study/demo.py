"""What ``memfit study --demo`` studies: a network without BatchNorm, so a batch is an average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from memfit.recipe.recipe import Recipe
from memfit.study.science.goal import parse_goal

__all__ = ["DEMO_BATCH_SIZES", "DEMO_GOAL", "build", "demo_recipe", "with_demo"]

DEMO_BATCH_SIZES = (16, 32, 64, 128, 256, 512)
DEMO_GOAL = "accuracy=0.7"


def build() -> nn.Sequential:
    """Two 3x3 convolutions and two linear layers for 1x16x16 images of eight classes.

    38,152 parameters.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 8),
    )


def demo_recipe() -> Recipe:
    """A small network on the generated shapes: a whole study in two minutes."""
    return Recipe(
        model="memfit.study.demo:build",
        data="shapes,train=2048,test=512,size=16,channels=1",
        optimizer={"name": "sgd", "momentum": 0.9},
        global_batch=64,
        lr=0.05,
        epochs=9,
        warmup=0.1,
    )


def with_demo(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a study with the demo's recipe, batch sizes and goal where none were given."""
    torch.set_num_threads(1)  # tensors so small gain nothing from more, and lose on a busy machine
    return {
        **asked,
        "recipe": demo_recipe(),
        "batch_sizes": asked["batch_sizes"] or DEMO_BATCH_SIZES,
        "goal": asked["goal"] or parse_goal(DEMO_GOAL),
    }
