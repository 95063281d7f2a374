from __future__ import annotations

import pytest

from memfit.study.science.rate_rule import TunedRate, fit_rate_rule

SIZES = (16, 32, 64, 128, 256, 512)


def rates(power: float, factor: float = 1.4) -> list[TunedRate]:
    values = [(b, 0.01 * b**power) for b in SIZES]
    return [TunedRate(b, v, v / factor, v * factor) for b, v in values]


@pytest.mark.parametrize(("power", "name"), [(1.0, "linear"), (0.5, "square root"), (0.0, "none")])
def test_a_rule_is_recognised(power: float, name: str) -> None:
    rule = fit_rate_rule(rates(power))
    assert rule is not None
    assert rule.exponent == pytest.approx(power, abs=1e-9)
    assert rule.supported == (name,)
    assert rule.rate(64) == pytest.approx(0.01 * 64**power)


def test_wide_ranges_cannot_tell() -> None:
    rule = fit_rate_rule(rates(0.5, factor=8.0))
    assert rule is not None
    assert len(rule.supported) > 1
    assert "cannot tell" in rule.verdict


def test_something_else_supports_no_rule() -> None:
    rule = fit_rate_rule(rates(-1.0))
    assert rule is not None
    assert rule.supported == ()
    assert "neither" in rule.verdict


def test_two_rates_are_too_few() -> None:
    assert fit_rate_rule(rates(1.0)[:2]) is None
