"""The trials of a study, stage by stage; trials of one stage depend on none of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from memfit.progress import TimeLeft
from memfit.step.job import Job
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
    "Ended", "LocalRunner", "Runner", "Search", "SizeRecords", "Stepped", "Task", "goal_of",
    "study_seconds", "trial_seconds",
]  # fmt: skip

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
class Task:
    """A trial, up to a step.

    Args:
        trial: what to run.
        until: optimizer steps.
        with_train_split: evaluate it on the training images at its end.
    """

    trial: Trial
    until: int
    with_train_split: bool = False


Stepped = Callable[[Task, int], None]
"""Is told the samples of a step."""
Ended = Callable[[Task, TrialRecord], None]


class Runner(Protocol):
    """Runs tasks that do not depend on each other."""

    def run(self, tasks: Sequence[Task], *, stepped: Stepped, ended: Ended) -> None:
        """Run all; ``stepped`` is told the samples of a step where somebody can see them."""


class LocalRunner:
    """One task after the other, in this process.

    Args:
        job: of the study.
        runs: folder of all trials.
        device: as for :func:`memfit.train`.
    """

    def __init__(self, job: Job, runs: Path, device: str) -> None:
        self.job, self.runs, self.device = job, runs, device

    def run(self, tasks: Sequence[Task], *, stepped: Stepped, ended: Ended) -> None:
        """Run all."""
        for task in tasks:
            record = run_trial(
                task.trial,
                self.job,
                self.runs,
                until=task.until,
                device=self.device,
                with_train_split=task.with_train_split,
                stepped=lambda samples, task=task: stepped(task, samples),  # type: ignore[misc]
            )
            ended(task, record)


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
        note: is told what the user should know.
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
        note: Callable[[str], None],
        listener: StudyListener,
        pace: TimeLeft,
    ) -> None:
        self.settings, self.batch_sizes = settings, tuple(batch_sizes)
        self.seeds, self.first_seed, self.goal = seeds, first_seed, goal
        self.runner, self.runs, self.speeds = runner, runs, speeds
        self.is_late, self.note, self.listener, self.pace = is_late, note, listener, pace
        self.stage = ""
        self._records: dict[int, dict[float, TrialRecord]] = {b: {} for b in self.batch_sizes}
        for stage, seconds in zip(_STAGES, self._expected(), strict=True):
            pace.expect(stage, seconds)

    def go(self) -> tuple[SizeRecords, ...]:
        """All trials; those that are there are not run again."""
        self._begin("learning rates")
        settings, rung = self.settings, self.settings.rung_steps
        wanted = {
            b: first_rates(settings.base_rate, settings.base_batch, b) for b in self.batch_sizes
        }
        while any(wanted.values()):
            self._run(
                Task(self._trial(b, rate), rung(b)) for b, rates in wanted.items() for rate in rates
            )
            wanted = (
                {} if self.is_late()
                else {b: further_rates(self._records[b], rung(b)) for b in self.batch_sizes}
            )  # fmt: skip
        self._begin("promising rates")
        self._run(
            Task(self._trial(b, rate), settings.trial_steps(b))
            for b in self.batch_sizes
            for rate in most_promising(self._records[b], rung(b), 1 if self.is_late() else 2)
        )
        goal = self.goal or goal_of([self._records[b].values() for b in self.batch_sizes])
        best = {b: winner(self._records[b], goal) for b in self.batch_sizes}
        self._begin("seeds")
        found = self._with_seeds(best)
        for size in found:
            for rate, record in size.by_rate.items():
                if rate != size.best:
                    forget_checkpoints(record.trial, self.runs)
        return found

    def _with_seeds(self, best: Mapping[int, float | None]) -> tuple[SizeRecords, ...]:
        """The first seeds of all batch sizes first: they are worth most when time is short."""
        whole: dict[int, list[TrialRecord]] = {b: [] for b in self.batch_sizes}

        def keep(task: Task, record: TrialRecord) -> None:
            whole[task.trial.batch_size].append(record)

        for number in range(self.seeds):
            if number and self.is_late():
                self.note(f"The budget is used up: {number} of {self.seeds} seeds were run.")
                break
            self._run(
                (
                    Task(self._trial(b, rate, number), self.settings.trial_steps(b), True)
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

    # -- tasks -------------------------------------------------------------------------------------

    def _trial(self, batch: int, rate: float, number: int = 0) -> Trial:
        steps = self.settings.trial_steps(batch)
        epochs = -(-steps // self.settings.steps_per_epoch(batch))
        every = max(1, epochs // _EVALUATIONS)
        return Trial(batch, rate, self.first_seed + number, steps, every)

    def _run(self, tasks: Iterable[Task], keep: Ended = lambda _task, _record: None) -> None:
        wanted = list(tasks)
        known: set[Task] = set()
        for task in wanted:  # what is there already is not waited for
            if (found := read_trial(task.trial, self.runs)) is None:
                continue
            samples = min(found.step, task.until) * task.trial.batch_size
            self.pace.skip(self.stage, self._seconds(task, samples))
            if is_enough(found, task.until, task.with_train_split):
                known.add(task)

        def stepped(task: Task, samples: int) -> None:
            self.pace.work(self.stage, self._seconds(task, samples))

        def ended(task: Task, record: TrialRecord) -> None:
            if task.trial.seed == self.first_seed:
                self._records[task.trial.batch_size][task.trial.learning_rate] = record
            keep(task, record)
            self.pace.work(self.stage, _SECONDS_EACH)
            self.listener.trial_ended(task.trial, record, is_known=task in known)

        self.runner.run(wanted, stepped=stepped, ended=ended)

    # -- time --------------------------------------------------------------------------------------

    def _seconds(self, task: Task, samples: int) -> float:
        return _WITH_EVALUATION * samples / self.speeds[task.trial.batch_size]

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
