"""Samples per second at several batch sizes: the real loader, the real step, repeated."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from statistics import fmean
from typing import Any

import torch

from memfit.data.loading.batch import Batch
from memfit.data.loading.loader import Loader
from memfit.errors import UsageError
from memfit.progress import SILENT, Tell
from memfit.step.ingredients import Ingredients
from memfit.step.job import Job
from memfit.study.science.intervals import mean_interval
from memfit.trainer.run.planned import planned
from memfit.trainer.step.backends import backends_of
from memfit.trainer.step.devices import RunDevice, choose_device
from memfit.trainer.step.ingredients import prepare_ingredients
from memfit.trainer.step.micro_batches import sizes_that_fit
from memfit.trainer.step.training import Training

__all__ = ["Throughput", "knee", "measure_throughput"]

#: Steps before each timed group: the first ones start the readers and choose kernels.
_WARM_UP_STEPS = 2
#: So small that no training diverges while it is timed, and its steps cost what they cost.
_HARMLESS_RATE = 1e-12


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast a global batch trains.

    Args:
        batch_size: samples for one optimizer step.
        seconds: for one step, mean of each timed group.
        samples_per_second: mean of the groups.
        low: end of its 95 % interval (Student's t over the groups).
        high: end of its interval.
        step_seconds: mean of the groups.
        micro_batch: samples in one forward and backward.
    """

    batch_size: int
    seconds: tuple[float, ...]
    samples_per_second: float
    low: float
    high: float
    step_seconds: float
    micro_batch: int

    @classmethod
    def of_groups(
        cls, batch_size: int, seconds: Sequence[float], micro_batch: int | None = None
    ) -> Throughput:
        """From the seconds for a step in each of at least two timed groups.

        >>> found = Throughput.of_groups(64, [0.5, 0.5])
        >>> found.samples_per_second, found.low, found.high
        (128.0, 128.0, 128.0)
        """
        mean, low, high = mean_interval([batch_size / each for each in seconds])
        step_seconds = fmean(seconds)
        size = batch_size if micro_batch is None else micro_batch
        return cls(batch_size, tuple(seconds), mean, max(0.0, low), high, step_seconds, size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def knee(points: Sequence[Throughput], share: float = 0.95) -> Throughput:
    """The smallest batch whose throughput is close to the best.

    Args:
        points: at least one.
        share: of the best throughput that is close enough.
    """
    best = max(point.samples_per_second for point in points)
    close = [point for point in points if point.samples_per_second >= share * best]
    return min(close, key=lambda point: point.batch_size)


def measure_throughput(
    job: Job,
    batch_sizes: Sequence[int],
    *,
    seconds_each: float = 1.0,
    repeats: int = 5,
    device: str = "auto",
    progress: Tell = SILENT,
) -> list[Throughput]:
    """Time real training steps at several global batches, on one process.

    The sizes take turns, forwards and backwards, so that whatever drifts meanwhile hits all alike.
    The micro-batch is the largest that the plan says fits; smaller last batches of an epoch are
    left out; a GPU is waited for before the clock is read. The learning rate is next to nothing.

    Args:
        job: names data.
        batch_sizes: samples for one optimizer step.
        seconds_each: about how long a timed group takes; at least one step.
        repeats: timed groups of each size.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        progress: is told timed groups that are done, and all.

    Returns:
        In the order of ``batch_sizes``.

    Raises:
        UsageError: fewer than two repeats, no or an impossible size, or one larger than the data.
        DoesNotFit: not even one sample fits.
    """
    sizes = list(dict.fromkeys(batch_sizes))
    if not sizes or min(sizes) < 1 or repeats < 2 or seconds_each <= 0:
        raise UsageError(
            f"Nothing can be timed with batch sizes {sizes}, {repeats} repeats of "
            f"{seconds_each} seconds.",
            hint="Give batch sizes above 0, at least 2 repeats and a positive time.",
        )
    place = choose_device(device)
    with backends_of(job.recipe, place.device):
        bench = _Bench(job, place, sizes)
        groups = {size: bench.group_steps(size, seconds_each) for size in sizes}
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        for repeat in range(repeats):
            for size in sizes if repeat % 2 == 0 else reversed(sizes):
                seconds[size].append(bench.seconds_per_step(size, groups[size], repeat))
                progress(sum(map(len, seconds.values())), repeats * len(sizes))
    return [
        Throughput.of_groups(size, seconds[size], bench.trainings[size].fitting.size)
        for size in sizes
    ]


class _Bench:
    """One model, and a training of it for each size."""

    def __init__(self, job: Job, place: RunDevice, sizes: Sequence[int]) -> None:
        self._place = place
        plan, job = planned(job.but(global_batch=None, lr=_HARMLESS_RATE).on(place.card))
        data = job.loader()
        if (largest := max(sizes)) > len(data.split):
            raise UsageError(
                f"A batch of {largest:,} is larger than the data: {len(data.split):,} images.",
                hint="Leave it out.",
            )
        made = prepare_ingredients(job, place.device)
        self.readers = data.workers  # asked before the copies: it makes the images' memory
        self.trainings = {
            size: self._training(made, data, size, sizes_that_fit(plan, size, None))
            for size in sizes
        }

    def _training(
        self, made: Ingredients, data: Loader, size: int, micro_batches: Sequence[int]
    ) -> Training:
        same = copy.copy(data)  # images that are in memory are so for all
        same.batch_size = size
        return Training(
            made, same, total_steps=1, sizes=micro_batches, release_cache=self._place.release_cache
        )

    def group_steps(self, size: int, seconds: float) -> int:
        """Steps that take about so long, at least one."""
        step = min(self.seconds_per_step(size, 1, 0) for _ in range(2))
        return max(1, round(seconds / step))

    def seconds_per_step(self, size: int, steps: int, first_epoch: int) -> float:
        """Mean over some steps, after a few that are not timed."""
        training = self.trainings[size]
        with closing(_whole_batches(training.loader, first_epoch)) as batches:
            for _ in range(_WARM_UP_STEPS):
                training.take_step(next(batches))
            start = self._now()
            for _ in range(steps):
                training.take_step(next(batches))
            return (self._now() - start) / steps

    def _now(self) -> float:
        """When all that was asked of the device is done, in seconds."""
        if self._place.device.type == "cuda":
            torch.cuda.synchronize(self._place.device)
        return time.perf_counter()


def _whole_batches(data: Loader, first_epoch: int) -> Generator[Batch, None, None]:
    """Of all epochs from one on; without the smaller last ones."""
    for epoch in count(first_epoch):
        for batch in data.batches(epoch):
            if batch.position + data.batch_size <= len(data.split):
                yield batch
