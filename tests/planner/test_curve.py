"""The curve of memory against the micro-batch: where it begins and where it ends."""

from __future__ import annotations

import pytest

import memfit
from memfit.planner.curve import memory_curve


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"gpu": None, "batch_size": 64}, 128),  # twice the planned batch
        ({"gpu": "11GiB", "batch_size": 1 << 24}, 1 << 24),  # no batch is larger
    ],
)
def test_the_last_point_without_a_largest_batch_and_at_its_bound(
    options: dict[str, object], last: int
) -> None:
    plan = memfit.plan("mlp", input_shape=(1, 28, 28), verify=False, **options)  # type: ignore[arg-type]
    assert memory_curve(plan)[-1].batch_size == last


def test_the_curve_goes_a_fifth_beyond_the_largest_that_fits() -> None:
    plan = memfit.plan("mlp", input_shape=(1, 28, 28), gpu="300MiB", verify=False)
    assert plan.max_batch_size is not None
    points = memory_curve(plan)
    assert points[-1].batch_size == plan.max_batch_size + plan.max_batch_size // 5
    assert len(points) == 12
    assert points[0].batch_size == 2  # a batch of one would be a trace of its own
    assert [point.batch_size for point in points] == sorted({p.batch_size for p in points})


def test_each_point_is_the_plan_at_its_batch() -> None:
    plan = memfit.plan("mlp", input_shape=(1, 28, 28), gpu="300MiB", verify=False)
    for point in memory_curve(plan):
        at = plan.at(point.batch_size)
        assert point.total_bytes == at.total_bytes
        held = at.peak_reserved_bytes - at.peak_allocated_bytes
        assert point.needed_bytes == at.total_bytes - held
