"""Evaluation, inference, and the validation pass beside training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import memfit
from memfit.errors import UsageError
from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Part, Tape
from memfit.models import build
from memfit.planner.tracing import TrainingStep
from memfit.planner.verdict import verdict
from memfit.step.job import resolve

RESNET = {"model": "torchvision:resnet18", "input_shape": (3, 64, 64), "num_classes": 10}


#: Of its parameters.
SIZE_BYTES = 4 * sum(
    p.numel() for p in build("torchvision:resnet18", num_classes=10).module.parameters()
)


def traced(batch: int = 4, *, validates: bool = False, **options: Any) -> Tape:
    return TrainingStep(resolve(None, **RESNET | options), validates=validates).trace(batch)


def in_users_loop(mode: str, batch: int, half: bool = False) -> Tape:
    """Two passes of the loop that people write, on the virtual GPU."""
    model = build("torchvision:resnet18", input_shape=(3, 64, 64), num_classes=10).module
    without = torch.inference_mode if mode == "inference" else torch.no_grad
    dtype = torch.float16 if half else torch.float32
    with memfit.VirtualGPU("rtx-3060") as gpu:
        model.to("cuda", dtype).eval()
        for _ in range(2):
            images = torch.empty(batch, 3, 64, 64, device="cuda", dtype=dtype)
            if mode == "eval":
                target = torch.empty(batch, dtype=torch.int64, device="cuda")
            with without():
                output = model(images)
                if mode == "eval":
                    loss = F.cross_entropy(output, target)
        tape = gpu.tape
        del images, output
        if mode == "eval":
            del target, loss
    return tape


@pytest.mark.parametrize(
    ("mode", "precision"), [("eval", "fp32"), ("inference", "fp32"), ("inference", "fp16")]
)
def test_a_pass_is_that_of_a_users_own_loop(mode: Any, precision: Any) -> None:
    plan = memfit.plan(**RESNET, mode=mode, precision=precision, gpu="rtx-3060").at(8)
    own = replay(in_users_loop(mode, 8, half=precision == "fp16"))
    assert plan.peak_allocated_bytes == own.peak_allocated_bytes
    assert plan.peak_reserved_bytes == own.peak_reserved_bytes


@pytest.mark.parametrize("mode", ["eval", "inference"])
def test_nothing_is_kept_for_a_backward_that_does_not_come(mode: Any) -> None:
    parts = {allocation.part for allocation in traced(mode=mode).allocations}
    assert parts <= {Part.PARAMETERS, Part.BATCH, Part.TEMPORARIES, Part.WORKSPACES}


def test_inference_has_no_targets() -> None:
    plan = memfit.plan(**RESNET, mode="inference", gpu="rtx-3060")
    assert plan.at(8).parts_most["batch"] == 2 * 8 * 3 * 64 * 64 * 4
    assert not any("loss" in sentence for sentence in plan.assumptions)


def test_inference_asks_for_no_loss() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x), self.layer(x)

    with pytest.raises(memfit.MemfitError, match="not known"):
        memfit.plan(Pair, input_shape=(8,))
    assert memfit.plan(Pair, input_shape=(8,), mode="inference").parameter_count == 36


def test_a_frozen_model_can_be_evaluated() -> None:
    frozen = nn.Linear(8, 4).requires_grad_(False)
    assert memfit.plan(frozen, input_shape=(8,), mode="eval").at(4).parts["parameters"] == 36 * 4


def test_what_only_training_has_is_refused() -> None:
    for option in ({"accumulation": 2}, {"eval_batch_size": 8}, {"gradient_checkpointing": True}):
        with pytest.raises(UsageError, match="is of training; mode eval has none"):
            memfit.plan(**RESNET, mode="eval", **option)


def test_training_is_not_evaluation() -> None:
    with pytest.raises(UsageError, match="trains nothing"):
        memfit.train(model="cnn", data="shapes", mode="eval")


# -- the validation pass -----------------------------------------------------------------------


def test_the_validation_pass_finds_gradients_and_optimizer_state() -> None:
    whole = traced(optimizer="adam", eval_batch_size=64, validates=True)
    alone = traced(optimizer="adam")
    events = whole.training.events
    assert events == alone.events[: len(events)]
    assert all(event < 0 for event in alone.events[len(events) :])
    freed = {~event for event in events if event < 0}
    live = [whole.allocations[n] for n in events if n >= 0 and n not in freed]
    weights = {part: sum(a.size_bytes for a in live if a.part is part) for part in Part}
    assert weights[Part.GRADIENTS] == SIZE_BYTES
    assert weights[Part.OPTIMIZER] == 2 * SIZE_BYTES
    assert weights[Part.ACTIVATIONS] == weights[Part.BATCH] == 0


def test_the_passes_figures_are_those_of_the_whole_run() -> None:
    plan = memfit.plan(**RESNET, optimizer="adam", gpu="rtx-3060", eval_batch_size=512)
    at = plan.at(4)
    assert at.evaluation is not None
    assert at.evaluation.forwards == 2
    assert at.evaluation.allocated_bytes == at.peak_allocated_bytes
    assert at.peak.is_evaluation
    assert plan.asking(4).to_dict()["evaluation"]["batch_size"] == 512


def test_its_batch_is_the_micro_batch_when_nothing_else_is_said() -> None:
    plan = memfit.plan("cnn", data="shapes", gpu="rtx-3060", batch_size=16)
    assert plan.to_dict()["evaluation"]["batch_size"] == 16
    assert plan.at().evaluation.allocated_bytes < plan.at().peak_allocated_bytes  # type: ignore[union-attr]


def test_without_a_validation_split_there_is_none() -> None:
    plan = memfit.plan(**RESNET, gpu="rtx-3060", batch_size=4)
    assert plan.at().evaluation is None
    assert plan.to_dict()["evaluation"] is None


def test_the_verdict_says_that_it_is_the_validation_pass() -> None:
    plan = memfit.plan(**RESNET, gpu="2GiB", batch_size=4, eval_batch_size=4096)
    found = verdict(plan)
    assert found is not None
    assert not found.fits
    assert found.is_of_validation
    alone = verdict(memfit.plan(**RESNET, gpu="2GiB", batch_size=4096))
    assert alone is not None
    assert not alone.fits
    assert not alone.is_of_validation
