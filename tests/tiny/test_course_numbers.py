"""The numbers that every learner meets, in seconds and without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import memfit
from memfit import VirtualGPU
from memfit.memory.tape.tape import Part, Tape
from memfit.models import build
from memfit.step.batch import BatchSpec
from memfit.step.tensors import Arguments, TensorSpec
from memfit.units import format_bytes


def total(tape: Tape, part: Part) -> int:
    return sum(a.size_bytes for a in tape.allocations if a.part is part)


def mlp_tape(optimizer: str, images: int = 64, shape: tuple[int, ...] = (1, 28, 28)) -> Tape:
    """One step of the course's loop, from a model that is moved to the GPU."""
    with VirtualGPU() as gpu:
        model = build("mlp", input_shape=shape).module
        gpu.adopt(model)
        steps = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1)
        inputs = torch.empty(images, *shape, device="cuda")
        labels = torch.empty(images, dtype=torch.long, device="cuda")
        F.cross_entropy(model(inputs), labels).backward()
        steps.step()
    return gpu.tape


def test_the_mlp_has_101_770_parameters() -> None:
    tape = mlp_tape("SGD")
    assert total(tape, Part.PARAMETERS) == 101_770 * 4 == 407_080
    assert format_bytes(407_080) == "397.5 KiB", "not the 403 KB that is often quoted"


def test_gradients_are_as_large_and_adam_twice_that() -> None:
    tape = mlp_tape("Adam")
    assert total(tape, Part.GRADIENTS) == 407_080
    assert total(tape, Part.OPTIMIZER) == 2 * 407_080
    assert total(mlp_tape("SGD"), Part.OPTIMIZER) == 0


def test_a_batch_of_64_and_its_labels() -> None:
    assert total(mlp_tape("SGD"), Part.BATCH) == 200_704 + 512
    spec = BatchSpec(
        Arguments((TensorSpec((1, 28, 28), torch.float32),)), (TensorSpec((), torch.int64),)
    )
    assert spec.size_bytes(64) == 201_216


def test_a_colour_image_is_three_numbers_where_a_grey_one_is_one() -> None:
    grey, colour = mlp_tape("SGD", 10, (1, 32, 32)), mlp_tape("SGD", 10, (3, 32, 32))
    assert total(grey, Part.BATCH) == 10 * (32 * 32 * 4 + 8)
    assert total(colour, Part.BATCH) == 10 * (3 * 32 * 32 * 4 + 8)
    assert total(colour, Part.PARAMETERS) == 394_634 * 4


def test_only_batch_and_activations_grow_with_the_batch() -> None:
    small, large = mlp_tape("Adam", 32), mlp_tape("Adam", 64)
    for part in (Part.PARAMETERS, Part.GRADIENTS, Part.OPTIMIZER):
        assert total(small, part) == total(large, part)
    assert 2 * total(small, Part.BATCH) == total(large, Part.BATCH)
    fixed = 3 * 4  # the loss, its weight and its gradient
    grows = [total(tape, Part.ACTIVATIONS) - fixed for tape in (small, large)]
    assert 2 * grows[0] == grows[1]


@pytest.fixture(scope="module")
def plan() -> memfit.Plan:
    return memfit.plan("mlp", input_shape=(1, 28, 28), optimizer="adam", gpu="11GiB", verify=False)


def test_the_plan_shows_the_same_four_parts_and_they_add_up(plan: memfit.Plan) -> None:
    at = plan.at(64)
    assert at.parts["parameters"] == 407_080
    assert at.parts["optimizer"] == 814_160
    assert at.parts["batch"] == 201_216
    assert sum(at.parts.values()) == at.total_bytes


def test_the_largest_batch_is_the_largest(plan: memfit.Plan) -> None:
    largest = plan.max_batch_size
    assert largest
    assert plan.at(largest).fits()
    assert not plan.at(largest + 1).fits()
