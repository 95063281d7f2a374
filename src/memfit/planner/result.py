"""What a plan found, as frozen facts: they can be compared, pickled, written as JSON and shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from memfit.cards.catalogue import GPU
from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import Timeline, runs_on
from memfit.memory.tape.evaluation import Evaluation
from memfit.memory.tape.tape import Part, Phase
from memfit.planner.assumptions import Assumption
from memfit.planner.largest import BatchLimits, UsefulBatch
from memfit.planner.learning_rate import LearningRate
from memfit.recipe.recipe import Recipe
from memfit.units import format_bytes

__all__ = [
    "BatchPlan",
    "BatchWords",
    "CardFit",
    "CurvePoint",
    "Option",
    "Peak",
    "PlanResult",
    "Verdict",
]

#: What a plan says of its card.
_OF_GPU = ("name", "key", "usable_bytes", "total_bytes", "context_bytes")

SCHEMA_VERSION = 1

#: Why there are two columns of parts, of a training and of others.
_MOST = "The peak is one instant, and each part is largest at its own"
_MOST_OF_TRAINING = (
    f"{_MOST}: gradients at the end of backward, as much as the parameters that train, when the "
    "activations are gone."
)


@dataclass(frozen=True, slots=True)
class Peak:
    """The instant of the step at which most bytes are allocated.

    Args:
        phase: of the training loop.
        module: path of the module at work; empty outside of modules.
        operator: the ATen operator that allocated last.
        place: the user's file and line, where a script was run.
        is_evaluation: it is in the validation pass.
    """

    phase: Phase
    module: str
    operator: str
    place: str = ""
    is_evaluation: bool = False


@dataclass(frozen=True)
class BatchPlan:
    """Where every byte goes at one micro-batch.

    Args:
        batch_size: the micro-batch.
        peak_allocated_bytes: as ``torch.cuda.max_memory_allocated``.
        peak_reserved_bytes: as ``torch.cuda.max_memory_reserved``, without any limit.
        total_bytes: what the whole process takes of the card: reserved and the CUDA context.
        parts: requested bytes at the peak by part; they sum to ``total_bytes``.
        parts_most: bytes of each part when it is largest, each at an instant of its own.
        peak: when it happens.
        timeline: allocated and reserved bytes at every instant.
        gpu: the plan's card.
        settings: of the allocator.
        evaluation: the validation pass that follows the steps; None where there is none.
    """

    batch_size: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    total_bytes: int
    parts: dict[str, int]
    parts_most: dict[str, int]
    peak: Peak
    timeline: Timeline = field(repr=False)
    gpu: GPU | None = field(repr=False)
    settings: AllocatorSettings = field(repr=False)
    evaluation: Evaluation | None = None

    @classmethod
    def of(
        cls,
        batch_size: int,
        timeline: Timeline,
        card: GPU,
        gpu: GPU | None,
        settings: AllocatorSettings,
    ) -> BatchPlan:
        """The figures of a replay.

        Args:
            batch_size: the micro-batch.
            timeline: its replay, without a limit.
            card: whose CUDA context is counted.
            gpu: the plan's card; None where it has none.
            settings: of the allocator.
        """
        peak, reserved = timeline.peak, timeline.peak_reserved_bytes
        at, begin = peak.allocation, timeline.tape.evaluation
        is_evaluation = begin is not None and peak.position >= begin
        context = {Part.CONTEXT: card.context_bytes}
        parts = peak.parts | {Part.CACHE: reserved - sum(peak.parts.values())} | context
        most = timeline.parts_most | context
        return cls(
            batch_size=batch_size,
            peak_allocated_bytes=peak.allocated_bytes,
            peak_reserved_bytes=reserved,
            total_bytes=reserved + card.context_bytes,
            parts={str(part): parts[part] for part in Part},
            parts_most={str(part): most[part] for part in Part},
            peak=Peak(at.phase, at.module, at.operator, at.place, is_evaluation),
            timeline=timeline,
            gpu=gpu,
            settings=settings,
            evaluation=timeline.evaluation,
        )

    def fits(self, gpu: str | GPU | None = None) -> bool:
        """Whether the step runs on a card: replayed against its capacity.

        Args:
            gpu: another card than the plan's.

        Raises:
            UsageError: neither the plan nor the call names a card.
        """
        card = find_gpu(gpu) if isinstance(gpu, str) else gpu or self.gpu
        if card is None:
            raise UsageError("Which GPU?", hint='Pass one: plan.at(64).fits(gpu="rtx-3090").')
        if not isinstance(card, GPU):
            raise UsageError(f"gpu is {gpu!r}; it must be a name, a size such as '11GiB' or a GPU.")
        return runs_on(self.timeline.tape, self.timeline.sizes_bytes, card, self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the names of the attributes."""
        return {
            "batch_size": self.batch_size,
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "total_bytes": self.total_bytes,
            "parts": dict(self.parts),
            "parts_most": dict(self.parts_most),
            "peak": asdict(self.peak),
        }


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What one micro-batch takes of a card.

    Args:
        batch_size: the micro-batch.
        needed_bytes: allocated at the peak, and the CUDA context: it cannot run with less.
        total_bytes: with the allocator's cache, as ``nvidia-smi`` shows without any limit.
    """

    batch_size: int
    needed_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class CardFit:
    """The micro-batches that fit one card."""

    gpu: GPU
    limits: BatchLimits


@dataclass(frozen=True, slots=True)
class Option:
    """One change of the recipe and what it buys.

    Args:
        name: in words.
        flag: as typed on the command line.
        max_batch_size: the largest micro-batch that would fit; None without a card.
        total_bytes: at the batch size of the plan it is compared with.
        saved_bytes: less than that plan's total; negative when it costs memory.
        note: what it costs or changes besides memory.
    """

    name: str
    flag: str
    max_batch_size: int | None
    total_bytes: int
    saved_bytes: int
    note: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a micro-batch runs on the plan's card.

    Args:
        batch_size: the micro-batch that was asked about, else the plan's own; 1 when none fits.
        is_asked: whether the user named it.
        fits: the answer of a replay against the card's capacity.
        total_bytes: what the process would take without any limit.
        missing_bytes: how much that is more than the card has.
        is_tight: it fits only because the allocator gives cached memory back on the way, and not
            with the recipe's ``safety`` of the card's memory; a recommended batch never is.
        remedies: options with which it fits, best first.
        larger_card: the smallest card on which it fits as it is, a common one where there is one.
        is_of_validation: training alone fits; the validation pass does not.
    """

    batch_size: int
    is_asked: bool
    fits: bool
    total_bytes: int
    missing_bytes: int
    is_tight: bool = False
    remedies: tuple[Option, ...] = ()
    larger_card: GPU | None = None
    is_of_validation: bool = False


