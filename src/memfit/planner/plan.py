"""The plan: where every byte goes at any batch size, and the batch that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from memfit.cards.catalogue import GPU
from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import StepError, UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import Timeline, fits, replay
from memfit.memory.tape.tape import AffineTape, NotAffine, Part, Phase, Tape, max_live_bytes
from memfit.planner.assumptions import Assumption, assumptions_of
from memfit.planner.learning_rate import LearningRate, scale_learning_rate
from memfit.planner.search import largest_batch
from memfit.planner.tracing import TrainingStep
from memfit.recipe.fields import MAX_BATCH
from memfit.recipe.recipe import Recipe
from memfit.step.optimizers import is_adaptive
from memfit.units import format_bytes

__all__ = ["TRACED_BATCHES", "BatchPlan", "Peak", "Plan"]

SCHEMA_VERSION = 1

#: The two micro-batches that are traced; every other one is arithmetic.
TRACED_BATCHES = (4, 8)

#: Where each batch needs a trace of its own, no larger one is tried.
_MAX_TRACED_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Peak:
    """The instant of the step at which most bytes are allocated.

    Args:
        phase: of the training loop.
        module: path of the module at work; empty outside of modules.
        operator: the ATen operator that allocated last.
    """

    phase: Phase
    module: str
    operator: str


@dataclass(frozen=True)
class BatchPlan:
    """Where every byte goes at one micro-batch.

    Args:
        batch_size: the micro-batch.
        peak_allocated_bytes: as ``torch.cuda.max_memory_allocated``.
        peak_reserved_bytes: as ``torch.cuda.max_memory_reserved``, without any limit.
        total_bytes: what the whole process takes of the card: reserved and the CUDA context.
        parts: requested bytes at the peak by part; they sum to ``total_bytes``.
        peak: when it happens.
        timeline: allocated and reserved bytes at every instant.
    """

    batch_size: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    total_bytes: int
    parts: dict[str, int]
    peak: Peak
    timeline: Timeline = field(repr=False)
    _fits: Callable[[str | GPU | None], bool] = field(repr=False)

    def fits(self, gpu: str | GPU | None = None) -> bool:
        """Whether the step runs on a card: replayed against its capacity.

        Args:
            gpu: another card than the plan's.

        Raises:
            UsageError: neither the plan nor the call names a card.
        """
        return self._fits(gpu)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the names of the attributes."""
        return {
            "batch_size": self.batch_size,
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "total_bytes": self.total_bytes,
            "parts": dict(self.parts),
            "peak": {
                "phase": str(self.peak.phase),
                "module": self.peak.module,
                "operator": self.peak.operator,
            },
        }


