"""The plan: where every byte goes at any batch size, and the batch that fits."""

from __future__ import annotations

import copy
from typing import Any

from memfit.cards.catalogue import GPU
from memfit.errors import UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Tape
from memfit.planner.assumptions import assumptions_of
from memfit.planner.largest import BatchLimits
from memfit.planner.learning_rate import LearningRate, scale_learning_rate
from memfit.planner.limits import Limits
from memfit.planner.result import BatchPlan, PlanResult
from memfit.planner.tapes import Tapes
from memfit.planner.tracing import TrainingStep
from memfit.recipe.fields import MAX_BATCH
from memfit.step.optimizers import is_adaptive

__all__ = ["Plan"]


class Plan:
    """What a recipe needs, for every batch size; made by :func:`memfit.plan`.

    Args:
        step: the training step of the resolved recipe.
        gpu: the card, or None.

    Attributes:
        recipe: of the step.
        model_name: how the model is called.
        card: the card whose kernels are played: ``gpu``, or a usual one where there is none.
        tapes: what was traced.
        limits: what runs, on any card.
    """

    def __init__(self, step: TrainingStep, gpu: GPU | None) -> None:
        self.step, self.recipe, self.model_name = step, step.recipe, step.name
        self.gpu, self.card = gpu, gpu or step.gpu
        self.settings = AllocatorSettings.parse(step.recipe.allocator)
        self.tapes = Tapes(step)
        self._forget()

    def _forget(self) -> None:
        self.limits = Limits(self.tapes, self.settings, self.recipe.safety)
        self._plans: dict[int, BatchPlan] = {}

    # -- any batch -----------------------------------------------------------------------------

    @property
    def is_affine(self) -> bool:
        """Whether two traces answer every batch; else each batch is traced directly."""
        return self.tapes.affine is not None

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
        """The micro-batches that run on the card; None without a card."""
        return None if self.gpu is None else self.limits.on(self.gpu)

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
        """The largest that runs with ``safety`` of the card's memory, a multiple of 8 from 16."""
        return self.batch_limits.recommended_batch_size if self.batch_limits else None

    @property
    def fits(self) -> bool | None:
        """Whether the asked batch (else a batch of one) runs on the card; None without a card."""
        if self.gpu is None:
            return None
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

    # -- as facts ------------------------------------------------------------------------------

    @property
    def parameter_count(self) -> int:
        """Parameters of the model."""
        return sum(parameter.numel() for parameter in self.step.model.parameters())

    def result(self) -> PlanResult:
        """What was found, for the plan's own batch and card."""
        because = self.tapes.not_affine_because
        return PlanResult(
            recipe=self.recipe,
            model_name=self.model_name,
            parameter_count=self.parameter_count,
            input_shape=self.step.batch.inputs.shape,
            is_tokens=self.step.batch.is_tokens,
            gpu=self.gpu,
            fits=self.fits,
            limits=self.batch_limits,
            last_batch=self.tapes.last_batch,
            micro_batch=self.micro_batch,
            accumulation=self.accumulation,
            at=self.at(None),
            learning_rate=self.learning_rate,
            is_affine=self.is_affine,
            stated_assumptions=tuple(assumptions_of(self.step, self.gpu, because)),
            unsupported=self.unsupported,
        )

    @property
    def unsupported(self) -> dict[str, str]:
        """Operators that could not be accounted for, with the reason."""
        return dict(self.step.unsupported)

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
