"""A plan made by hand: its numbers depend on no version of torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from memfit.cards.catalogue import GPU
from memfit.memory.allocator.settings import AllocatorSettings
from memfit.memory.tape.tape import Part, Phase
from memfit.planner.assumptions import Assumption
from memfit.planner.largest import BatchLimits, useful_batch
from memfit.planner.learning_rate import scale_learning_rate
from memfit.planner.result import (
    BatchPlan,
    CardFit,
    CurvePoint,
    Option,
    Peak,
    PlanResult,
    Verdict,
)
from memfit.recipe.fields import MAX_BATCH
from memfit.recipe.recipe import Recipe
from memfit.units import GIB, MIB

CARD = GPU(
    key="rtx-9000", name="NVIDIA GeForce RTX 9000 12GB", aliases=(), total_bytes=12 * GIB,
    usable_bytes=12 * GIB - 8 * MIB, multiprocessors=28, compute_capability=(8, 6),
    architecture="Ampere", bandwidth_gb_per_s=360.0, context_bytes=128 * MIB,
    context_source="made up",
)  # fmt: skip
LARGE_CARD = replace(CARD, key="rtx-9900", name="NVIDIA RTX 9900", usable_bytes=48 * GIB)

PARTS = {
    Part.PARAMETERS: 102_441_032,
    Part.GRADIENTS: 8_196_000,
    Part.OPTIMIZER: 204_456_264,
    Part.BATCH: 38_536_192,
    Part.ACTIVATIONS: 2_816_123_904,
    Part.TEMPORARIES: 205_520_896,
    Part.WORKSPACES: 17_039_360,
    Part.CACHE: 405_459_200,
    Part.CONTEXT: 134_217_728,
}
PARTS_MOST = PARTS | {
    Part.GRADIENTS: 102_228_128,
    Part.ACTIVATIONS: 2_904_204_032,
    Part.TEMPORARIES: 411_041_792,
    Part.WORKSPACES: 68_157_440,
    Part.CACHE: 3_221_225_472,
}
LIMITS = BatchLimits(240, 240, 184)
PER_SAMPLE_BYTES = 48 * MIB

OPTIONS = (
    Option(
        "gradient checkpointing", "--gradient-checkpointing", 512, GIB, 2_731_770_368,
        "runs forward twice: about a third more time",
    ),
    Option(
        "accumulate 2 micro-batches of 32", "--batch-size 32 --accumulation 2", None,
        2 * GIB, 1_658_028_544, "same global batch of 64; BatchNorm sees only 32",
    ),
    Option("no moving average", "--no-ema", 250, 3 * GIB, 584_286_720, ""),
)  # fmt: skip


def _at(batch_size: int) -> BatchPlan:
    total = sum(PARTS.values())
    return BatchPlan(
        batch_size=batch_size,
        peak_allocated_bytes=total - PARTS[Part.CACHE] - PARTS[Part.CONTEXT],
        peak_reserved_bytes=total - PARTS[Part.CONTEXT],
        total_bytes=total,
        parts={str(part): size for part, size in PARTS.items()},
        parts_most={str(part): size for part, size in PARTS_MOST.items()},
        peak=Peak(Phase.BACKWARD, "layer1.0.conv3", "aten.convolution_backward.default"),
        timeline=cast(Any, None),
        gpu=CARD,
        settings=AllocatorSettings(),
    )


def sample(
    gpu: GPU | None = CARD, unsupported: dict[str, str] | None = None, **changes: Any
) -> PlanResult:
    """The result of a made-up model; ``changes`` are the recipe's."""
    recipe = Recipe(
        **{"model": "resnet50", "input_shape": (3, 224, 224), "optimizer": "adamw"} | changes
    )
    limits = None if gpu is None else LIMITS
    batch_size = recipe.batch_size or LIMITS.recommended_batch_size
    rate = None
    if recipe.base_lr is not None:
        whole = batch_size * recipe.accumulation
        rate = scale_learning_rate(recipe.base_lr, recipe.base_batch_size, whole, adaptive=False)
    return PlanResult(
        recipe=recipe,
        model_name="torchvision:resnet50",
        parameter_count=25_557_032,
        input_shape=recipe.input_shape or (128,),
        is_tokens=recipe.input_ids is not None,
        batch=None,
        gpu=gpu,
        fits=None if gpu is None else True,
        limits=limits,
        last_batch=MAX_BATCH,
        useful=useful_batch(None, None),
        micro_batch=batch_size,
        accumulation=recipe.accumulation,
        at=_at(batch_size),
        learning_rate=rate,
        is_affine=True,
        stated_assumptions=(Assumption("second_step"), Assumption("direct", {"because": "A" * 70})),
        unsupported=unsupported or {},
    )


def fitting(batch_size: int = 64, missing_bytes: int = 0) -> Verdict:
    """It fits (barely when something is missing)."""
    return Verdict(batch_size, True, True, sum(PARTS.values()), missing_bytes, missing_bytes > 0)


def too_large() -> Verdict:
    """It does not fit, and what would help."""
    return Verdict(512, True, False, 26 * GIB, 14 * GIB + 8 * MIB, False, OPTIONS[:2], LARGE_CARD)


def curve(last: int = 300) -> tuple[CurvePoint, ...]:
    """A straight line, with a tenth of it as cache."""
    batches = range(1, last + 1, max(1, last // 10))
    needed = [GIB // 2 + PER_SAMPLE_BYTES * batch for batch in batches]
    return tuple(CurvePoint(b, n, n + n // 10) for b, n in zip(batches, needed, strict=True))


CARDS = (
    CardFit(CARD, LIMITS),
    CardFit(LARGE_CARD, BatchLimits(1_234, 1_250, 976)),
    CardFit(CARD, BatchLimits(0, 0, 0)),
)
