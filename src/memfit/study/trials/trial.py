"""A trial: one ordinary run of a study, at one batch size, learning rate and seed."""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from memfit.errors import DoesNotFit, NonFiniteLoss, RunError
from memfit.files.durable import write_whole
from memfit.files.metrics_file import MetricsFile, read_json, to_json
from memfit.step.job import Job
from memfit.study.science.goal import Evaluated
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.run.run import train
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.run.trained import open_trained
from memfit.trainer.step.evaluation import Evaluation
from memfit.trainer.step.training import StepResult

__all__ = [
    "Outcome",
    "Trial",
    "TrialRecord",
    "forget_checkpoints",
    "is_enough",
    "read_trial",
    "run_trial",
]

#: ``paused`` has a checkpoint to go on from, and stays so when its learning rate lost.
Outcome = Literal["finished", "paused", "diverged", "does not fit"]

#: The loss, over so many steps, at so many times what it was at first: it will not come back.
_WINDOW, _EXPLODED = 20, 3.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What is run.

    Args:
        batch_size: global: samples for one optimizer step.
        learning_rate: after warm-up.
        seed: of weights and order.
        total_steps: of the whole trial; it may be paused before.
        evaluate_every: epochs.
    """

    batch_size: int
    learning_rate: float
    seed: int
    total_steps: int
    evaluate_every: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"b{self.batch_size:05d}-lr{self.learning_rate:.4g}-s{self.seed}"

    def job(self, job: Job) -> Job:
        """The study's job as this trial trains it: a constant rate, so every prefix is a run."""
        micro = job.recipe.batch_size
        return job.but(
            global_batch=self.batch_size,
            batch_size=micro if micro and self.batch_size % micro == 0 else None,
            accumulation=1,
            lr=self.learning_rate,
            base_lr=None,
            seed=self.seed,
            steps=self.total_steps,
            schedule="constant",
            evaluate_every=self.evaluate_every,
            early_stopping=None,
            checkpoint_every=None,
            keep_checkpoints=1,
        )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """What a trial's folder says.

    Args:
        trial: what was run.
        outcome: how far it came.
        step: optimizer steps taken.
        seconds: in all, with evaluations.
        evaluations: on the validation images, by step.
        train_accuracy: at the end, on the training images; None unless asked.
        train_loss: as ``train_accuracy``.
        memory: measured peaks of its device, bytes; None where nobody counts.
    """

    trial: Trial
    outcome: Outcome
    step: int
    seconds: float
    evaluations: tuple[Evaluated, ...]
    train_accuracy: float | None = None
    train_loss: float | None = None
    memory: dict[str, Any] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it learned without falling over."""
        return self.outcome in ("finished", "paused") and bool(self.evaluations)


class _Paused(Exception):
    pass


class _Exploded(Exception):
    pass


class _Watch(Listener):
    """Pauses a run at a checkpoint, and gives up one whose loss explodes."""

    def __init__(self, until: int, stepped: Callable[[int], None]) -> None:
        self.until, self.stepped = until, stepped
        self.step, self.first = 0, 0.0
        self.losses: deque[float] = deque(maxlen=_WINDOW)
        self.total = 0

    def began(self, beginning: Beginning) -> None:
        self.step, self.total = beginning.step, beginning.total_steps

    def took_step(self, result: StepResult, used_bytes: int | None) -> None:  # noqa: ARG002
        self.step = result.step
        self.first = self.first or result.loss
        self.losses.append(result.loss)
        self.stepped(result.samples)
        mean = sum(self.losses) / len(self.losses)
        if len(self.losses) == _WINDOW and mean > _EXPLODED * max(1.0, self.first):
            raise _Exploded

    def finished_epoch(
        self,
        step: int,
        epoch: int,  # noqa: ARG002
        evaluation: Evaluation | None,
        is_best: bool,  # noqa: ARG002
    ) -> None:
        if evaluation is not None and not math.isfinite(evaluation.loss):
            raise _Exploded
        self.step = step

    def saved(self, path: Path) -> None:  # noqa: ARG002
        if self.until <= self.step < self.total:
            raise _Paused


def run_trial(
    trial: Trial,
    job: Job,
    runs: Path,
    *,
    until: int,
    device: str = "auto",
    with_train_split: bool = False,
    stepped: Callable[[int], None] = lambda _samples: None,
) -> TrialRecord:
    """Run a trial up to a step, or go on with it; what its folder has is not done again.

    Args:
        trial: what to run.
        job: the study's.
        runs: folder of all trials.
        until: optimizer steps; it pauses at the first checkpoint from there on.
        device: as for :func:`memfit.train`.
        with_train_split: evaluate a finished trial on its training images, too.
        stepped: is told the samples of every step.

    Raises:
        KeyboardInterrupt: a signal asked to stop; the run has its checkpoint.
        MemfitError: what no other learning rate would change.
    """
    found = read_trial(trial, runs)
    if found is not None and is_enough(found, until, with_train_split):
        return found
    before = 0.0 if found is None else found.seconds
    path, start = runs / trial.name, time.perf_counter()
    is_whole = found is not None and found.outcome == "finished"
    outcome: Outcome = "finished"
    if not is_whole or not any((path / "checkpoints").glob("*.pt")):  # of losers none is kept
        outcome = _train(trial, job, runs, until, device, stepped)
    extra: dict[str, Any] = {}
    if with_train_split and outcome == "finished":
        trained = open_trained(path, which="last", device=device, given=trial.job(job))
        seen = trained.evaluate("train")
        extra = {"train_accuracy": seen.accuracy, "train_loss": seen.loss}
    seconds = before + time.perf_counter() - start
    content = {"schema_version": 1, "outcome": outcome, "seconds": seconds, **extra}
    write_whole(path / "trial.json", (to_json(content, indent=2) + "\n").encode())
    record = read_trial(trial, runs)
    assert record is not None
    return record


def is_enough(found: TrialRecord, until: int, with_train_split: bool) -> bool:
    """Whether what is known of a trial answers what is asked now."""
    if found.outcome in ("diverged", "does not fit"):
        return True
    if found.outcome == "paused":
        return found.step >= until
    return found.train_accuracy is not None or not with_train_split


def _train(
    trial: Trial, job: Job, runs: Path, until: int, device: str, stepped: Callable[[int], None]
) -> Outcome:
    path = runs / trial.name
    watch = _Watch(until, stepped)
    if torch.cuda.is_initialized():  # the peaks of this trial, not of those before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    resume = path if _can_go_on(path) else None
    if resume is None:
        shutil.rmtree(path, ignore_errors=True)
    try:
        result = train(
            trial.job(job),
            name=None if resume else trial.name,
            runs=runs,
            resume=resume,
            device=device,
            listener=watch,
            with_test=False,
        )
    except _Paused:
        _set_stopped(path)
        return "paused"
    except (NonFiniteLoss, _Exploded):
        _set_stopped(path)
        return "diverged"
    except DoesNotFit:
        if not path.exists():
            raise
        _set_stopped(path)
        return "does not fit"
    if result.status == "stopped":
        raise KeyboardInterrupt
    return "finished"


def _can_go_on(path: Path) -> bool:
    """Whether the folder has a checkpoint; a finished run is never asked for here."""
    try:
        folder = RunFolder.open(path)
        return folder.status != "finished" and any(folder.checkpoints.folder.glob("step-*.pt"))
    except RunError:
        return False


def _set_stopped(path: Path) -> None:
    """An exception left it ``running``; it has ended here on purpose."""
    with RunFolder.resume(path) as folder:
        folder.set_status("stopped")


def read_trial(trial: Trial, runs: Path) -> TrialRecord | None:
    """What is known of a trial; None where it never came to an end or a pause."""
    path = runs / trial.name
    facts = _read(path / "trial.json")
    if facts is None:
        summary = _read(path / "summary.json")
        if summary is None or summary.get("status") != "finished":
            return None
        facts = {"outcome": "finished", "seconds": 0.0}  # ended between the run and the note
    points, step = [], 0
    for line in MetricsFile(path / "metrics.jsonl").read():
        step = max(step, line["step"])
        if line["event"] == "evaluation" and line["loss"] is not None:
            points.append(Evaluated(line["step"], line["loss"], line["accuracy"]))
    summary = _read(path / "summary.json") or {}
    return TrialRecord(
        trial,
        facts["outcome"],
        step,
        facts["seconds"],
        tuple(points),
        facts.get("train_accuracy"),
        facts.get("train_loss"),
        summary.get("memory", {}).get("measured"),
    )


def forget_checkpoints(trial: Trial, runs: Path) -> None:
    """Give back the disk space of a trial that lost; its metrics stay."""
    for file in (runs / trial.name / "checkpoints").glob("*.pt"):
        file.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except RunError:
        return None
