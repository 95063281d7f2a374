"""Does it fit: the answer in numbers, what is missing, and on which cards it would run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memfit.cards.catalogue import GPU, gpus
from memfit.memory.allocator.timeline import runs_on
from memfit.planner.plan import Plan
from memfit.planner.result import CardFit, Option, Verdict

__all__ = ["COMMON_CARDS", "across_cards", "smallest_card", "verdict"]

#: Cards that people own or rent, by memory; what a plan without a card is held against.
COMMON_CARDS = (
    "rtx-3060",
    "t4",
    "v100-16gb",
    "rtx-4060-ti-16gb",
    "l4",
    "rtx-3090",
    "rtx-4090",
    "rtx-5090",
    "a100-40gb",
    "a100-80gb",
    "h100",
)


def verdict(plan: Plan, options: Iterable[Option] = ()) -> Verdict | None:
    """The answer for the asked micro-batch, else for the plan's own; None without a card.

    Args:
        plan: with or without a card.
        options: from :func:`memfit.planner.options.ways_to_fit_more`.
    """
    if plan.gpu is None:
        return None
    batch_size = plan.micro_batch
    fits = plan.limits.runs_on(plan.gpu, batch_size)
    total_bytes = plan.at(batch_size).total_bytes
    missing_bytes = max(0, total_bytes - plan.gpu.usable_bytes)
    is_tight = fits and missing_bytes > 0 and not plan.limits.runs_safely_on(plan.gpu, batch_size)
    remedies = [o for o in options if o.max_batch_size is None or o.max_batch_size >= batch_size]
    return Verdict(
        batch_size=batch_size,
        is_asked=plan.recipe.batch_size is not None,
        fits=fits,
        total_bytes=total_bytes,
        missing_bytes=missing_bytes,
        is_tight=is_tight,
        remedies=() if fits else tuple(remedies),
        larger_card=None if fits else smallest_card(plan, batch_size),
        is_of_validation=not fits and _trains(plan, plan.gpu, batch_size),
    )


def _trains(plan: Plan, gpu: GPU, batch_size: int) -> bool:
    """Whether training fits without the validation pass that there is."""
    tape, sizes = plan.tape_at(batch_size)
    is_both = tape.evaluation is not None
    return is_both and runs_on(tape.training, sizes, gpu, plan.settings)


def across_cards(plan: Plan) -> Iterator[CardFit]:
    """What fits each of :data:`COMMON_CARDS`, one by one, from the least memory up."""
    for card in _common_cards():
        yield CardFit(card, plan.limits.on(card))


def smallest_card(plan: Plan, batch_size: int) -> GPU | None:
    """The card with the least memory that takes a micro-batch: a common one, else any.

    Prices change and differ; memory does not. Boards whose memory is the system's, too, are left
    out. None where no larger card than the plan's own takes it.
    """
    has_bytes = 0 if plan.gpu is None else plan.gpu.usable_bytes
    others = [card for card in gpus().values() if not card.is_shared]
    others.sort(key=lambda card: card.usable_bytes)
    larger = (c for c in (*_common_cards(), *others) if c.usable_bytes > has_bytes)
    return next((card for card in larger if plan.limits.runs_on(card, batch_size)), None)


def _common_cards() -> list[GPU]:
    return sorted((gpus()[key] for key in COMMON_CARDS), key=lambda card: card.usable_bytes)
