from __future__ import annotations

import pytest

from memfit.errors import UsageError
from memfit.study.asked import parse_batch_sizes, parse_budget
from memfit.study.science.goal import Evaluated, Goal, at_step, crossing, parse_goal

POINTS = (Evaluated(10, 2.0, 0.2), Evaluated(20, 1.0, 0.6), Evaluated(30, 1.2, 0.5))


def test_a_goal_is_reached_between_two_evaluations() -> None:
    found = crossing(POINTS, Goal("accuracy", 0.4))
    assert found is not None
    assert (found.steps, found.low, found.high) == (pytest.approx(15.0), 10, 20)
    found = crossing(POINTS, Goal("loss", 1.5))
    assert found is not None
    assert found.steps == pytest.approx(15.0)


def test_a_goal_may_be_met_at_once_or_never() -> None:
    found = crossing(POINTS, Goal("accuracy", 0.1))
    assert found is not None
    assert found.steps == 10
    assert crossing(POINTS, Goal("accuracy", 0.7)) is None
    assert crossing((), Goal("loss", 1.0)) is None


def test_a_run_between_evaluations() -> None:
    point = at_step(POINTS, 25)
    assert point is not None
    assert (point.loss, point.accuracy) == (pytest.approx(1.1), pytest.approx(0.55))
    assert at_step(POINTS, 20) == POINTS[1]
    assert at_step(POINTS, 5) is None
    assert at_step(POINTS, 31) is None


def test_goals_as_typed() -> None:
    assert parse_goal("accuracy=0.95") == Goal("accuracy", 0.95)
    assert parse_goal("loss=0.3") == Goal("loss", 0.3)
    for text in ("0.95", "accuracy", "accuracy=95", "loss=-1", "loss=nan", "speed=3", "loss=inf"):
        with pytest.raises(UsageError):
            parse_goal(text)


def test_batch_sizes_and_budgets_as_typed() -> None:
    assert parse_batch_sizes("16, 64,256") == (16, 64, 256)
    assert parse_batch_sizes("16,32,…,100") == (16, 32, 64, 100)
    for text in ("", "16,,32", "a,b", "16,...,64", "32,16,...,2", "16,32,..."):
        with pytest.raises(UsageError):
            parse_batch_sizes(text)
    assert [parse_budget(text) for text in ("90s", "5m", "1.5h", "20")] == [90, 300, 5400, 20]
    for text in ("", "0", "-5m", "5 days", "soon"):
        with pytest.raises(UsageError):
            parse_budget(text)
