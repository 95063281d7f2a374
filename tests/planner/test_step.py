"""The training loop of a recipe: what it keeps, and what it says when it cannot be traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import memfit
from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import (
    AmbiguousOutput,
    InputShapeError,
    MemfitError,
    NotTraceable,
    StepError,
    UsageError,
)
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape
from memfit.planner.tracing import TrainingStep
from memfit.step.batch import BatchSpec
from memfit.step.job import resolve
from memfit.step.tensors import Arguments, TensorSpec
from memfit.step.usual import known_loss

MLP = (1, 28, 28)


def training_step(model: Any, **options: Any) -> TrainingStep:
    return TrainingStep(resolve(model, card=find_gpu("rtx-3060"), **options))


def tape(model: Any = "mlp", batch: int = 4, **options: Any) -> Tape:
    options.setdefault("input_shape", MLP if model == "mlp" else None)
    return training_step(model, **options).trace(batch)


def second(tape: Tape) -> list[Allocation]:
    return [a for a in tape.allocations if a.step == 1]


def total(allocations: Any, part: Part) -> int:
    return sum(a.size_bytes for a in allocations if a.part is part)


# -- options of the loop ---------------------------------------------------------------------------


def test_gradients_are_made_anew_each_step_or_kept() -> None:
    assert total(second(tape()), Part.GRADIENTS) == 407_080
    kept = tape(zero_grad="zero")
    assert total(kept.allocations, Part.GRADIENTS) == 407_080
    assert total(second(kept), Part.GRADIENTS) == 0


def test_frozen_parameters_have_neither_gradient_nor_state() -> None:
    traced = tape(frozen=("1",), optimizer="adam")  # the first Linear
    head = (128 * 10 + 10) * 4
    assert total(traced.allocations, Part.PARAMETERS) == 407_080
    assert total(second(traced), Part.GRADIENTS) == head
    assert total(traced.allocations, Part.OPTIMIZER) == 2 * head


def test_a_moving_average_is_a_second_model() -> None:
    plain, averaged = tape(), tape(ema=True)
    assert total(plain.allocations, Part.OPTIMIZER) == 0
    assert total(averaged.allocations, Part.OPTIMIZER) == 407_080


def test_a_gradient_scaler_has_two_numbers_on_the_device() -> None:
    assert total(tape(precision="amp-fp16").allocations, Part.OPTIMIZER) == 4 + 4
    assert total(tape(precision="amp-bf16").allocations, Part.OPTIMIZER) == 0


def scaler_on_the_cpu() -> Tape:
    """Two steps of torch's own scaler on real values."""
    with Recorder("cpu") as recorder:
        weight = nn.Parameter(torch.ones(4))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale(weight.sum()).backward()
            recorder.enter_phase(Phase.OPTIMIZER)
            scaler.step(optimizer)
            scaler.update()
            recorder.begin_step()
    return recorder.tape()


