"""What a plan's figures rest on, each with a name so that it can be said in any language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from memfit.cards.catalogue import GPU
from memfit.planner.tapes import TRACED_BATCHES
from memfit.planner.tracing import TrainingStep
from memfit.units import format_bytes

__all__ = ["Assumption", "assumptions_of"]

_SENTENCES = {
    "no_card": "No card: kernels and CUDA context are those of {card}.",
    "context": "CUDA context of {context} ({source}); nothing else runs on the card.",
    "second_step": "The second training step: the first has no optimizer state yet.",
    "cudnn_heuristics": "cuDNN picks algorithms by its heuristics (cudnn.benchmark is off).",
    "full_sequences": "Sequences of full length: no padding, none packed into one row.",
    "cross_entropy": "Cross-entropy loss on integer labels.",
    "checkpointed": "{blocks} blocks are recomputed in backward.",
    "arithmetic": "Traced at batches {small} and {large}; others are arithmetic, 1 is traced.",
    "direct": "Every batch is traced directly: {because}.",
    "no_temporaries": "Taken to need nothing beside their outputs: {operators}.",
}


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing an estimate takes for granted.

    Args:
        key: its name.
        values: what its sentence speaks of.
    """

    key: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence in English."""
        return _SENTENCES[self.key].format(**self.values)


def assumptions_of(
    step: TrainingStep, gpu: GPU | None, not_affine_because: str
) -> Iterator[Assumption]:
    """Everything the figures of a plan rest on.

    Args:
        step: what was traced.
        gpu: the plan's card, if it has one.
        not_affine_because: why two traces do not answer every batch; empty when they do.
    """
    card, recipe = gpu or step.gpu, step.recipe
    if gpu is None:
        yield Assumption("no_card", {"card": card.name})
    context = format_bytes(card.context_bytes)
    yield Assumption("context", {"context": context, "source": card.context_source})
    yield Assumption("second_step")
    if not recipe.cudnn_benchmark:
        yield Assumption("cudnn_heuristics")
    if step.batch.is_tokens:
        yield Assumption("full_sequences")
    if recipe.loss is None and recipe.step is None:
        yield Assumption("cross_entropy")
    if step.checkpointed_blocks:
        yield Assumption("checkpointed", {"blocks": str(step.checkpointed_blocks)})
    if not_affine_because:
        yield Assumption("direct", {"because": not_affine_because})
    else:
        small, large = map(str, TRACED_BATCHES)
        yield Assumption("arithmetic", {"small": small, "large": large})
    if step.unknown_temporaries:
        names = ", ".join(sorted(step.unknown_temporaries))
        yield Assumption("no_temporaries", {"operators": names})