@dataclass(frozen=True, slots=True)
class BatchWords:
    """What a forward and its loss are given, in words such as ``image (N, 3, 64, 64) float32``.

    Args:
        inputs: of the forward.
        targets: of the loss; none where it compares with nothing.
        loss: how it is called.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    loss: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"inputs": list(self.inputs), "targets": list(self.targets), "loss": self.loss}


@dataclass(frozen=True)
class PlanResult:
    """Everything that is reported of a plan.

    Args:
        recipe: the resolved recipe.
        model_name: how the model is called.
        parameter_count: of the model.
        input_shape: of one sample; of tokens, their number.
        is_tokens: whether the model reads tokens.
        batch: what forward and loss are given; None of a script.
        gpu: the card, or None.
        fits: whether the asked batch (else a batch of one) runs on the card; without one False
            where no card takes it, else None.
        limits: the largest and the recommended micro-batch of the card; None without one, and where
            nothing is known that sets the batch.
        last_batch: the largest micro-batch that was tried.
        useful: no larger micro-batch is recommended, whatever memory holds; None where nothing is
            trained.
        micro_batch: what a training step would take.
        accumulation: micro-batches for one optimizer step.
        at: where every byte goes at that micro-batch.
        learning_rate: carried over from ``base_lr``; None without one.
        is_affine: whether two traces answer every batch.
        stated_assumptions: what the estimate rests on.
        unsupported: operators that could not be accounted for, with the reason.
        left_out: what training would do that the figures do not have.
        verdict: whether it fits, in numbers; None without a card.
        curve: memory against the micro-batch.
        options: ways to fit more; None when nobody looked for them.
        cards: what fits common cards, of a plan without a card.
        smallest_card: of a plan without a card, the smallest that takes the asked micro-batch.
    """

    recipe: Recipe
    model_name: str
    parameter_count: int
    input_shape: tuple[int, ...]
    is_tokens: bool
    batch: BatchWords | None
    gpu: GPU | None
    fits: bool | None
    limits: BatchLimits | None
    last_batch: int
    useful: UsefulBatch | None
    micro_batch: int
    accumulation: int
    at: BatchPlan
    learning_rate: LearningRate | None
    is_affine: bool
    stated_assumptions: tuple[Assumption, ...]
    unsupported: dict[str, str]
    left_out: tuple[Assumption, ...] = ()
    verdict: Verdict | None = None
    curve: tuple[CurvePoint, ...] = ()
    options: tuple[Option, ...] | None = None
    cards: tuple[CardFit, ...] = ()
    smallest_card: GPU | None = None

    @property
    def assumptions(self) -> list[str]:
        """What the estimate rests on, in sentences."""
        return [assumption.text for assumption in self.stated_assumptions]

    @property
    def not_modelled(self) -> list[str]:
        """What the figures do not have, in sentences."""
        return [entry.text for entry in self.left_out]

    @property
    def is_complete(self) -> bool:
        """Whether the figures have all that training would do."""
        return not self.unsupported and not self.left_out

    def to_dict(self) -> dict[str, Any]:
        """Everything but verdict, curve, options and cards as plain values."""
        rate, limits = self.learning_rate, self.limits
        return {
            "schema_version": SCHEMA_VERSION,
            "recipe": self.recipe.to_dict(),
            "model": {"name": self.model_name, "parameters": self.parameter_count},
            "batch": None if self.batch is None else self.batch.to_dict(),
            "gpu": None if self.gpu is None else self.gpu.to_dict(*_OF_GPU),
            "fits": self.fits,
            "max_batch_size": limits and limits.max_batch_size,
            "largest_that_runs": limits and limits.largest_that_runs,
            "recommended_batch_size": limits and limits.recommended_batch_size,
            "useful_batch": self.useful and asdict(self.useful),
            "micro_batch": self.micro_batch,
            "accumulation": self.accumulation,
            "at": self.at.to_dict(),
            "evaluation": self.evaluation,
            "learning_rate": None
            if rate is None
            else {"value": rate.value, "rule": rate.rule, "warmup": rate.warmup},
            "is_affine": self.is_affine,
            "assumptions": self.assumptions,
            "unsupported": dict(self.unsupported),
            "not_modelled": self.not_modelled,
        }

    @property
    def batch_word(self) -> str:
        """What one forward is of."""
        return "micro-batch" if self.recipe.mode == "train" else "batch"

    @property
    def most_sentence(self) -> str:
        """Why there are two columns of parts."""
        return _MOST_OF_TRAINING if self.recipe.mode == "train" else f"{_MOST}."

    @property
    def evaluation_batch(self) -> int:
        """Samples in one forward of the validation pass, where there is one."""
        return self.recipe.eval_batch_size or self.at.batch_size

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The validation pass as plain values; None where there is none."""
        found = self.at.evaluation
        if found is None:
            return None
        return {"batch_size": self.evaluation_batch, **asdict(found)}

    def __repr__(self) -> str:
        limits, gpu = self.limits, self.gpu
        card = f", at most {limits.max_batch_size} on {gpu.name}" if limits and gpu else ""
        total = format_bytes(self.at.total_bytes)
        return f"<Plan {self.model_name}: {total} at batch {self.at.batch_size}{card}>"

    def to_html(self) -> str:
        """A line and the table of the parts, for a notebook."""
        at = self.at
        rows = [
            (part, format_bytes(size), format_bytes(at.parts_most[part]))
            for part, size in at.parts.items()
        ]
        rows.append(("total", format_bytes(at.total_bytes), ""))
        cells = "".join(
            f"<tr><td>{part}</td><td style='text-align:right'>{peak}</td>"
            f"<td style='text-align:right'>{most}</td></tr>"
            for part, peak, most in rows
        )
        head = "<tr><th></th><th>at the peak</th><th>at its own most</th></tr>"
        why = escape(self.most_sentence)
        return f"<p>{escape(repr(self))}</p><table>{head}{cells}</table><p>{why}</p>"
