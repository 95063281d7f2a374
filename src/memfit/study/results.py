"""What a study found, as facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from memfit.study.measuring.memory import BatchMemory
from memfit.study.science.goal import Goal
from memfit.study.science.rate_rule import RateRule, TunedRate
from memfit.study.science.recommendation import Recommendation
from memfit.study.science.tradeoff import TradeOff

if TYPE_CHECKING:
    from memfit.study.measuring.noise import NoisePoint
    from memfit.study.measuring.throughput import Throughput

__all__ = ["GoalReached", "Measured", "RateTried", "SizeResult", "Study", "StudySettings", "plain"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What every trial of a study has in common; kept when it is extended.

    Args:
        samples: training images.
        epochs: of the equal-epochs budget.
        steps: of the equal-steps budget.
        rung: share of a trial after which bad learning rates are given up.
        base_rate: learning rate from which the grid starts...
        base_batch: ...at this batch size.
    """

    samples: int
    epochs: int
    steps: int
    rung: float
    base_rate: float
    base_batch: int

    def trial_steps(self, batch_size: int) -> int:
        """Optimizer steps of a whole trial: enough for both budgets."""
        return max(self.epoch_steps(batch_size), self.steps)

    def epoch_steps(self, batch_size: int) -> int:
        """Optimizer steps of the equal-epochs budget."""
        return self.epochs * self.steps_per_epoch(batch_size)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Optimizer steps in a pass over the data."""
        return -(-self.samples // batch_size)

    def rung_steps(self, batch_size: int) -> int:
        """Optimizer steps after which the best learning rates go on: whole epochs."""
        per_epoch = self.steps_per_epoch(batch_size)
        epochs = max(1, round(self.rung * self.trial_steps(batch_size) / per_epoch))
        return min(epochs * per_epoch, self.trial_steps(batch_size))


@dataclass(frozen=True, slots=True)
class Measured:
    """A number of every seed.

    Args:
        values: in the order of the seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the seeds."""
        return fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation among seeds; None with one."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class RateTried:
    """A learning rate that was tried with the first seed.

    Args:
        learning_rate: after warm-up.
        outcome: of its trial.
        steps: that it was given.
        early_loss: lowest validation loss within the short trial; None where it diverged.
    """

    learning_rate: float
    outcome: str
    steps: int
    early_loss: float | None


@dataclass(frozen=True, slots=True)
class GoalReached:
    """Training to the goal at one batch size.

    Args:
        steps: optimizer steps of every seed; None where it never got there.
        step_seconds: of one step, measured; None where speed was not.
        batch_size: samples for one step.
        resolution: steps between two evaluations: steps are interpolated between them.
    """

    steps: tuple[float | None, ...]
    step_seconds: float | None
    batch_size: int
    resolution: int

    @property
    def reached(self) -> tuple[float, ...]:
        """Steps of the seeds that got there."""
        return tuple(s for s in self.steps if s is not None)

    @property
    def mean_steps(self) -> float | None:
        """Of the seeds; None unless every one got there."""
        if not self.steps or None in self.steps:
            return None
        return fmean(self.reached)

    @property
    def mean_examples(self) -> float | None:
        """Seen by a step, times steps."""
        return None if self.mean_steps is None else self.mean_steps * self.batch_size

    @property
    def seconds(self) -> float | None:
        """Of training to the goal."""
        if self.mean_steps is None or self.step_seconds is None:
            return None
        return self.mean_steps * self.step_seconds


@dataclass(frozen=True, slots=True)
class SizeResult:
    """Everything about one batch size.

    Args:
        batch_size: samples for one optimizer step.
        tried: learning rates.
        rate: the best one; None when every trial failed.
        goal: steps and examples to the goal.
        equal_epochs: validation accuracy after the same passes over the data.
        equal_steps: validation accuracy after the same optimizer steps; None where the first
            evaluation came later.
        train_accuracy: at the end of whole trials.
        val_accuracy: at the end of whole trials.
        train_loss: at the end of whole trials.
        val_loss: at the end of whole trials.
        problem: why there is no result, in a sentence.
    """

    batch_size: int
    tried: tuple[RateTried, ...]
    rate: TunedRate | None
    goal: GoalReached | None
    equal_epochs: Measured | None
    equal_steps: Measured | None
    train_accuracy: Measured | None
    val_accuracy: Measured | None
    train_loss: Measured | None
    val_loss: Measured | None
    problem: str | None

    @property
    def gap(self) -> Measured | None:
        """The generalisation gap: accuracy on training images less that on validation images."""
        if self.train_accuracy is None or self.val_accuracy is None:
            return None
        pairs = zip(self.train_accuracy.values, self.val_accuracy.values, strict=True)
        return Measured(tuple(train - val for train, val in pairs))


@dataclass(frozen=True)
class Study:
    """What batch size changes, for one recipe.

    Args:
        folder: where everything is.
        recipe: as plain values.
        model_name: in words.
        data_name: in words.
        device: in words.
        seeds: of every batch size.
        settings: what the trials have in common.
        goal: what training was to reach; None when no batch size learned anything.
        sizes: results by batch size.
        memory: predictions by batch size.
        card: whose memory is the ceiling; None for no ceiling.
        throughput: measured; empty when it was not.
        knee: the smallest batch within 5 % of the best speed.
        noise: the simple noise scale over training.
        noise_batch: at which it was measured.
        tradeoff: fitted; None when fewer than three batch sizes reached the goal.
        rate_rule: fitted; None with fewer than three tuned rates.
        recommendation: None when nothing can be recommended.
        notes: what one should know, in sentences.
        seconds: of all trials.
    """

    folder: Path
    recipe: Mapping[str, Any]
    model_name: str
    data_name: str
    device: str
    seeds: int
    settings: StudySettings
    goal: Goal | None
    sizes: tuple[SizeResult, ...]
    memory: tuple[BatchMemory, ...]
    card: str | None
    throughput: tuple[Throughput, ...]
    knee: int | None
    noise: tuple[NoisePoint, ...]
    noise_batch: int | None
    tradeoff: TradeOff | None
    rate_rule: RateRule | None
    recommendation: Recommendation | None
    notes: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the names of the attributes and of what follows from them."""
        content = {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        return {"schema_version": SCHEMA_VERSION, **content, "folder": str(self.folder)}


#: Properties that a reader of ``study.json`` wants, too.
_DERIVED = {
    Measured: ("mean", "spread"),
    GoalReached: ("mean_steps", "mean_examples", "seconds"),
    SizeResult: ("gap",),
    RateRule: ("verdict",),
}


def plain(value: Any) -> Any:
    """Facts as dictionaries and lists."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        names += _DERIVED.get(type(value), ())
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