def test_a_gradient_scalers_temporaries_are_torchs() -> None:
    """Through double precision to the inverse of the scale, and gone before the next step."""
    plan = training_step("mlp", input_shape=MLP, precision="amp-fp16").trace(4)
    real = scaler_on_the_cpu()
    for traced in (plan, real):
        numbers = [n for n, a in enumerate(traced.allocations) if a.phase is Phase.OPTIMIZER]
        sizes = [traced.allocations[n].size_bytes for n in numbers]
        assert sizes[: len(sizes) // 2] == sizes[len(sizes) // 2 :]
        assert sizes[:4] == [8, 8, 4, 4]
        at = traced.events.index
        ahead = [n for n in numbers if traced.allocations[n].step == 0]
        forward = at(next(n for n, a in enumerate(traced.allocations) if a.step == 1))
        assert all(at(~n) < forward for n in ahead)


def test_clipping_happens_after_backward() -> None:
    clipped = {a.operator for a in second(tape(clip_grad_norm=1.0)) if a.phase is Phase.OPTIMIZER}
    plain = {a.operator for a in second(tape()) if a.phase is Phase.OPTIMIZER}
    assert {op for op in clipped - plain if "norm" in op}


def test_accumulation_keeps_one_set_of_gradients() -> None:
    plain, accumulated = second(tape()), second(tape(accumulation=3))
    # The third micro-batch would be the second again: two are traced.
    assert total(accumulated, Part.BATCH) == 2 * total(plain, Part.BATCH)
    assert total(accumulated, Part.GRADIENTS) == total(plain, Part.GRADIENTS) == 407_080


@pytest.mark.parametrize(("precision", "itemsize"), [("fp16", 2), ("bf16", 2), ("fp32", 4)])
def test_pure_precision_is_of_parameters_gradients_and_inputs(
    precision: Any, itemsize: int
) -> None:
    traced = tape(precision=precision)
    assert total(traced.allocations, Part.PARAMETERS) == 101_770 * itemsize
    assert total(second(traced), Part.GRADIENTS) == 101_770 * itemsize
    assert total(second(traced), Part.BATCH) == 4 * (784 * itemsize + 8)


def test_amp_keeps_parameters_and_gradients_in_float32() -> None:
    traced = tape(precision="amp-fp16")
    assert total(traced.allocations, Part.PARAMETERS) == 407_080
    assert total(second(traced), Part.GRADIENTS) == 407_080


def test_checkpointing_keeps_less_from_forward_to_backward() -> None:
    def kept(**options: Any) -> int:
        traced = tape("torchvision:vit_b_32", input_shape=(3, 224, 224), num_classes=10, **options)
        forward = [a for a in second(traced) if a.phase is Phase.FORWARD]
        return total(forward, Part.ACTIVATIONS)

    assert 2 * kept(gradient_checkpointing=True) < kept()


def test_the_third_step_is_the_second_again() -> None:
    step = training_step("mlp", input_shape=MLP, optimizer="adam")
    traced = step.trace(4, steps=3)
    by_step = [
        [(a.size_bytes, a.part, a.operator) for a in traced.allocations if a.step == number]
        for number in (1, 2)
    ]
    assert by_step[0] == by_step[1]


def test_tracing_twice_gives_the_same_tape() -> None:
    step = training_step("mlp", input_shape=MLP, optimizer="adam", ema=True)
    assert step.trace(4) == step.trace(4)


# -- the loss -------------------------------------------------------------------------------------


def test_a_custom_loss_on_a_custom_model() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).abs().mean()

    traced = tape(nn.Linear(6, 2), input_shape=(6,), loss=loss)
    assert total(traced.allocations, Part.PARAMETERS) == (6 * 2 + 2) * 4


def test_a_custom_step_decides_the_forward_pass() -> None:
    def forward(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        twice = model(inputs) + model(inputs.flip(0))
        return F.cross_entropy(twice, targets)

    once, twice = tape(), tape(step=forward)
    relu = [sum(a.operator == "aten.relu.default" for a in second(t)) for t in (once, twice)]
    assert relu == [1, 2]


@pytest.mark.parametrize("loss", [lambda output, target: output, lambda output, target: 1.0])
def test_a_loss_that_is_not_one_number_is_refused(loss: Callable[..., Any]) -> None:
    with pytest.raises(StepError, match="must be one number"):
        tape(loss=loss)


def default_loss(output: Any, target: Tensor) -> Tensor:
    return known_loss(output)(output, target)


def test_the_default_loss_weighs_only_auxiliary_heads_that_are_known() -> None:
    logits, target = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    assert default_loss((logits, logits), target) == pytest.approx(
        F.cross_entropy(logits, target).item()
    )
    segmentation = {"out": torch.randn(2, 3, 4, 4), "aux": torch.randn(2, 3, 4, 4)}
    pixels = torch.zeros(2, 4, 4, dtype=torch.long)
    expected = F.cross_entropy(segmentation["out"], pixels) + 0.5 * F.cross_entropy(
        segmentation["aux"], pixels
    )
    assert default_loss(segmentation, pixels) == pytest.approx(expected.item())
    (labels,) = known_loss(segmentation).targets_of(segmentation, 2, torch.float32)
    assert (labels.shape, labels.dtype) == ((4, 4), torch.int64)


@pytest.mark.parametrize(("name", "weight"), [("Inception", 0.4), ("GoogLeNet", 0.3)])
def test_the_auxiliary_heads_of_torchvision_weigh_as_in_their_papers(
    name: str, weight: float
) -> None:
    import torchvision.models

    outputs = getattr(torchvision.models, f"{name}Outputs")
    heads = [torch.randn(4, 5) for _ in outputs._fields]
    target = torch.tensor([0, 1, 2, 3])
    main, *auxiliary = (F.cross_entropy(head, target).item() for head in heads)
    expected = main + weight * sum(auxiliary)
    assert default_loss(outputs(*heads), target).item() == pytest.approx(expected)


def test_an_output_without_logits_asks_for_a_loss() -> None:
    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).norm(dim=1)

    with pytest.raises(AmbiguousOutput, match=r"returns \(N,\) float32"):
        tape(nn.Sequential(nn.Linear(4, 4), Norm()), input_shape=(4,))


