"""The process that starts measurements plans as well; it must not be on the GPU itself."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from memfit.cards.catalogue import gpu
from memfit.planner.planning import plan
from memfit.recipe.recipe import Recipe


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adafactor", "sgd", "lion"])
def test_planning_makes_no_cuda_context(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam asks the current stream of a GPU, if there is one, whether it captures a graph."""

    def fail(*_: object) -> NoReturn:
        pytest.fail("a plan asked the GPU")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", fail)
    monkeypatch.setattr(torch.cuda, "_lazy_init", fail)
    recipe = Recipe(model="mlp", input_shape=(1, 8, 8), optimizer=optimizer)
    assert plan(recipe, gpu=gpu("rtx-3060"), verify=False).max_batch_size
