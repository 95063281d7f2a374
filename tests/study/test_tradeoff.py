from __future__ import annotations

import numpy as np
import pytest

from memfit.study.science.tradeoff import fit_tradeoff

SIZES = (16, 32, 64, 128, 256, 512)


def steps_of(critical: float, noise: float, seeds: int, seed: int) -> list[list[float]]:
    random = np.random.default_rng(seed)
    return [
        [100 * (1 + critical / b) * float(np.exp(noise * random.standard_normal()))
         for _ in range(seeds)]
        for b in SIZES
    ]  # fmt: skip


@pytest.mark.parametrize("critical", [30.0, 100.0, 1000.0])
def test_exact_points_give_the_truth_back(critical: float) -> None:
    fit = fit_tradeoff(SIZES, steps_of(critical, 0.0, 1, 0))
    assert fit is not None
    assert fit.critical.value == pytest.approx(critical, rel=1e-3)
    assert fit.min_steps == pytest.approx(100, rel=1e-3)
    assert fit.min_examples == pytest.approx(100 * critical, rel=1e-3)
    for batch in SIZES:  # the curve of McCandlish et al., equation 5.1
        s, e = fit.steps(batch), fit.examples(batch)
        assert e == pytest.approx(batch * s, rel=1e-6)
        assert s / fit.min_steps - 1 == pytest.approx(1 / (e / fit.min_examples - 1))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(60):
        fit = fit_tradeoff(SIZES, steps_of(120.0, 0.15, 3, seed), resamples=300)
        assert fit is not None
        low, high = fit.critical.low, fit.critical.high
        inside += (low is None or low <= 120.0) and (high is None or high >= 120.0)
    assert inside >= 54


def test_more_noise_widens_the_interval() -> None:
    def width(noise: float) -> float:
        fit = fit_tradeoff(SIZES, steps_of(100.0, noise, 3, 1))
        assert fit is not None
        assert fit.critical.low is not None
        assert fit.critical.high is not None
        return fit.critical.high / fit.critical.low

    assert width(0.02) < width(0.2)


@pytest.mark.parametrize(("critical", "open_end"), [(1e6, "high"), (0.01, "low")])
def test_sizes_of_one_regime_leave_an_end_open(critical: float, open_end: str) -> None:
    fit = fit_tradeoff(SIZES, steps_of(critical, 0.1, 3, 2))
    assert fit is not None
    assert getattr(fit.critical, open_end) is None
    assert not fit.critical.is_bounded


def test_two_sizes_fit_any_curve() -> None:
    assert fit_tradeoff((16, 32, 64), [[10.0], [8.0], []]) is None
