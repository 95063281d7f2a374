"""A plan as plain data from which the page works out every batch size and every card.

The page replays the tape itself. What it cannot work out is asked here once: sizes that follow
a library's choice (cuDNN's workspaces) are tabled at a ladder of batches.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any, TypeVar

import torch

from memfit.cards.catalogue import gpus
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.tape.parts import ALLOCATED_PARTS
from memfit.memory.tape.tape import Allocation, Curve, Phase, Tape
from memfit.page.documents.card import card_document
from memfit.page.documents.command import plan_words
from memfit.planner.largest import STOPS, STOPS_WHEN_TRACED, stops_up_to
from memfit.planner.plan import Plan
from memfit.planner.result import Option
from memfit.version import __version__

__all__ = [
    "PAGE_SCHEMA_VERSION", "PHASES", "Measured", "batch_ladder", "interned", "plan_document",
    "ruled_sizes_at",
]  # fmt: skip

#: Of the documents that the page reads.
PAGE_SCHEMA_VERSION = 1

Measured = dict[str, Any]

#: A tape's phases; its columns count into them.
PHASES = tuple(Phase)

_Value = TypeVar("_Value", bound=Hashable)


def plan_document(
    plan: Plan,
    *,
    options: Sequence[Option] | None = None,
    measured: Sequence[Measured] = (),
    ladder: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Everything that the page shows of a plan, as plain values for JSON.

    Args:
        plan: of a recipe, with or without a card.
        options: ways to fit more, when they were planned.
        measured: recorded points: dicts with ``batch_size``, ``peak_allocated_bytes``,
            ``peak_reserved_bytes`` or None, ``total_bytes`` or None, and ``source``.
        ladder: batches at which sizes that follow a library's choice are tabled;
            :func:`batch_ladder` when omitted.

    Returns:
        The document; ``docs/page.md`` describes its keys.
    """
    result = plan.result()
    limits, rate = result.limits, result.learning_rate
    steps = batch_ladder(plan) if ladder is None else ladder
    return {
        "schema_version": PAGE_SCHEMA_VERSION,
        "kind": "plan",
        "memfit_version": __version__,
        "torch_version": str(torch.__version__),
        "python_version": platform.python_version(),
        "model": {"name": plan.model_name, "parameters": result.parameter_count},
        "recipe": plan.recipe.to_dict(),
        "input_shape": list(result.input_shape),
        "command": plan_words(plan.recipe),
        "gpu": None if plan.gpu is None else card_document(plan.gpu),
        "card": card_document(plan.card),
        "cards": [card_document(card) for card in gpus().values()],
        "batch_size": result.at.batch_size,
        "accumulation": result.accumulation,
        "safety": plan.recipe.safety,
        "fits": result.fits,
        "max_batch_size": limits and limits.max_batch_size,
        "largest_that_runs": limits and limits.largest_that_runs,
        "recommended_batch_size": limits and limits.recommended_batch_size,
        "useful_batch": result.useful and asdict(result.useful),
        "learning_rate": None if rate is None else asdict(rate),
        "assumptions": [asdict(a) | {"text": a.text} for a in result.stated_assumptions],
        "unsupported": result.unsupported,
        "not_modelled": [asdict(a) | {"text": a.text} for a in result.left_out],
        "batch": None if result.batch is None else result.batch.to_dict(),
        "evaluation": result.evaluation,
        "allocator": _allocator(plan.settings),
        "is_affine": result.is_affine,
        "tape": _affine_tape(plan, steps),
        "traced": {str(n): _whole_tape(tape) for n, tape in sorted(plan.tapes.traced.items())},
        "options": None if options is None else [asdict(option) for option in options],
        "measured": list(measured),
    }


