"""CUDA's choices on meta tensors, and that they end where the virtual GPU ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from memfit.memory.recording.virtual_gpu import VirtualGPU


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def operators(run: Callable[[], object]) -> list[str]:
    with Operators() as seen:
        run()
    return seen.names


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=dtype.is_floating_point)


def drop() -> Tensor:
    return F.dropout(empty(8, 8), 0.5)


def attend() -> Tensor:
    q = empty(1, 2, 16, 32, dtype=torch.float16)
    return F.scaled_dot_product_attention(q, q, q)


def test_dropout_keeps_a_mask_of_one_byte() -> None:
    x = empty(100, 10)
    with VirtualGPU() as gpu:
        y = F.dropout(x, 0.1)
        kept = [(a.dtype, a.size_bytes) for a in gpu.tape.allocations if a.size_bytes >= 1000]
        y.sum().backward()
    assert kept == [("bool", 1000), ("float32", 4000)]


@pytest.mark.parametrize(
    "run",
    [
        lambda: F.dropout(empty(8, 8), 0.5, training=False),
        lambda: F.dropout(empty(8, 8), 0.0),
        lambda: F.dropout(empty(8, 8), 1.0),
        lambda: F.dropout(empty(0, 8), 0.5),
    ],
)
def test_dropout_that_drops_nothing_or_everything_is_not_fused(run: Callable[[], Tensor]) -> None:
    with VirtualGPU():
        assert "aten::native_dropout" not in operators(run)


@pytest.mark.parametrize(("stride", "columns"), [(1, 64), (2, 16), (4, 4)])
def test_folding_keeps_the_memory_of_its_input_as_on_cpu(stride: int, columns: int) -> None:
    def fold(device: str) -> int:
        x = torch.ones(2, 3 * 9, columns, device=device)
        return F.fold(x, (8, 8), 3, padding=1, stride=stride).untyped_storage().nbytes()

    with VirtualGPU():
        assert fold("cuda") == fold("cpu")


def test_half_attention_is_flash_attention() -> None:
    with VirtualGPU("rtx-3060"):
        assert "aten::_scaled_dot_product_flash_attention" in operators(attend)
    with VirtualGPU("rtx-3060", attention="math"):
        assert "aten::_scaled_dot_product_flash_attention" not in operators(attend)


PLAIN = {"dropout": drop, "attention": attend}


def plain() -> dict[str, list[str]]:
    return {name: operators(run) for name, run in PLAIN.items()}


def test_meta_tensors_outside_behave_as_before() -> None:
    before = plain()
    with VirtualGPU():
        assert plain() != before
    assert plain() == before


def test_meta_tensors_behave_as_before_after_an_exception() -> None:
    before = plain()
    with pytest.raises(KeyError), VirtualGPU():
        raise KeyError
    assert plain() == before


def test_meta_tensors_in_another_thread_behave_as_before() -> None:
    before, found = plain(), {}
    with VirtualGPU():
        thread = threading.Thread(target=lambda: found.update(plain()))
        thread.start()
        thread.join()
    assert found == before


def test_autocast_outside_is_as_before() -> None:
    with VirtualGPU():
        pass
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert (empty(2, 2) @ empty(2, 2)).dtype == torch.float32


def test_cpu_tensors_inside_are_left_alone() -> None:
    with VirtualGPU(), torch.autocast("cuda", dtype=torch.float16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_an_inner_virtual_gpu_plays_its_own_card_and_the_outer_goes_on() -> None:
    def kernels() -> list[str]:
        return [n for n in operators(attend) if n.startswith("aten::_scaled_dot_product")]

    with VirtualGPU("rtx-3060") as outer:
        first = kernels()
        with VirtualGPU("rtx-3060", attention="efficient") as inner:
            second = kernels()
        third = kernels()
    assert first == third == ["aten::_scaled_dot_product_flash_attention"]
    assert second == ["aten::_scaled_dot_product_efficient_attention"]
    assert inner.tape.allocations
    assert len(outer.tape.allocations) >= 2 * len(inner.tape.allocations)
