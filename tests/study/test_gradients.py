"""Gradients of micro-batches against that of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from memfit.errors import UnknownName, UsageError
from memfit.step.job import resolve
from memfit.study.measuring.gradients import accumulation_difference, layer_groups

DATA = "shapes,train=256,val=64,test=64,size=16"


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(128, 8),
    )  # fmt: skip


@pytest.mark.parametrize("micro_batch", [1, 7, 16, 64])
def test_accumulation_is_the_large_batch_to_rounding(micro_batch: int) -> None:
    for model in (plain_cnn, "mlp"):
        recipe = resolve(model=model, data=DATA)
        found = accumulation_difference(recipe, global_batch=64, micro_batch=micro_batch)
        assert found.relative < 1e-5
        assert found.batch_dependent == ()
        assert (found.global_batch, found.micro_batch) == (64, micro_batch)


def test_batch_norm_makes_a_difference_that_shrinks_with_larger_micro_batches() -> None:
    recipe = resolve(model="cnn", data=DATA)
    small, large, whole = (
        accumulation_difference(recipe, global_batch=64, micro_batch=size) for size in (4, 32, 64)
    )
    assert small.relative > 1.5 * large.relative > 0.01
    assert whole.relative < 1e-6
    assert small.batch_dependent == ("0.norm", "2.norm", "4.norm")
    assert small.to_dict()["relative"] == small.relative


def test_a_norm_of_each_sample_makes_none() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 14 * 14, 8)
        )

    found = accumulation_difference(resolve(model=build, data=DATA), global_batch=32, micro_batch=4)
    assert found.relative < 1e-5
    assert not found.batch_dependent


@pytest.mark.parametrize("micro_batch", [0, 65])
def test_impossible_parts(micro_batch: int) -> None:
    with pytest.raises(UsageError, match="no part"):
        accumulation_difference(
            resolve(model="mlp", data=DATA), global_batch=64, micro_batch=micro_batch
        )


class Wrapped(nn.Module):
    """A module around another, with a parameter of its own where asked for."""

    def __init__(self, inner: nn.Module, *, own: bool) -> None:
        super().__init__()
        self.inner = inner
        if own:
            self.token = nn.Parameter(torch.zeros(3))


def names(model: nn.Module, blocks: Sequence[str] = ()) -> dict[str, list[int]]:
    return layer_groups(model, list(model.parameters()), blocks)


def test_groups_are_the_top_level_modules() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert names(net) == {"0": [0, 1], "2": [2, 3, 4, 5]}
    assert names(Wrapped(net, own=False)) == {"inner.0": [0, 1], "inner.2": [2, 3, 4, 5]}
    assert names(Wrapped(net, own=True)) == {"token": [0], "inner": [1, 2, 3, 4, 5, 6]}
    assert names(nn.Sequential(nn.Linear(2, 2))) == {"0": [0, 1]}


def test_groups_are_the_blocks_that_are_named() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert names(net, ["1.1"]) == {"other": [0, 1, 2, 3], "1.1": [4, 5]}
    assert names(net, ["1", "1.0"]) == {"other": [0, 1], "1.0": [2, 3], "1": [4, 5]}
    with pytest.raises(UnknownName, match=r"1\.2"):
        names(net, ["1.2"])


def test_frozen_parameters_are_in_no_group() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert layer_groups(net, list(net[1].parameters())) == {"1": [0, 1]}
