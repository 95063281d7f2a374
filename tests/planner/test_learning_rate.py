from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.planner.learning_rate import scale_learning_rate

rates = st.floats(1e-6, 10)
batches = st.integers(1, 1 << 20)


def test_goyal_et_al() -> None:
    """0.1 at 256 becomes 3.2 at 8,192, with warm-up (arXiv 1706.02677, section 5.1)."""
    rate = scale_learning_rate(0.1, 256, 8192, adaptive=False)
    assert rate.value == pytest.approx(3.2)
    assert (rate.rule, rate.warmup) == ("linear", True)


def test_malladi_et_al() -> None:
    rate = scale_learning_rate(1e-3, 256, 1024, adaptive=True)
    assert rate.value == pytest.approx(2e-3)
    assert (rate.rule, rate.warmup) == ("square root", False)


def test_no_warmup_for_a_smaller_batch() -> None:
    assert not scale_learning_rate(0.1, 256, 64, adaptive=False).warmup


@given(rates, batches, batches, st.booleans())
def test_there_and_back(rate: float, base: int, batch: int, adaptive: bool) -> None:
    there = scale_learning_rate(rate, base, batch, adaptive=adaptive).value
    assert scale_learning_rate(there, batch, base, adaptive=adaptive).value == pytest.approx(rate)


@given(rates, batches, st.booleans())
def test_the_same_batch_keeps_the_rate(rate: float, batch: int, adaptive: bool) -> None:
    assert scale_learning_rate(rate, batch, batch, adaptive=adaptive).value == rate