def batch_ladder(plan: Plan) -> list[int]:
    """Batches worth asking a library about: stops of the search, dense around what fits.

    Up to 8 each one; the planned, the largest and the recommended batch are among them.
    """
    named = {plan.micro_batch, plan.max_batch_size or 1, plan.recommended_batch_size or 1}
    most = max(128, *named)
    near = (stop for stop in stops_up_to(2 * most, STOPS // 2) if 2 * stop >= most)
    return sorted({*range(1, 9), *near, *stops_up_to(32 * most, STOPS_WHEN_TRACED), *named})


def ruled_sizes_at(plan: Plan, batch_size: int) -> list[int]:
    """What a library would take at a batch: bytes for each entry of ``tape["ruled"]``.

    Args:
        plan: that the document is of.
        batch_size: any micro-batch.
    """
    affine = plan.tapes.affine
    ruled = () if affine is None else affine.ruled
    return [rule.size_bytes(line.at(batch_size)) for rule, line, _ in ruled]


def _affine_tape(plan: Plan, ladder: Sequence[int]) -> dict[str, Any] | None:
    affine = plan.tapes.affine
    if affine is None:
        return None
    columns = [ruled_sizes_at(plan, batch) for batch in ladder]
    ruled = [
        {"allocations": list(numbers), "bytes": [column[index] for column in columns]}
        for index, (_, _, numbers) in enumerate(affine.ruled)
    ]
    return _tape(affine.tape, affine.sizes, affine.shapes) | {
        "ruled": {"batches": list(ladder), "entries": ruled}
    }


def _whole_tape(tape: Tape) -> dict[str, Any]:
    sizes = Curve(tuple(tape.sizes_bytes), (0,) * len(tape.allocations))
    shapes = [Curve(a.shape, (0,) * len(a.shape)) for a in tape.allocations]
    return _tape(tape, sizes, shapes) | {"ruled": {"batches": [], "entries": []}}


def _tape(tape: Tape, sizes: Curve, shapes: Iterable[Curve]) -> dict[str, Any]:
    """Columns of a tape; those of words count into ``strings``, ``place`` where it has places."""
    words: dict[str, Callable[[Allocation], str]] = {
        "operator": _operator, "module": attrgetter("module"), "dtype": attrgetter("dtype"),
    }  # fmt: skip
    if any(allocation.place for allocation in tape.allocations):
        words["place"] = attrgetter("place")
    strings, string_columns = interned(
        [column(allocation) for allocation in tape.allocations] for column in words.values()
    )
    shape_table, (shape_column,) = interned([[_sides(curve) for curve in shapes]])
    return {
        "parts": [str(part) for part in ALLOCATED_PARTS],
        "phases": [str(phase) for phase in PHASES],
        "strings": strings,
        "shapes": [[list(side) for side in shape] for shape in shape_table],
        "part": [ALLOCATED_PARTS.index(a.part) for a in tape.allocations],
        "phase": [PHASES.index(a.phase) for a in tape.allocations],
        "step": [a.step for a in tape.allocations],
        **dict(zip(words, string_columns, strict=True)),
        "shape": shape_column,
        "constant": list(sizes.constants),
        "slope": list(sizes.slopes),
        **({"square": list(sizes.squares)} if sizes.squares else {}),
        "events": list(tape.events),
        **({} if tape.evaluation is None else {"evaluation": tape.evaluation}),
        "marks": [[m.position, m.step, PHASES.index(m.phase)] for m in tape.marks],
    }


def interned(columns: Iterable[Sequence[_Value]]) -> tuple[list[_Value], list[list[int]]]:
    """The different values, and each column as numbers that count into them."""
    numbers: dict[_Value, int] = {}
    counted = [[numbers.setdefault(value, len(numbers)) for value in c] for c in columns]
    return list(numbers), counted


def _operator(allocation: Allocation) -> str:
    return allocation.operator.removesuffix(".default")


def _sides(curve: Curve) -> tuple[tuple[int, ...], ...]:
    """Constant and slope of each dimension, with the square where there is one."""
    columns = (curve.constants, curve.slopes, *([curve.squares] if curve.squares else []))
    return tuple(zip(*columns, strict=True))


def _allocator(settings: AllocatorSettings) -> dict[str, Any]:
    """The settings as the page's allocator takes them."""
    divisions = settings.divisions_by_interval()
    return asdict(settings) | {
        "roundup_power2_divisions": None if divisions is None else list(divisions)
    }
