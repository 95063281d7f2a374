"""Evaluation against a plain loop over the test set."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_runs import DATA
from torch import nn
from torch.nn import functional as F

from memfit.data.loading.loader import Loader
from memfit.errors import DoesNotFit
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.tape.tape import Phase
from memfit.step.job import resolve
from memfit.trainer.recovery.recover import recover
from memfit.trainer.run.planned import planned
from memfit.trainer.step.evaluation import Evaluation, evaluate
from memfit.trainer.step.ingredients import Ingredients, prepare_ingredients

Made = tuple[Ingredients, Loader]


@pytest.fixture
def made() -> Callable[..., Made]:
    def make(**options: Any) -> Made:
        torch.manual_seed(0)

        def build() -> nn.Module:
            return nn.Sequential(
                nn.Flatten(), nn.Linear(768, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(),
                nn.Linear(16, 8),
            )  # fmt: skip

        _, given = planned(resolve(build, data=DATA, global_batch=7, **options))
        ingredients = prepare_ingredients(given, torch.device("cpu"))
        with torch.no_grad():
            ingredients.model[2].running_mean.normal_()  # type: ignore[index, operator, union-attr]
        return ingredients, given.loader("test")

    return make


def plain(model: nn.Module, test: Loader) -> tuple[float, list[list[int]]]:
    """Mean loss and confusion, sample by sample."""
    model.eval()
    losses, confusion = [], [[0] * 8 for _ in range(8)]
    with torch.no_grad():
        for images, labels in test.epoch(0):
            for image, label in zip(images, labels, strict=True):
                scores = model(image[None])
                losses.append(F.cross_entropy(scores, label[None]).item())
                confusion[int(label)][int(scores.argmax())] += 1
    return sum(losses) / len(losses), confusion


@pytest.mark.parametrize("size", [7, 3, 1])
def test_it_is_a_plain_loops(made: Callable[..., Made], size: int) -> None:
    ingredients, test = made()
    found = evaluate(ingredients, test, recover((size,)))
    assert ingredients.model.training, "as it was"
    assert all(module.training for module in ingredients.model.modules())
    loss, confusion = plain(ingredients.model, test)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert [list(row) for row in found.confusion] == confusion
    assert found.samples == 32
    assert found.accuracy == sum(confusion[i][i] for i in range(8)) / 32


def test_modes_are_put_back_one_by_one(made: Callable[..., Made]) -> None:
    ingredients, test = made()
    ingredients.model[2].eval()  # type: ignore[index, operator]
    before = [module.training for module in ingredients.model.modules()]
    state = {name: value.clone() for name, value in ingredients.model.state_dict().items()}
    evaluate(ingredients, test, recover(4))
    assert [module.training for module in ingredients.model.modules()] == before
    for name, value in ingredients.model.state_dict().items():
        assert torch.equal(value, state[name])


def test_the_average_is_asked(made: Callable[..., Made]) -> None:
    ingredients, test = made(ema=True)
    assert ingredients.average is not None
    with torch.no_grad():
        for parameter in ingredients.model.parameters():
            parameter.add_(1)
    found = evaluate(ingredients, test, recover(7))
    loss, _ = plain(ingredients.average.module, test)
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_out_of_memory_takes_smaller_batches(made: Callable[..., Made]) -> None:
    ingredients, test = made()
    expected = evaluate(ingredients, test, recover(7))
    with CpuBudget(1 << 30) as budget:
        fitting = recover((7, 4, 2), release_cache=budget.empty_cache)
        for after in (3, 20):  # the first two hold the sums
            budget.fail(Phase.FORWARD, after)
            assert evaluate(ingredients, test, fitting).confusion == expected.confusion
            assert not budget.is_failure_pending
        assert [(event.from_size, event.to_size) for event in fitting.events] == [(7, 4), (4, 2)]
        assert all(b.step >= a.step for a, b in pairwise(fitting.events))
        budget.fail(Phase.FORWARD, 20)
        with pytest.raises(DoesNotFit):
            evaluate(ingredients, test, fitting)
    assert ingredients.model.training


def test_what_is_told() -> None:
    found = Evaluation(0.5, 0.6, ((2, 1, 0), (1, 1, 0), (0, 0, 0)), ("a", "b", "c"))
    assert found.samples == 5
    assert found.per_class == {"a": 2 / 3, "b": 0.5, "c": None}
    told = found.to_dict()
    assert told["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert told["per_class"]["c"] is None
