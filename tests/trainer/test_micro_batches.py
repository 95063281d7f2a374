"""Which sizes a run's micro-batch may take."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.cards.catalogue import gpu
from memfit.memory.allocator.settings import AllocatorSettings
from memfit.memory.allocator.timeline import fits
from memfit.planner.planning import plan
from memfit.trainer.step.micro_batches import even_sizes, sizes_that_fit


@given(st.integers(1, 5000))
def test_sizes_split_evenly(count: int) -> None:
    sizes = even_sizes(count)
    assert sizes[0] == count
    assert sizes[-1] == 1
    assert all(a > b for a, b in pairwise(sizes))
    for size in sizes:
        parts = math.ceil(count / size)
        assert math.ceil(count / parts) == size, "no smaller size needs as few parts"
    assert all(b >= a / 2 for a, b in pairwise(sizes)), "no step is more than a half"


@given(st.integers(1, 500), st.integers(1, 500))
def test_none_is_larger_than_asked(count: int, largest: int) -> None:
    sizes = even_sizes(count, largest)
    assert sizes == [size for size in even_sizes(count) if size <= largest]
    assert sizes


@pytest.mark.parametrize("memory_bytes", [1 << 20, 4 << 20, 16 << 20, 1 << 30])
def test_a_budget_admits_what_the_plan_says(memory_bytes: int) -> None:
    made = plan("cnn", input_shape=(3, 32, 32), num_classes=8, verify=False)
    settings = AllocatorSettings.parse("")
    sizes = sizes_that_fit(made, 96, memory_bytes)
    fitting = [n for n in even_sizes(96) if fits(*made.tape_at(n), memory_bytes, settings)]
    assert sizes == (fitting or [1])
    assert (len(sizes) == len(even_sizes(96))) == (memory_bytes == 1 << 30)


def test_a_card_admits_what_the_plan_recommends() -> None:
    card = gpu("rtx-3060").with_free_bytes(600 << 20)
    made = plan("cnn", input_shape=(3, 224, 224), num_classes=8, gpu=card, verify=False)
    recommended = made.recommended_batch_size
    assert recommended is not None
    sizes = sizes_that_fit(made, 4 * recommended, None)
    assert sizes[0] <= recommended
    assert sizes[0] == max(n for n in even_sizes(4 * recommended) if n <= recommended)


def test_the_recipes_micro_batch_is_the_first() -> None:
    made = plan("mlp", input_shape=(1, 8, 8), batch_size=10, verify=False)
    assert sizes_that_fit(made, 64, None) == [10, 8, 6, 4, 3, 2, 1]
    assert sizes_that_fit(made, 5, None) == even_sizes(5), "there are only five samples"
    assert sizes_that_fit(made, 64, 1)[-1:] == sizes_that_fit(made, 64, 1) == [1]
