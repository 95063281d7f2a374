"""Ways to fit more, each one planned again: what it buys is measured, not promised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from memfit.errors import MemfitError
from memfit.memory.allocator.timeline import replay
from memfit.planner.plan import Plan
from memfit.planner.result import Option
from memfit.planner.tracing import TrainingStep
from memfit.recipe.recipe import Recipe
from memfit.step.optimizers import optimizer_name

__all__ = ["ways_to_fit_more"]


@dataclass(frozen=True, slots=True)
class _Change:
    name: str
    flag: str
    values: dict[str, Any]
    note: str


def ways_to_fit_more(plan: Plan) -> list[Option]:
    """Every change that saves memory for this plan, the one that saves most first."""
    is_training = plan.recipe.mode == "train"
    options = [*_changed(plan), *(_accumulate(plan) if is_training else ())]
    return sorted(options, key=lambda option: -option.saved_bytes)


def _changed(plan: Plan) -> Iterator[Option]:
    before = plan.at(None)
    for change in _changes(plan):
        try:
            after = Plan(_step(plan, **change.values), plan.gpu)
        except MemfitError:
            continue  # the model has no blocks to checkpoint: not a way for it
        total = after.at(before.batch_size).total_bytes
        if total < before.total_bytes:
            largest = None if plan.gpu is None else after.limits.max_batch_on(plan.gpu)
            saved = before.total_bytes - total
            yield Option(change.name, change.flag, largest, total, saved, change.note)


def _step(plan: Plan, **changes: Any) -> TrainingStep:
    job = plan.step.job.but(**changes)
    before = plan.step
    return TrainingStep(job, like=before, loop=before.loop, validates=before.validation is not None)


def _changes(plan: Plan) -> Iterator[_Change]:
    recipe = plan.recipe
    yield from _precision(recipe, plan.step.gpu.compute_capability)
    if recipe.memory_format == "nchw" and recipe.input_ids is None:
        yield _Change(
            "channels last", "--memory-format nhwc", {"memory_format": "nhwc"},
            "often faster on tensor cores too",
        )  # fmt: skip
    if recipe.mode == "train":
        yield from _of_training(recipe)


def _of_training(recipe: Recipe) -> Iterator[_Change]:
    if not recipe.gradient_checkpointing:
        yield _Change(
            "gradient checkpointing",
            "--gradient-checkpointing",
            {"gradient_checkpointing": True},
            "runs forward twice: about a third more time",
        )
    yield from _optimizer(recipe)
    if recipe.zero_grad == "zero":
        yield _Change(
            "free gradients before each step", "--zero-grad none", {"zero_grad": "none"},
            "PyTorch's default since 2.0",
        )  # fmt: skip
    if recipe.ema:
        yield _Change("no moving average", "--no-ema", {"ema": False}, "or keep it on the CPU")


def _precision(recipe: Recipe, capability: tuple[int, int]) -> Iterator[_Change]:
    if recipe.precision not in ("fp32", "tf32"):
        return
    half = "bf16" if capability >= (8, 0) else "fp16"
    if recipe.mode == "inference":
        yield _Change(
            f"half weights ({half})", f"--precision {half}", {"precision": half},
            "weights and what they make halve; faster on tensor cores",
        )  # fmt: skip
        return
    precision = f"amp-{half}"
    note = "activations halve, weights and optimizer state do not; faster on tensor cores"
    if recipe.mode == "eval":
        note = "what the layers return halves, weights do not; faster on tensor cores"
    yield _Change(
        f"mixed precision ({precision[4:]})", f"--precision {precision}",
        {"precision": precision}, note,
    )  # fmt: skip


def _optimizer(recipe: Recipe) -> Iterator[_Change]:
    name = optimizer_name(recipe.optimizer)
    if name in ("adam", "adamw"):
        yield _Change(
            "8-bit optimizer state", f"--optimizer {name}8bit", {"optimizer": f"{name}8bit"},
            "needs bitsandbytes",
        )  # fmt: skip
        yield _Change(
            "one state instead of two (Lion)", "--optimizer lion", {"optimizer": "lion"},
            "needs a smaller learning rate",
        )  # fmt: skip
        options = dict(recipe.optimizer) if isinstance(recipe.optimizer, dict) else {}
        if not options.get("fused") and options.get("foreach") is not False:
            yield _Change(
                "fused optimizer step", f"--optimizer {name},fused=true",
                {"optimizer": {**options, "name": name, "fused": True}},
                "same numbers, no temporaries during the step, faster",
            )  # fmt: skip
    if name not in ("sgd", "sgd8bit"):
        yield _Change(
            "no optimizer state (plain SGD)", "--optimizer sgd", {"optimizer": "sgd"},
            "trains differently: the learning rate must be found again",
        )  # fmt: skip


def _accumulate(plan: Plan) -> Iterator[Option]:
    """Smaller micro-batches for the same global batch: any global batch fits that way."""
    before = plan.at(None)
    most = min(plan.max_batch_size or 0, before.batch_size - 1)
    if most < 1:
        return
    micro_batch = next(size for size in range(most, 0, -1) if before.batch_size % size == 0)
    steps = before.batch_size // micro_batch
    # A third micro-batch is like the second; of one batch a trace tells as much as two.
    step = _step(plan, accumulation=2, batch_size=micro_batch, global_batch=None)
    timeline = replay(step.trace(micro_batch), settings=plan.settings)
    total = timeline.peak_reserved_bytes + plan.card.context_bytes
    yield Option(
        f"accumulate {steps} micro-batches of {micro_batch}",
        f"--batch-size {micro_batch} --accumulation {steps}",
        None,
        total,
        before.total_bytes - total,
        f"same global batch of {before.batch_size}; BatchNorm sees only {micro_batch}",
    )
