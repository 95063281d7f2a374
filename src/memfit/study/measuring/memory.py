"""What every batch size takes of a card, by part, and the micro-batch that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfit.planner.plan import Plan

__all__ = ["BatchMemory", "batch_memory"]


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """Predicted memory of one global batch.

    Args:
        batch_size: samples for one optimizer step.
        micro_batch: the largest divisor of it that the card may take; None where none fits.
        whole_bytes: if all of it went through the model at once.
        parts: of ``whole_bytes``.
        fits_whole: None without a card.
        micro_bytes: with ``micro_batch``.
        measured_bytes: reserved at the peak of a trial; None where nobody counts.
    """

    batch_size: int
    micro_batch: int | None
    whole_bytes: int
    parts: dict[str, int]
    fits_whole: bool | None
    micro_bytes: int | None
    measured_bytes: int | None = None


def batch_memory(
    plan: Plan, batch_sizes: Sequence[int], measured: dict[int, int | None]
) -> tuple[BatchMemory, ...]:
    """Predict every batch size.

    Args:
        plan: of the recipe; with a card, that is the ceiling.
        batch_sizes: global.
        measured: reserved bytes at the peak of a trial of each batch size.
    """
    found = []
    for batch in batch_sizes:
        whole = plan.at(batch)
        micro = _micro_batch(plan, batch)
        fits = None if plan.gpu is None else plan.limits.runs_on(plan.gpu, batch)
        found.append(
            BatchMemory(
                batch,
                micro,
                whole.total_bytes,
                dict(whole.parts),
                fits,
                None if micro is None else plan.at(micro).total_bytes,
                measured.get(batch),
            )
        )
    return tuple(found)


def _micro_batch(plan: Plan, batch: int) -> int | None:
    """The asked one if it divides the batch, else the largest divisor within the safe share."""
    asked = plan.recipe.batch_size
    limit = None if plan.gpu is None else plan.recommended_batch_size or 0
    if asked and batch % asked == 0 and (limit is None or asked <= (plan.max_batch_size or 0)):
        return asked
    most = batch if limit is None else min(batch, limit)
    return next((d for d in range(most, 0, -1) if batch % d == 0), None)
