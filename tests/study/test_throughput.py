"""Throughput: what is timed, not how long it takes."""

from __future__ import annotations

import math

import pytest

from memfit.errors import UsageError
from memfit.step.job import resolve
from memfit.study.measuring import throughput
from memfit.study.measuring.throughput import Throughput, knee, measure_throughput
from memfit.study.science.intervals import mean_interval, student_t
from memfit.trainer.step.training import Training

DATA = "shapes,train=100,val=20,test=20,size=16"


class Clock:
    """Time that passes with the steps: a fixed part and a part for each sample."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.sizes: list[int] = []
        take_step = Training.take_step

        def timed(training: Training, batch: object) -> object:
            result = take_step(training, batch)  # type: ignore[arg-type]
            assert result is not None
            if training.ingredients.device.type == "meta":  # a step that is planned takes no time
                return result
            self.sizes.append(result.samples)
            self.now += 0.010 + 0.001 * result.samples
            return result

        monkeypatch.setattr(Training, "take_step", timed)
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_each_size_is_timed_by_its_own_whole_steps(clock: Clock) -> None:
    told: list[tuple[int, int]] = []
    found = measure_throughput(
        resolve(model="mlp", data=DATA), [8, 32, 64], seconds_each=0.2, repeats=3,
        device="cpu", progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [point.batch_size for point in found] == [8, 32, 64]
    for point in found:
        step = 0.010 + 0.001 * point.batch_size
        assert point.seconds == pytest.approx((step,) * 3)
        assert point.samples_per_second == pytest.approx(point.batch_size / step)
        assert point.low == pytest.approx(point.high)
        assert point.step_seconds == pytest.approx(step)
        assert point.micro_batch == point.batch_size
    assert set(clock.sizes) == {8, 32, 64}  # no smaller last batch
    assert told == [(done, 9) for done in range(1, 10)]
    assert found[0].to_dict()["batch_size"] == 8


def test_sizes_take_turns_forwards_and_backwards(clock: Clock) -> None:
    measure_throughput(
        resolve(model="mlp", data=DATA), [8, 64], seconds_each=1e-6, repeats=3, device="cpu"
    )
    timed = clock.sizes[-3 * 2 * 3 :]  # a step after two to warm up, twice, three times
    assert timed == [8] * 3 + [64] * 6 + [8] * 6 + [64] * 3


def test_the_micro_batch_of_the_recipe_is_kept(clock: Clock) -> None:
    recipe = resolve(model="mlp", data=DATA, batch_size=16)
    found = measure_throughput(recipe, [8, 64], seconds_each=0.01, repeats=2, device="cpu")
    assert [point.micro_batch for point in found] == [8, 16]


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ([], {}, "Nothing can be timed"),
        ([0], {}, "Nothing can be timed"),
        ([8], {"repeats": 1}, "Nothing can be timed"),
        ([8], {"seconds_each": 0.0}, "Nothing can be timed"),
        ([8, 101], {}, "larger than the data: 100 images"),
    ],
)
def test_what_cannot_be_timed(sizes: list[int], options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        measure_throughput(resolve(model="mlp", data=DATA), sizes, device="cpu", **options)  # type: ignore[arg-type]


def of_rates(*rates: float) -> list[Throughput]:
    return [Throughput.of_groups(2**n, [2**n / rate] * 2) for n, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "batch_size"),
    [
        ((10.0, 50.0, 94.0, 96.0, 100.0), 8),
        ((10.0, 50.0, 95.0, 96.0, 100.0), 4),
        ((100.0, 90.0, 80.0), 1),
        ((7.0,), 1),
    ],
)
def test_the_knee_is_the_smallest_batch_close_to_the_best(
    rates: tuple[float, ...], batch_size: int
) -> None:
    assert knee(of_rates(*rates)).batch_size == batch_size
    assert knee(of_rates(*rates)[::-1]).batch_size == batch_size
    assert knee(of_rates(*rates), share=1.0).samples_per_second == max(rates)


def test_the_interval_holds_the_groups_mean() -> None:
    found = Throughput.of_groups(64, [0.4, 0.5, 0.6])
    rates = [160.0, 128.0, 64 / 0.6]
    assert found.samples_per_second == pytest.approx(sum(rates) / 3)
    assert found.low < found.samples_per_second < found.high
    assert Throughput.of_groups(64, [0.1, 10.0]).low == 0.0


# Abramowitz and Stegun, table 26.10, at 0.975.
@pytest.mark.parametrize(
    ("degrees", "value", "close"),
    [(4, 2.776, 0.01), (5, 2.571, 0.005), (10, 2.228, 0.001), (30, 2.042, 0.001)],
)
def test_students_t(degrees: int, value: float, close: float) -> None:
    assert student_t(0.975, degrees) == pytest.approx(value, rel=close)
    assert student_t(0.025, degrees) == pytest.approx(-student_t(0.975, degrees))


def test_a_mean_and_its_interval_by_hand() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = student_t(0.975, 4) * math.sqrt(2.5 / 5)
    assert (mean, low, high) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
