"""The trials of a study, stage by stage; trials of one stage depend on none of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from memfit.progress import TimeLeft
from memfit.recipe.recipe import Recipe
from memfit.study.results import StudySettings
from memfit.study.science.goal import Goal
from memfit.study.trials.listener import StudyListener
from memfit.study.trials.trial import (
    Trial,
    TrialRecord,
    forget_checkpoints,
    is_enough,
    read_trial,
    run_trial,
)
from memfit.study.trials.tuning import first_rates, further_rates, most_promising, winner

__all__ = [
    "Job",
    "LocalRunner",
    "Runner",
    "Search",
    "SizeRecords",
    "goal_of",
    "study_seconds",
    "trial_seconds",
]

#: About so many evaluations of a trial.
_EVALUATIONS = 40
#: Of the lowest accuracy that batch sizes reached: the goal that is chosen where none is given.
_OF_REACHED = 0.98
#: A batch size with less than this share of the best accuracy has no say in that goal.
_LEARNED = 0.7
#: What a trial takes beside its samples, and evaluations beside those.
_SECONDS_EACH, _WITH_EVALUATION = 0.5, 1.25
_STAGES = ("learning rates", "promising rates", "seeds")


@dataclass(frozen=True, slots=True)
class Job:
    """A trial, up to a step.

    Args:
        trial: what to run.
        until: optimizer steps.
        with_train_split: evaluate it on the training images at its end.
    """

    trial: Trial
    until: int
    with_train_split: bool = False


class Runner(Protocol):
    """Runs jobs that do not depend on each other."""

    def run(
        self,
        jobs: Sequence[Job],
        *,
        stepped: Callable[[Job, int], None],
        ended: Callable[[Job, TrialRecord], None],
    ) -> None:
        """Run all; ``stepped`` is told the samples of a step where somebody can see them."""


class LocalRunner:
    """One job after the other, in this process.

    Args:
        recipe: of the study.
        runs: folder of all trials.
        device: as for :func:`memfit.train`.
    """

    def __init__(self, recipe: Recipe, runs: Path, device: str) -> None:
        self.recipe, self.runs, self.device = recipe, runs, device

    def run(
        self,
        jobs: Sequence[Job],
        *,
        stepped: Callable[[Job, int], None],
        ended: Callable[[Job, TrialRecord], None],
    ) -> None:
        """Run all."""
        for job in jobs:
            record = run_trial(
                job.trial,
                self.recipe,
                self.runs,
                until=job.until,
                device=self.device,
                with_train_split=job.with_train_split,
                stepped=lambda samples, job=job: stepped(job, samples),  # type: ignore[misc]
            )
            ended(job, record)


@dataclass(frozen=True, slots=True)
class SizeRecords:
    """The trials of one batch size.

    Args:
        batch_size: samples for one optimizer step.
        by_rate: of the first seed, by learning rate.
        best: the learning rate that won; None when every trial failed.
        seeds: whole trials at the best rate, the first seed first.
    """

    batch_size: int
    by_rate: Mapping[float, TrialRecord]
    best: float | None
    seeds: tuple[TrialRecord, ...]


class Search:
    """Finds the best learning rate of every batch size, and trains it with several seeds.

    Args:
        settings: what the trials have in common.
        batch_sizes: to try.
        seeds: of every batch size.
        first_seed: the recipe's.
        goal: given by the user; else the trials decide.
        runner: runs the trials.
        runs: their folder.
        speeds: samples/s by batch size, for estimates of time.
        is_late: whether the budget is used up.
        listener: is told what happens.
        pace: of the whole study.
    """

    def __init__(
        self,
        settings: StudySettings,
        batch_sizes: Sequence[int],
        *,
        seeds: int,
        first_seed: int,
        goal: Goal | None,
        runner: Runner,
        runs: Path,
        speeds: Mapping[int, float],
        is_late: Callable[[], bool],
        listener: StudyListener,
        pace: TimeLeft,
    ) -> None:
        self.settings, self.batch_sizes = settings, tuple(batch_sizes)
        self.seeds, self.first_seed, self.goal = seeds, first_seed, goal
        self.runner, self.runs, self.speeds = runner, runs, speeds
        self.is_late, self.listener, self.pace = is_late, listener, pace
        self.stage = ""
        self.notes: list[str] = []
        self._records: dict[int, dict[float, TrialRecord]] = {b: {} for b in self.batch_sizes}
        for stage, seconds in zip(_STAGES, self._expected(), strict=True):
            pace.expect(stage, seconds)

    def go(self) -> tuple[SizeRecords, ...]:
        """All trials; those that are there are not run again."""
        self._begin("learning rates")
        wanted = {b: self._first_rates(b) for b in self.batch_sizes}
        while any(wanted.values()):
            self._run(self._rung(b, rate) for b, rates in wanted.items() for rate in rates)
            wanted = {b: self._further(b) for b in self.batch_sizes}
        self._begin("promising rates")
        self._run(
            Job(self._trial(b, rate), self.settings.trial_steps(b))
            for b in self.batch_sizes
            for rate in most_promising(
                self._records[b], self.settings.rung_steps(b), 1 if self.is_late() else 2
            )
        )
        goal = self.goal or goal_of([self._records[b].values() for b in self.batch_sizes])
        best = {b: winner(self._records[b], goal) for b in self.batch_sizes}
        self._begin("seeds")
        found = self._with_seeds(best)
        for size in found:
            self._forget(size)
        return found

    def _with_seeds(self, best: Mapping[int, float | None]) -> tuple[SizeRecords, ...]:
        """The first seeds of all batch sizes first: they are worth most when time is short."""
        whole: dict[int, list[TrialRecord]] = {b: [] for b in self.batch_sizes}

        def keep(job: Job, record: TrialRecord) -> None:
            whole[job.trial.batch_size].append(record)

        for number in range(self.seeds):
            if number and self.is_late():
                self._note(f"The budget is used up: {number} of {self.seeds} seeds were run.")
                break
            self._run(
                (
                    Job(self._trial(b, rate, number), self.settings.trial_steps(b), True)
                    for b, rate in best.items()
                    if rate is not None
                ),
                keep,
            )
        return tuple(
            SizeRecords(
                b,
                self._records[b],
                best[b],
                tuple(sorted(whole[b], key=lambda record: record.trial.seed)),
            )
            for b in self.batch_sizes
        )

    # -- jobs --------------------------------------------------------------------------------------

    def _trial(self, batch: int, rate: float, number: int = 0) -> Trial:
        steps = self.settings.trial_steps(batch)
        epochs = -(-steps // self.settings.steps_per_epoch(batch))
        every = max(1, epochs // _EVALUATIONS)
        return Trial(batch, rate, self.first_seed + number, steps, every)

    def _rung(self, batch: int, rate: float) -> Job:
        return Job(self._trial(batch, rate), self.settings.rung_steps(batch))

    def _first_rates(self, batch: int) -> list[float]:
        return first_rates(self.settings.base_rate, self.settings.base_batch, batch)

    def _further(self, batch: int) -> list[float]:
        if self.is_late():
            return []
        return further_rates(self._records[batch], self.settings.rung_steps(batch))

    def _run(
        self,
        jobs: Iterable[Job],
        keep: Callable[[Job, TrialRecord], None] = lambda _job, _record: None,
    ) -> None:
        wanted = list(jobs)
        for job in wanted:
            self._known(job)

        def stepped(job: Job, samples: int) -> None:
            seconds = _WITH_EVALUATION * samples / self.speeds[job.trial.batch_size]
            self.pace.work(self.stage, seconds)

        def ended(job: Job, record: TrialRecord) -> None:
            if job.trial.seed == self.first_seed:
                self._records[job.trial.batch_size][job.trial.learning_rate] = record
            keep(job, record)
            self.pace.work(self.stage, _SECONDS_EACH)
            self.listener.trial_ended(job.trial, record, is_known=job in known)

        known = {job for job in wanted if self._is_known(job)}
        self.runner.run(wanted, stepped=stepped, ended=ended)

    def _is_known(self, job: Job) -> bool:
        found = read_trial(job.trial, self.runs)
        return found is not None and is_enough(found, job.until, job.with_train_split)

    def _known(self, job: Job) -> None:
        """What is there already is not waited for."""
        found = read_trial(job.trial, self.runs)
        if found is not None:
            samples = min(found.step, job.until) * job.trial.batch_size
            seconds = _WITH_EVALUATION * samples / self.speeds[job.trial.batch_size]
            self.pace.skip(self.stage, seconds)

    def _forget(self, size: SizeRecords) -> None:
        for rate, record in size.by_rate.items():
            if rate != size.best:
                forget_checkpoints(record.trial, self.runs)

    # -- time --------------------------------------------------------------------------------------

    def _expected(self) -> tuple[float, float, float]:
        """Seconds of each stage."""
        rates = promising = seeds = 0.0
        for batch in self.batch_sizes:
            short, whole = trial_seconds(self.settings, batch, self.speeds[batch])
            rates += 6 * (short + _SECONDS_EACH)
            promising += 2 * (whole - short + _SECONDS_EACH)
            seeds += (self.seeds - 1) * (whole + _SECONDS_EACH)
        return rates, promising, seeds

    def _begin(self, stage: str) -> None:
        if self.stage:
            self.pace.expect(self.stage, 0.0)
        self.stage = stage
        self.listener.stage(stage)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.listener.note(text)


def trial_seconds(settings: StudySettings, batch: int, speed: float) -> tuple[float, float]:
    """Of a short and of a whole trial."""
    short, whole = (
        steps * batch / speed * _WITH_EVALUATION
        for steps in (settings.rung_steps(batch), settings.trial_steps(batch))
    )
    return short, whole


def study_seconds(settings: StudySettings, speeds: Mapping[int, float], seeds: int) -> float:
    """What all trials should take: six short ones of each size, two whole ones, the seeds."""
    total = 0.0
    for batch, speed in speeds.items():
        short, whole = trial_seconds(settings, batch, speed)
        total += 4 * short + (seeds + 1) * whole + (7 + seeds) * _SECONDS_EACH
    return total


def goal_of(sizes: Iterable[Iterable[TrialRecord]]) -> Goal | None:
    """An accuracy that all reached, as far as they learned anything.

    Args:
        sizes: trials in groups, such as of a batch size or a seed; the best of each group counts.
    """
    best = []
    for records in sizes:
        seen = [p.accuracy for r in records if r.is_usable for p in r.evaluations]
        if seen:
            best.append(max(seen))
    able = [accuracy for accuracy in best if accuracy >= _LEARNED * max(best)]
    if not able or min(able) <= 0:
        return None
    return Goal("accuracy", float(f"{_OF_REACHED * min(able):.3g}"), is_given=False)
