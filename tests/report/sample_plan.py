"""A plan made by hand: its numbers depend on no version of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from memfit.cards.catalogue import GPU
from memfit.memory.tape.tape import Part, Phase
from memfit.planner.curve import CurvePoint
from memfit.planner.learning_rate import LearningRate, scale_learning_rate
from memfit.planner.options import Option
from memfit.planner.plan import BatchPlan, Peak, Plan
from memfit.planner.verdict import CardFit, Verdict
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
    Part.GRADIENTS: 102_228_128,
    Part.OPTIMIZER: 204_456_264,
    Part.BATCH: 38_536_192,
    Part.ACTIVATIONS: 2_816_123_904,
    Part.TEMPORARIES: 205_520_896,
    Part.WORKSPACES: 17_039_360,
    Part.CACHE: 311_427_072,
    Part.CONTEXT: 134_217_728,
}
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


@dataclass
class SamplePlan:
    """What the report reads of a :class:`memfit.Plan`."""

    recipe: Recipe
    gpu: GPU | None = CARD
    model_name: str = "torchvision:resnet50"
    parameter_count: int = 25_557_032
    max_batch_size: int | None = 240
    recommended_batch_size: int | None = 184
    accumulation: int = 1
    assumptions: list[str] = field(default_factory=lambda: ["The second training step.", "A" * 70])
    unsupported: dict[str, str] = field(default_factory=dict)
    batch_limit: int = MAX_BATCH

    @property
    def micro_batch(self) -> int:
        return self.recipe.batch_size or self.recommended_batch_size or 1

    @property
    def step(self) -> Any:
        inputs = SimpleNamespace(shape=self.recipe.input_shape or (128,))
        is_tokens = self.recipe.input_ids is not None
        return SimpleNamespace(gpu=CARD, batch=SimpleNamespace(inputs=inputs, is_tokens=is_tokens))

    @property
    def learning_rate(self) -> LearningRate | None:
        base_lr = self.recipe.base_lr
        if base_lr is None:
            return None
        batch = self.micro_batch * self.accumulation
        return scale_learning_rate(base_lr, self.recipe.base_batch_size, batch, adaptive=False)

    def at(self, batch_size: int | None = None) -> BatchPlan:
        total = sum(PARTS.values())
        return BatchPlan(
            batch_size=batch_size or self.micro_batch,
            peak_allocated_bytes=total - PARTS[Part.CACHE] - PARTS[Part.CONTEXT],
            peak_reserved_bytes=total - PARTS[Part.CONTEXT],
            total_bytes=total,
            parts={str(part): size for part, size in PARTS.items()},
            peak=Peak(Phase.BACKWARD, "layer1.0.conv3", "aten.convolution_backward.default"),
            timeline=cast(Any, None),
            _fits=cast(Any, None),
        )


def sample(gpu: GPU | None = CARD, **changes: Any) -> Plan:
    """A plan of a made-up model; ``changes`` are the recipe's."""
    recipe = {"model": "resnet50", "input_shape": (3, 224, 224), "optimizer": "adamw"} | changes
    accumulation = recipe.get("accumulation", 1)
    plan = SamplePlan(Recipe(**recipe), gpu=gpu, accumulation=accumulation)
    if gpu is None:
        plan.max_batch_size = plan.recommended_batch_size = None
    return cast(Plan, plan)


def fitting(batch_size: int = 64, missing_bytes: int = 0) -> Verdict:
    """It fits (barely when something is missing)."""
    return Verdict(batch_size, True, True, sum(PARTS.values()), missing_bytes)


def too_large() -> Verdict:
    """It does not fit, and what would help."""
    return Verdict(512, True, False, 26 * GIB, 14 * GIB + 8 * MIB, OPTIONS[:2], LARGE_CARD)


def curve(last: int = 300) -> tuple[CurvePoint, ...]:
    """A straight line, with a tenth of it as cache."""
    batches = range(1, last + 1, max(1, last // 10))
    needed = [GIB // 2 + PER_SAMPLE_BYTES * batch for batch in batches]
    return tuple(CurvePoint(b, n, n + n // 10) for b, n in zip(batches, needed, strict=True))


CARDS = (CardFit(CARD, 240, 184), CardFit(LARGE_CARD, 1_234, 976), CardFit(CARD, 0, 0))