class Plan:
    """What a recipe needs, for every batch size; made by :func:`memfit.plan`.

    Args:
        recipe: the resolved recipe.
        step: its training step.
        model_name: how the model is called.
        gpu: the card, or None.
        like: a plan of a similar recipe, whose answers are good first guesses for this one's.

    Attributes:
        card: the card whose kernels are played: ``gpu``, or a usual one where there is none.
    """

    def __init__(
        self,
        recipe: Recipe,
        step: TrainingStep,
        model_name: str,
        gpu: GPU | None,
        like: Plan | None = None,
    ) -> None:
        self.recipe = recipe
        self.step = step
        self.model_name = model_name
        self.gpu = gpu
        self.parameter_count = sum(p.numel() for p in step.model.parameters())
        self.not_affine_because = ""
        self._settings = AllocatorSettings.parse(recipe.allocator)
        self.card = gpu or step.gpu
        self._plans: dict[int, BatchPlan] = {}
        self._largest: dict[tuple[str, int], int] = {}
        self._bounds: dict[tuple[str, int], int] = {}
        self._like = like
        small, large = TRACED_BATCHES
        self._direct = {small: step.trace(small), large: step.trace(large)}
        self._affine: AffineTape | None = None
        try:
            self._affine = AffineTape.fit(self._direct[small], small, self._direct[large], large)
        except NotAffine as difference:
            self.not_affine_because = str(difference)

    # -- the tape ------------------------------------------------------------------------------

    @property
    def is_affine(self) -> bool:
        """Whether two traces answer every batch; else each batch is traced directly."""
        return self._affine is not None

    @property
    def affine_tape(self) -> AffineTape | None:
        """The tape for every batch but one; None where each is traced."""
        return self._affine

    @property
    def traced_tapes(self) -> dict[int, Tape]:
        """The tapes that hold as they are: of a batch of one, or of all batches traced so far."""
        if self._affine is None:
            return dict(self._direct)
        return {} if self._single is None else {1: self._single}

    def verify(self, batch_size: int) -> bool:
        """Hold the affine answer against a direct trace; without it from now on if they differ.

        Raises:
            StepError: the asked batch of one does not run (batch norm needs two values).
        """
        if self._affine is None:
            return False
        if batch_size == 1:  # a trace already, see tape_at
            if self._single is None and self.recipe.batch_size == 1:
                self.step.trace(1)
            return True
        tape = self._direct[batch_size] = self.step.trace(batch_size)
        if self._affine.matches(tape, batch_size):
            return True
        self.not_affine_because = f"the trace at batch {batch_size} differs from the arithmetic"
        self._affine = None
        self._plans.clear()
        self._largest.clear()
        return False

    def tape_at(self, batch_size: int) -> tuple[Tape, list[int]]:
        """The events, and the requested bytes of every allocation at a micro-batch."""
        if self._affine is not None:
            if batch_size == 1 and self._single is not None:
                return self._single, self._single.sizes_bytes
            return self._affine.tape, self._affine.sizes_bytes(batch_size)
        if batch_size not in self._direct:
            self._direct[batch_size] = self.step.trace(batch_size)
        tape = self._direct[batch_size]
        return tape, tape.sizes_bytes

    @cached_property
    def _single(self) -> Tape | None:
        """A batch of one is traced: where a dimension is one, torch views what it else copies."""
        try:
            return self.step.trace(1)
        except StepError:
            return None  # batch norm refuses one value for each channel

    def accumulating(self) -> Plan:
        """The plan of the same recipe with more than one micro-batch for each optimizer step."""
        if self.recipe.accumulation > 1:
            return self
        step = self.step.accumulating()
        return Plan(step.recipe, step, self.model_name, self.gpu, like=self)

    # -- any batch -----------------------------------------------------------------------------

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
            self._plans[batch_size] = self._plan_at(batch_size)
        return self._plans[batch_size]

    def _plan_at(self, batch_size: int) -> BatchPlan:
        tape, sizes = self.tape_at(batch_size)
        timeline = replay(tape, sizes, settings=self._settings)
        peak, reserved = timeline.peak, timeline.peak_reserved_bytes
        context = self.card.context_bytes
        parts = peak.parts | {
            Part.CACHE: reserved - sum(peak.parts.values()),
            Part.CONTEXT: context,
        }
        return BatchPlan(
            batch_size=batch_size,
            peak_allocated_bytes=peak.allocated_bytes,
            peak_reserved_bytes=reserved,
            total_bytes=reserved + context,
            parts={str(part): parts[part] for part in Part},
            peak=Peak(peak.allocation.phase, peak.allocation.module, peak.allocation.operator),
            timeline=timeline,
            _fits=lambda gpu: self.fits_on(self._card_named(gpu), batch_size),
        )

    def _card_named(self, gpu: str | GPU | None) -> GPU:
        if isinstance(gpu, str):
            return find_gpu(gpu)
        if gpu is not None and not isinstance(gpu, GPU):
            raise UsageError(f"gpu is {gpu!r}; it must be a name, a size such as '11GiB' or a GPU.")
        if gpu is None and self.gpu is None:
            raise UsageError("Which GPU?", hint='Pass one: plan.at(64).fits(gpu="rtx-3090").')
        return gpu or self.card

    # -- what fits -----------------------------------------------------------------------------

    def fits_on(self, gpu: GPU, batch_size: int) -> bool:
        """Whether a micro-batch runs on a card, releasing cached blocks where torch would."""
        capacity = gpu.usable_bytes - gpu.context_bytes
        if self._least_bytes(batch_size) > capacity:
            return False
        known = self._plans.get(batch_size)
        is_limited = self._settings.per_process_memory_fraction < 1
        if not is_limited and known is not None and known.peak_reserved_bytes <= capacity:
            return True
        tape, sizes = self.tape_at(batch_size)
        return fits(tape, sizes, capacity, self._settings, gpu.total_bytes)

    @property
    def fits(self) -> bool | None:
        """Whether the asked batch (else a batch of one) runs on the card; None without a card."""
        if self.gpu is None:
            return None
        if self.recipe.batch_size is None:
            return self.max_batch_on(self.gpu) >= 1
        return self.fits_on(self.gpu, self.recipe.batch_size)

    @property
    def max_batch_size(self) -> int | None:
        """The largest micro-batch that runs on the card; 0 when none does, None without a card."""
        return None if self.gpu is None else self.max_batch_on(self.gpu)

    @property
    def recommended_batch_size(self) -> int | None:
        """The largest micro-batch within ``safety`` of the card, a multiple of 8 from 16 up."""
        return None if self.gpu is None else self.recommended_batch_on(self.gpu)

    @property
    def batch_limit(self) -> int:
        """The largest micro-batch that is tried."""
        return MAX_BATCH if self.is_affine else _MAX_TRACED_BATCH

    def max_batch_on(self, gpu: GPU) -> int:
        """The largest micro-batch that runs on a card; 0 when none does."""
        capacity = gpu.usable_bytes - gpu.context_bytes
        kind = f"max of {gpu.total_bytes}"
        return self._search(kind, capacity, lambda batch: self.fits_on(gpu, batch))

    def recommended_batch_on(self, gpu: GPU) -> int:
        """The largest micro-batch whose total stays within ``safety`` of a card's memory."""
        reserved = int(gpu.usable_bytes * self.recipe.safety) - gpu.context_bytes

        def is_safe(batch: int) -> bool:
            return self.at(batch).peak_reserved_bytes <= reserved

        batch = min(self._search("safe", reserved, is_safe), self.max_batch_on(gpu))
        return batch - batch % 8 if batch >= 16 else batch

    def _search(self, kind: str, capacity_bytes: int, holds: Callable[[int], bool]) -> int:
        key = (kind, capacity_bytes)
        if key not in self._largest:
            bound = largest_batch(
                lambda batch: self._least_bytes(batch) <= capacity_bytes,
                self.batch_limit,
            )
            guess = self._guess(key, bound)
            self._largest[key] = largest_batch(holds, bound, guess)
            self._bounds[key] = bound
        return self._largest[key]

    def _guess(self, key: tuple[str, int], bound: int) -> int:
        """Where to look first: as in a similar plan, or where memory would reach the capacity.

        Args:
            key: what is looked for, and the capacity.
            bound: where requested memory alone reaches it.
        """
        capacity_bytes = key[1]
        if bound < 2:
            return bound
        if self._like is not None and self._like._bounds.get(key):
            return round(bound * self._like._largest[key] / self._like._bounds[key])
        if key[0].startswith("max"):  # releasing its cache, the allocator gets close to the bound
            return bound - bound // 64
        at_half, at_bound = (self.at(b).peak_reserved_bytes for b in (bound // 2, bound))
        slope = (at_bound - at_half) / (bound - bound // 2)
        return bound - int((at_bound - capacity_bytes) / slope) if slope > 0 else bound

    def _least_bytes(self, batch_size: int) -> int:
        """The most requested bytes alive at once: less than any allocator can do with."""
        if self._affine is not None:
            sizes = self._affine.least_sizes_bytes(batch_size)
            return max_live_bytes(sizes, self._affine.tape.events)
        return self.tape_at(batch_size)[0].peak_requested_bytes

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

    # -- what it rests on ----------------------------------------------------------------------

    @property
    def unsupported(self) -> dict[str, str]:
        """Operators that could not be accounted for, with the reason."""
        return dict(self.step.unsupported)

    @property
    def assumptions(self) -> list[str]:
        """What the estimate rests on, in sentences."""
        return [assumption.text for assumption in self.stated_assumptions]

    @property
    def stated_assumptions(self) -> list[Assumption]:
        """The same, each with a name."""
        return list(assumptions_of(self.step, self.gpu, TRACED_BATCHES, self.not_affine_because))

    @property
    def peak(self) -> BatchPlan:
        """The plan at the recommended batch: ``plan.peak.parts``."""
        return self.at(None)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, with the names of the attributes."""
        rate = self.learning_rate
        return {
            "schema_version": SCHEMA_VERSION,
            "recipe": self.recipe.to_dict(),
            "model": {"name": self.model_name, "parameters": self.parameter_count},
            "gpu": None if self.gpu is None else _gpu_dict(self.gpu),
            "fits": self.fits,
            "max_batch_size": self.max_batch_size,
            "recommended_batch_size": self.recommended_batch_size,
            "micro_batch": self.micro_batch,
            "accumulation": self.accumulation,
            "at": self.at(None).to_dict(),
            "learning_rate": None
            if rate is None
            else {"value": rate.value, "rule": rate.rule, "warmup": rate.warmup},
            "is_affine": self.is_affine,
            "assumptions": self.assumptions,
            "unsupported": self.unsupported,
        }

    def __repr__(self) -> str:
        at = self.at(None)
        card = f", at most {self.max_batch_size} on {self.gpu.name}" if self.gpu else ""
        total = format_bytes(at.total_bytes)
        return f"<Plan {self.model_name}: {total} at batch {at.batch_size}{card}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        at = self.at(None)
        rows = "".join(
            f"<tr><td>{part}</td><td style='text-align:right'>{format_bytes(size)}</td></tr>"
            for part, size in {**at.parts, "total": at.total_bytes}.items()
        )
        return {
            "text/plain": repr(self),
            "text/html": f"<p>{escape(repr(self))}</p><table>{rows}</table>",
        }


def _gpu_dict(gpu: GPU) -> dict[str, Any]:
    return {
        "name": gpu.name,
        "key": gpu.key,
        "usable_bytes": gpu.usable_bytes,
        "total_bytes": gpu.total_bytes,
        "context_bytes": gpu.context_bytes,
    }
