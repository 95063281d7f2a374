"""The recorder's tape is the one of the step that nobody watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from memfit.memory.recording.in_place import in_place_twin
from memfit.memory.recording.recorder import Recorder


class Twins(TorchDispatchMode):
    """Which operators have a twin, as a dispatch mode on this torch meets them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        twin = in_place_twin(func, args)
        if twin is not func:
            self.seen.append(str(twin))
        return twin(*args, **(kwargs or {}))


def twins_of(run: Callable[[], object]) -> Counter[str]:
    with Twins() as mode:
        run()
    return Counter(mode.seen)


def leaf(*shape: int, device: str) -> Tensor:
    return torch.ones(shape, device=device, requires_grad=True)


devices = pytest.mark.parametrize("device", ["cpu", "meta"])


@devices
def test_gradients_of_a_tensor_used_twice_are_added_in_place(device: str) -> None:
    x = leaf(4, 4, device=device)

    def run() -> None:
        y = x * 2
        (y.sin() + y.exp()).sum().backward()

    assert twins_of(run) == {"aten.add_.Tensor": 1}


@devices
def test_a_gradient_that_two_hold_is_not_overwritten(device: str) -> None:
    x = leaf(4, 4, device=device)

    def run() -> None:
        y = x * 2
        # Both gradients of the sum are one tensor, so the first cannot be written into.
        (y + y.exp()).sum().backward()

    assert twins_of(run)["aten.add_.Tensor"] == 0


@devices
def test_linear_adds_its_bias_in_place(device: str) -> None:
    x = leaf(2, 4, 3, 5, device=device).permute(0, 2, 3, 1)  # not contiguous: no fused addmm
    weight, bias = leaf(6, 4, device=device), leaf(6, device=device)
    assert twins_of(lambda: F.linear(x, weight, bias)) == {"aten.add_.Tensor": 1}


@devices
def test_python_code_that_adds_a_bias_gets_a_new_tensor(device: str) -> None:
    x, weight, bias = leaf(2, 4, device=device), leaf(4, 6, device=device), leaf(6, device=device)
    assert not twins_of(lambda: x @ weight + bias)


@devices
def test_indexing_writes_its_gradient_into_one_tensor(device: str) -> None:
    table, rows = leaf(9, 3, device=device), torch.tensor([0, 2, 2], device=device)
    assert twins_of(lambda: table[rows].sum().backward()) == {"aten.index_put_.default": 1}


@devices
def test_gather_and_max_write_their_gradient_into_one_tensor(device: str) -> None:
    x, columns = leaf(3, 3, device=device), torch.zeros(3, 1, dtype=torch.long, device=device)
    assert twins_of(lambda: x.gather(1, columns).sum().backward()) == {
        "aten.scatter_add_.default": 1
    }
    assert twins_of(lambda: x.max(1).values.sum().backward()) == {"aten.scatter_.src": 1}


@devices
def test_forward_scatter_is_as_the_user_wrote_it(device: str) -> None:
    zeros, columns = (
        torch.zeros(3, 3, device=device),
        torch.zeros(3, 1, dtype=torch.long, device=device),
    )
    assert not twins_of(lambda: zeros.scatter(1, columns, torch.ones(3, 1, device=device)))


@devices
def test_python_backward_that_adds_gets_a_new_tensor(device: str) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            half = gradient * 2
            return half + gradient * 3

    x = leaf(4, device=device)
    assert not twins_of(lambda: (Twice.apply(x) * 2).sum().backward())


class Crossed(nn.Module):
    """Everything that the twins touch: a residual, linear on a view, indexing, max, gather."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(7, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x = x.sin() * x + x.exp()
        y = self.linear(x.permute(0, 2, 3, 1))
        y = y + self.table[torch.tensor([1, 3, 3, 0])]
        z: Tensor = y.flatten(1).gather(1, torch.tensor([[0, 5], [7, 7]]))
        return z.sum() + y.max(1).values.sum()


def test_watching_changes_no_gradient() -> None:
    torch.manual_seed(0)
    model, x = Crossed(), torch.randn(2, 3, 4, 4)
    model(x).backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with Recorder("cpu"):
        model(x).backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(found) == len(expected) == 7
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