def test_batch_spec_is_the_courses_number() -> None:
    images, labels = TensorSpec(MLP, torch.float32), TensorSpec((), torch.int64)
    spec = BatchSpec(Arguments((images,)), (labels,))
    assert spec.size_bytes(64) == 200_704 + 512
    inputs, target = spec.make(64, torch.device("meta"))
    assert (inputs.shape, target.shape, target.dtype) == ((64, 1, 28, 28), (64,), torch.int64)


# -- what cannot be traced ----------------------------------------------------------------------


class Asking(nn.Module):
    """A model that asks for a value in its second layer."""

    def __init__(self, ask: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = Asker(ask)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


class Asker(nn.Module):
    def __init__(self, ask: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        self.ask(x)
        return x


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.mean().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        torch.nonzero,
        torch.unique,
        lambda x: x.tolist(),
        lambda x: x.detach().numpy(),
        lambda x: x.cpu(),
        lambda x: torch.equal(x, x),
        lambda x: x.repeat_interleave((x.sum(1) > 0).long(), 0),
    ],
)
def test_asking_for_a_value_is_not_traceable_and_names_the_module(
    ask: Callable[[Tensor], Any],
) -> None:
    with pytest.raises(NotTraceable, match=r"second \(Asker\)"):
        tape(Asking(ask), input_shape=(4,))


def test_a_wrong_shape_names_module_expectation_and_shape() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(7, 8, 3)))
    with pytest.raises(InputShapeError) as caught:
        tape(model, input_shape=(3, 16, 16))
    assert "1.1 (Conv2d)" in str(caught.value)
    assert "(5, 8, 14, 14)" in str(caught.value)
    assert "7 channels" in str(caught.value)


def test_a_wrong_number_of_features_names_the_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 10))
    with pytest.raises(InputShapeError, match=r"1 \(Linear\).*\(5, 784\)"):
        tape(model, input_shape=MLP)


def test_an_error_of_the_models_own_is_told_with_its_name() -> None:
    def fail(x: Tensor) -> None:
        raise KeyError("stem")

    with pytest.raises(StepError, match=r"second \(Asker\) raised KeyError: 'stem'"):
        tape(Asking(fail), input_shape=(4,))


def test_an_error_of_the_loss_belongs_to_no_module() -> None:
    def fail(output: Tensor, target: Tensor) -> Tensor:
        raise KeyError("weights")

    with pytest.raises(StepError, match="the training step raised KeyError: 'weights'"):
        tape(loss=fail)


def test_all_frozen_is_nothing_to_train() -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        tape(frozen=("*",))


def test_a_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(UsageError, match="layer9"):
        tape(frozen=("layer9.*",))


def test_checkpointing_without_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="no repeated blocks"):
        tape(gradient_checkpointing=True)


def test_after_an_error_the_step_can_be_traced_again() -> None:
    asks = [True]

    def ask(x: Tensor) -> None:
        if asks.pop():
            x.sum().item()

    model = Asking(ask)
    asks[:] = [False, False, True, False]  # popped from the end: the probe, then the failing trace
    step = training_step(model, input_shape=(4,), num_classes=4)
    with pytest.raises(MemfitError):
        step.trace(4)
    assert step.trace(4).allocations


def test_an_asked_batch_of_one_that_does_not_run_is_an_error() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))

    assert memfit.plan(build, input_shape=(3, 2, 2), gpu="t4").max_batch_size > 1
    with pytest.raises(StepError, match="more than 1 value per channel"):
        memfit.plan(build, input_shape=(3, 2, 2), gpu="t4", batch_size=1)


def test_a_model_that_is_half_already_cannot_be_planned_whole() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).half()

    with pytest.raises(UsageError, match="fp16 already"):
        memfit.plan(build, input_shape=(3, 2, 2), gpu="t4")
    plan = memfit.plan(build, input_shape=(3, 2, 2), gpu="t4", precision="fp16")
    assert plan.at(4).parts["parameters"] == (12 * 5 + 5) * 2


def test_a_tensor_made_on_the_cpu_is_named() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x + torch.zeros(4))

    with pytest.raises(StepError, match="makes on the CPU"):
        memfit.plan(Mixes(), input_shape=(4,), gpu="t4")
