from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from memfit.errors import UnknownName, UsageError
from memfit.step.optimizers import (
    build_optimizer,
    is_adaptive,
    optimizer_name,
    optimizer_names,
)


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes or [(4, 4)]]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def state_bytes(optimizer: Optimizer) -> int:
    """Distinct storages of the state, without the step counts on the CPU side of Adam."""
    sizes = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, Tensor) and name != "step"
    }
    return sum(sizes.values())


@pytest.mark.parametrize("name", optimizer_names())
def test_every_name_makes_an_optimizer_that_steps(name: str) -> None:
    made = parameters((4, 4), (5, 3))
    optimizer = build_optimizer(name, made)
    assert isinstance(optimizer, Optimizer)
    optimizer.step()


def test_options_reach_the_optimizer() -> None:
    optimizer = build_optimizer({"name": "SGD", "momentum": 0.8, "lr": 0.2}, parameters())
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.8


def test_a_callable_is_called_with_the_parameters() -> None:
    optimizer = build_optimizer(lambda p: torch.optim.Rprop(p, lr=0.5), parameters())
    assert optimizer.defaults["lr"] == 0.5


def test_a_class_is_a_callable() -> None:
    assert isinstance(build_optimizer(torch.optim.Adam, parameters()), torch.optim.Adam)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean adamw"):
        build_optimizer("adamww", parameters())


def test_an_option_that_it_does_not_take_is_named() -> None:
    with pytest.raises(UsageError, match=r"sgd.*betas"):
        build_optimizer({"name": "sgd", "betas": (0.9, 0.99)}, parameters())
    with pytest.raises(UsageError, match="sgd"):
        build_optimizer({"name": "sgd", "lr": -1.0}, parameters())


def test_a_callable_that_makes_no_optimizer_is_refused() -> None:
    with pytest.raises(UsageError, match="list"):
        build_optimizer(list, parameters())


@pytest.mark.parametrize(
    ("spec", "name", "adaptive"),
    [
        ("SGD", "sgd", False),
        ({"name": "AdamW", "lr": 1e-3}, "adamw", True),
        (torch.optim.ASGD, "asgd", False),
        ("lion", "lion", True),
        ("sgd8bit", "sgd8bit", False),
    ],
)
def test_names_and_learning_rate_rules(spec: object, name: str, adaptive: bool) -> None:
    assert optimizer_name(spec) == name  # type: ignore[arg-type]
    assert is_adaptive(spec) is adaptive  # type: ignore[arg-type]


def test_lion_by_hand() -> None:
    """Two updates of one weight, from program 1 of arXiv 2302.06675."""
    weight = nn.Parameter(torch.tensor([1.0]))
    options = {"name": "lion", "lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.5}
    optimizer = build_optimizer(options, [weight])
    expected, momentum = 1.0, 0.0
    for gradient in (2.0, -30.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        update = 0.9 * momentum + 0.1 * gradient
        expected = expected - 0.1 * ((1 if update > 0 else -1) + 0.5 * expected)
        momentum = 0.99 * momentum + 0.01 * gradient
        assert weight.item() == pytest.approx(expected)


def test_eight_bit_state_by_hand() -> None:
    # 4,096 elements: a byte each, and a float32 for each of 16 blocks; 4,095: float32 itself.
    large, small = parameters((64, 64), (4095,))
    adam = build_optimizer("adam8bit", [large, small])
    adam.step()
    code_books = 2 * 256 * 4
    assert state_bytes(adam) == 2 * (4096 + 16 * 4) + 2 * 4095 * 4 + code_books
    lion = build_optimizer("lion8bit", parameters((100, 100)))
    lion.step()
    assert state_bytes(lion) == 10_000 + 40 * 4 + 256 * 4, "39.06 blocks are 40"


def test_parameters_without_a_gradient_get_no_state() -> None:
    for name in ("lion", "adam8bit"):
        frozen = nn.Parameter(torch.randn(8))
        optimizer = build_optimizer(name, [frozen])
        optimizer.step()
        assert not optimizer.state
