"""The plan: where every byte goes at any batch size, and the batch that fits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from memfit.cards.catalogue import GPU, gpus
from memfit.errors import UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Tape
from memfit.planner.assumptions import Assumption
from memfit.planner.largest import BatchLimits, UsefulBatch, useful_batch
from memfit.planner.learning_rate import LearningRate, scale_learning_rate
from memfit.planner.limits import Limits
from memfit.planner.result import BatchPlan, PlanResult
from memfit.planner.subject import Subject
from memfit.planner.tapes import Tapes
from memfit.planner.tracing import TrainingStep
from memfit.recipe.fields import MAX_BATCH
from memfit.step.optimizers import is_adaptive
from memfit.units import format_bytes

__all__ = ["Plan"]


class Plan:
    """What training needs, for every batch size; made by :func:`memfit.plan`.

    Args:
        subject: the training step of a resolved recipe, or a script.
        gpu: the card, or None.

    Attributes:
        recipe: of the subject.
        model_name: how the model is called.
        card: the card whose kernels are played: ``gpu``, or a usual one where there is none.
        tapes: what was traced.
        limits: what runs, on any card.
        useful: no larger micro-batch is recommended, whatever memory holds; None where nothing is
            trained.
    """

    def __init__(self, subject: Subject, gpu: GPU | None) -> None:
        self.subject, self.recipe, self.model_name = subject, subject.recipe, subject.name
        self.gpu, self.card = gpu, gpu or subject.gpu
        self.settings = AllocatorSettings.parse(subject.recipe.allocator)
        self.tapes = Tapes(subject)
        is_training = self.recipe.mode == "train"
        most = useful_batch(subject.samples, self.recipe.global_batch) if is_training else None
        self.useful: UsefulBatch | None = most
        self._forget()

    @property
    def step(self) -> TrainingStep:
        """The training step of the recipe.

        Raises:
            UsageError: it is a script's plan.
        """
        if not isinstance(self.subject, TrainingStep):
            raise UsageError("This is the plan of a script; it has no recipe to plan again.")
        return self.subject

    def _forget(self) -> None:
        recipe, useful = self.recipe, self.useful
        most = None if useful is None else useful.batch_size
        self.limits = Limits(self.tapes, self.settings, recipe.safety, most)
        self._plans: dict[int, BatchPlan] = {}

    # -- any batch -----------------------------------------------------------------------------

    @property
    def is_affine(self) -> bool:
        """Whether two traces answer every batch; else each batch is traced directly."""
        return self.tapes.affine is not None

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is known but the one batch that was traced."""
        return len(self.subject.traced_batches) == 1

    def tape_at(self, batch_size: int) -> tuple[Tape, list[int]]:
        """The events, and the requested bytes of every allocation at a micro-batch."""
        return self.tapes.at(batch_size)

    def verify(self, batch_size: int) -> bool:
        """Hold the arithmetic against a direct trace; without it from now on if they differ.

        Raises:
            StepError: the asked batch of one does not run (batch norm needs two values).
        """
        holds = self.tapes.verify(batch_size)
        if not holds:
            self._forget()
        return holds

    def at(self, batch_size: int | None = None) -> BatchPlan:
        """Where every byte goes at a micro-batch; None is the asked or the recommended one.

        Raises:
            UsageError: the batch is no positive number.
        """
        if batch_size is None:
            batch_size = self.micro_batch
        if isinstance(batch_size, bool) or not isinstance(batch_size, int):
            raise UsageError(f"batch_size is {batch_size!r}; it must be a whole number.")
        if not 1 <= batch_size <= MAX_BATCH:
            raise UsageError(f"batch_size is {batch_size}; it must be 1 to {MAX_BATCH:,}.")
        if self.is_fixed and batch_size != self.micro_batch:
            raise UsageError("Nothing is known that sets the batch, so no other can be planned.")
        if batch_size not in self._plans:
            timeline = replay(*self.tapes.at(batch_size), settings=self.settings)
            self._plans[batch_size] = BatchPlan.of(
                batch_size, timeline, self.card, self.gpu, self.settings
            )
        return self._plans[batch_size]

    @property
    def peak(self) -> BatchPlan:
        """The plan at the recommended batch: ``plan.peak.parts``."""
        return self.at(None)

    # -- what fits the card --------------------------------------------------------------------

    @property
    def batch_limits(self) -> BatchLimits | None:
        """The micro-batches that run on the card; None without one, or where nothing sets them."""
        return None if self.gpu is None or self.is_fixed else self.limits.on(self.gpu)

    @property
    def max_batch_size(self) -> int | None:
        """Every micro-batch up to it runs on the card; 0 when none does, None without a card."""
        return self.batch_limits.max_batch_size if self.batch_limits else None

    @property
    def largest_that_runs(self) -> int | None:
        """A larger one that runs although some below it do not; often ``max_batch_size``."""
        return self.batch_limits.largest_that_runs if self.batch_limits else None

    @property
    def recommended_batch_size(self) -> int | None:
        """The largest that runs with ``safety`` of the card's memory and is of use.

        A multiple of 8 from 16; see :func:`memfit.planner.largest.useful_batch`.
        """
        return self.batch_limits.recommended_batch_size if self.batch_limits else None

    @property
    def fits(self) -> bool | None:
        """Whether the asked batch (else a batch of one) runs on the card.

        Without a card: False where no card of the catalogue takes it, else None.
        """
        if self.gpu is None:
            batch = self.recipe.batch_size or 1
            return None if self.limits.runs_on(_largest_card(), batch) else False
        if self.recipe.batch_size is None:
            return self.limits.on(self.gpu).max_batch_size >= 1
        return self.limits.runs_on(self.gpu, self.recipe.batch_size)

    # -- what to train with --------------------------------------------------------------------

    @property
    def micro_batch(self) -> int:
        """The asked micro-batch, else the recommended, else the largest divisor below it."""
        if self.recipe.batch_size is not None:
            return self.recipe.batch_size
        batch = self.recommended_batch_size or self.max_batch_size or (1 if self.gpu else 32)
        goal = self.recipe.global_batch
        if goal is None:
            return batch
        return max(divisor for divisor in range(1, min(batch, goal) + 1) if goal % divisor == 0)

    @property
    def accumulation(self) -> int:
        """Micro-batches for one optimizer step."""
        goal = self.recipe.global_batch
        return goal // self.micro_batch if goal else self.recipe.accumulation

    @property
    def learning_rate(self) -> LearningRate | None:
        """The learning rate for the global batch, carried over from ``base_lr``."""
        recipe = self.recipe
        if recipe.base_lr is None:
            return None
        return scale_learning_rate(
            recipe.base_lr,
            recipe.base_batch_size,
            self.micro_batch * self.accumulation,
            adaptive=is_adaptive(recipe.optimizer),
        )

    def accumulating(self) -> Plan:
        """The plan of the same recipe with more than one micro-batch for each optimizer step."""
        if self.recipe.accumulation > 1:
            return self
        return Plan(self.step.accumulating(), self.gpu)

    def on(self, gpu: GPU) -> Plan:
        """The same plan for the same kind of card with another amount of memory."""
        other = copy.copy(self)
        other.gpu = other.card = gpu
        other._forget()
        return other

    def asking(self, batch_size: int) -> Plan:
        """The same plan, asked about another micro-batch."""
        other = copy.copy(self)
        other.recipe = self.recipe.but(batch_size=batch_size)
        return other

    def with_allocator(self, option: str) -> Plan:
        """The same plan with one more option of the allocator."""
        other = copy.copy(self)
        options = ",".join(filter(None, (self.recipe.allocator, option)))
        other.recipe = self.recipe.but(allocator=options)
        other.settings = AllocatorSettings.parse(options)
        other._forget()
        return other

    # -- as facts ------------------------------------------------------------------------------

    @property
    def parameter_count(self) -> int:
        """Parameters of the model."""
        return self.subject.parameter_count

    def result(self) -> PlanResult:
        """What was found, for the plan's own batch and card."""
        return PlanResult(
            recipe=self.recipe,
            model_name=self.model_name,
            parameter_count=self.parameter_count,
            input_shape=self.subject.input_shape,
            is_tokens=self.subject.is_tokens,
            batch=self.subject.batch_words,
            gpu=self.gpu,
            fits=self.fits,
            limits=self.batch_limits,
            last_batch=self.tapes.last_batch,
            useful=self.useful,
            micro_batch=self.micro_batch,
            accumulation=self.accumulation,
            at=self.at(None),
            learning_rate=self.learning_rate,
            is_affine=self.is_affine,
            stated_assumptions=tuple(self._assumptions()),
            unsupported=self.unsupported,
            left_out=tuple(self.subject.not_modelled()),
        )

    @property
    def unsupported(self) -> dict[str, str]:
        """Operators that could not be accounted for, with the reason."""
        return dict(self.subject.unsupported)

    def _assumptions(self) -> Iterator[Assumption]:
        """Everything the figures rest on."""
        card, tapes = self.card, self.tapes
        if self.gpu is None:
            yield Assumption("no_card", {"card": card.name})
        context = format_bytes(card.context_bytes)
        yield Assumption("context", {"context": context, "source": card.context_source})
        if card.is_shared:
            yield Assumption("shared_memory")
        yield from self.subject.assumptions()
        if tapes.not_affine_because:
            yield Assumption("direct", {"because": tapes.not_affine_because})
        elif tapes.affine is not None:
            small, large = map(str, self.subject.traced_batches)
            key = "arithmetic" if isinstance(self.subject, TrainingStep) else "arithmetic_runs"
            yield Assumption(key, {"small": small, "large": large})
            if tapes.affine.sizes.squares:
                yield Assumption("squares")
        if self.subject.unknown_temporaries:
            names = ", ".join(sorted(self.subject.unknown_temporaries))
            yield Assumption("no_temporaries", {"operators": names})

    @property
    def assumptions(self) -> list[str]:
        """What the estimate rests on, in sentences."""
        return self.result().assumptions

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, with the names of the attributes."""
        return self.result().to_dict()

    def __repr__(self) -> str:
        return repr(self.result())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        result = self.result()
        return {"text/plain": repr(result), "text/html": result.to_html()}


def _largest_card() -> GPU:
    return max(gpus().values(), key=lambda card: card.capacity_bytes)
