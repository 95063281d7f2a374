"""CUDA's autocast on meta tensors: the lists, the casts and how long the copies live."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memfit.memory.cuda.autocast import AUTOCAST_POLICIES
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Allocation, Part

HALF, BF16, FP32, FP64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

#: Registered for AutocastCUDA, not in our table, and why.
NOT_IN_OUR_TABLE = {
    "_cudnn_rnn": "recurrent layers have a rule of their own on the virtual GPU",
    "linalg_matrix_sqrth": "new in 2.15, float32: no layer of an image model",
}


def registered() -> set[str]:
    """Overloads of ATen, without those that take dimension names (gone in 2.15)."""
    names = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA")
    aten = {name.removeprefix("aten::") for name in names if name.startswith("aten::")}
    return {name for name in aten if "imname" not in name and ".names" not in name}


def test_every_operator_that_cuda_autocasts_is_in_the_table() -> None:
    assert registered() - AUTOCAST_POLICIES.keys() <= NOT_IN_OUR_TABLE.keys()


def test_every_operator_of_the_table_is_one_that_cuda_autocasts() -> None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    missing = {n for n in AUTOCAST_POLICIES if not has_kernel(f"aten::{n}", "AutocastCUDA")}
    old = {"rms_norm"} if torch.__version__ < (2, 12) else set()  # added in 2.12
    assert missing <= old


@pytest.fixture
def gpu() -> Iterator[VirtualGPU]:
    with VirtualGPU() as gpu:
        yield gpu


def empty(*shape: int, dtype: torch.dtype = FP32, grad: bool = False) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=grad)


LOWER: dict[str, Callable[[Tensor], Tensor]] = {
    "mm": lambda x: x @ x,
    "linear": lambda x: F.linear(x, empty(3, 4), empty(3)),
    "conv2d": lambda x: F.conv2d(x.view(1, 1, 4, 4), empty(2, 1, 3, 3)),
    "bmm": lambda x: torch.bmm(x[None], x[None]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "prelu": lambda x: F.prelu(x, empty(1)),
    "attention": lambda x: F.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None]
    ),
}
WIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "pow": lambda x: x**2,
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "group_norm": lambda x: F.group_norm(x, 2),
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "sum": lambda x: x.sum(),
    "cumsum": lambda x: x.cumsum(0),
    "norm": torch.norm,
    "linalg norm": torch.linalg.vector_norm,
    "cross entropy": lambda x: F.cross_entropy(x, torch.empty(4, dtype=torch.long, device="meta")),
    "mse": lambda x: F.mse_loss(x, x),
    "interpolate": lambda x: F.interpolate(x.view(1, 1, 4, 4), scale_factor=2, mode="bilinear"),
}
SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "add": lambda x: x + x,
    "mean": lambda x: x.mean(),
    "max_pool": lambda x: F.max_pool2d(x.view(1, 1, 4, 4), 2),
    "cat": lambda x: torch.cat([x, x]),
    "batch_norm": lambda x: F.batch_norm(x, empty(4), empty(4), training=True),
}


@pytest.mark.parametrize("half", [HALF, BF16])
@pytest.mark.parametrize("given", [HALF, BF16, FP32])
@pytest.mark.parametrize("name", LOWER)
def test_lower_precision_operators(
    gpu: VirtualGPU, name: str, given: torch.dtype, half: torch.dtype
) -> None:
    with torch.autocast("cuda", dtype=half):
        assert LOWER[name](empty(4, 4, dtype=given)).dtype == half


@pytest.mark.parametrize("given", [HALF, BF16, FP32])
@pytest.mark.parametrize("name", WIDE)
def test_float32_operators(gpu: VirtualGPU, name: str, given: torch.dtype) -> None:
    with torch.autocast("cuda", dtype=HALF):
        assert WIDE[name](empty(4, 4, dtype=given)).dtype == FP32


@pytest.mark.parametrize("given", [HALF, BF16, FP32])
@pytest.mark.parametrize("name", SAME)
def test_other_operators_keep_the_type(gpu: VirtualGPU, name: str, given: torch.dtype) -> None:
    with torch.autocast("cuda", dtype=HALF):
        assert SAME[name](empty(4, 4, dtype=given)).dtype == given


# The rest mix the input with float32 weights here, which fails with and without autocast.
@pytest.mark.parametrize("name", ["mm", "bmm", "einsum", "attention", *WIDE, "relu", "add", "cat"])
def test_float64_is_left_alone(gpu: VirtualGPU, name: str) -> None:
    run = (LOWER | WIDE | SAME)[name]
    with torch.autocast("cuda", dtype=HALF):
        assert run(empty(4, 4, dtype=FP64)).dtype == FP64


def test_promoting_operators_take_the_widest_input(gpu: VirtualGPU) -> None:
    with torch.autocast("cuda", dtype=HALF):
        narrow, wide = empty(4, dtype=HALF), empty(4)
        assert torch.addcmul(narrow, narrow, narrow).dtype == HALF
        assert torch.addcmul(narrow, wide, narrow).dtype == FP32
        assert torch.dot(wide, narrow).dtype == FP32


def test_a_dtype_that_the_user_names_is_kept(gpu: VirtualGPU) -> None:
    with torch.autocast("cuda", dtype=HALF):
        assert F.softmax(empty(4, 4), -1, dtype=HALF).dtype == HALF
        assert empty(4, 4, dtype=HALF).sum(dtype=FP64).dtype == FP64


def test_binary_cross_entropy_is_refused(gpu: VirtualGPU) -> None:
    with torch.autocast("cuda", dtype=HALF), pytest.raises(RuntimeError, match="with_logits"):
        F.binary_cross_entropy(empty(4), empty(4))


def test_integers_are_left_alone(gpu: VirtualGPU) -> None:
    with torch.autocast("cuda", dtype=HALF):
        assert empty(4, dtype=torch.long).sum().dtype == torch.long


def test_outside_of_the_region_nothing_is_cast(gpu: VirtualGPU) -> None:
    with torch.autocast("cuda", dtype=HALF, enabled=False):
        assert (empty(4, 4) @ empty(4, 4)).dtype == FP32
    assert (empty(4, 4) @ empty(4, 4)).dtype == FP32


def test_an_inner_region_can_switch_it_off(gpu: VirtualGPU) -> None:
    x = empty(4, 4)
    with torch.autocast("cuda", dtype=HALF):
        with torch.autocast("cuda", enabled=False):
            assert (x @ x).dtype == FP32
        assert (x @ x).dtype == HALF


def test_the_dtype_of_an_inner_region_holds(gpu: VirtualGPU) -> None:
    x = empty(4, 4)
    with torch.autocast("cuda", dtype=HALF), torch.autocast("cuda", dtype=BF16):
        assert (x @ x).dtype == BF16


# -- half copies of the weights --------------------------------------------------------------------


def copies(gpu: VirtualGPU, elements: int) -> list[tuple[int, Allocation]]:
    """Half tensors of so many elements, with their numbers."""
    return [
        (number, a)
        for number, a in enumerate(gpu.tape.allocations)
        if a.operator == "aten._to_copy.default"
        and a.dtype == "float16"
        and a.size_bytes == 2 * elements
    ]


def is_alive(gpu: VirtualGPU, number: int) -> bool:
    return ~number not in gpu.tape.events


def linear() -> nn.Linear:
    return nn.Linear(8, 6, bias=False, device="meta")


def test_a_weight_is_cast_once_until_the_outermost_region_ends(gpu: VirtualGPU) -> None:
    layer = linear()
    with torch.autocast("cuda", dtype=HALF):
        with torch.autocast("cuda", dtype=HALF):
            layer(empty(2, 8))
        layer(empty(2, 8))
        ((number, _),) = copies(gpu, 48)
        assert is_alive(gpu, number)
    assert not is_alive(gpu, number)
    with torch.autocast("cuda", dtype=HALF):
        layer(empty(2, 8))
    assert len(copies(gpu, 48)) == 2


def test_a_copy_that_backward_needs_outlives_the_region(gpu: VirtualGPU) -> None:
    layer, x = linear(), empty(2, 8, grad=True)
    with torch.autocast("cuda", dtype=HALF):
        loss = layer(x).sum()
    ((number, _),) = copies(gpu, 48)
    assert is_alive(gpu, number)
    loss.backward()
    assert not is_alive(gpu, number)


def test_a_weight_that_two_layers_share_is_cast_once(gpu: VirtualGPU) -> None:
    first, second = linear(), linear()
    second.weight = first.weight
    with torch.autocast("cuda", dtype=HALF):
        first(empty(2, 8))
        second(empty(2, 8))
    assert len(copies(gpu, 48)) == 1


def test_frozen_weights_and_activations_are_cast_each_time(gpu: VirtualGPU) -> None:
    layer = linear().requires_grad_(False)
    x = empty(3, 8)
    with torch.autocast("cuda", dtype=HALF):
        layer(x)
        layer(x)
    assert len(copies(gpu, 48)) == 2
    assert len(copies(gpu, 24)) == 2


def test_the_cache_can_be_switched_off(gpu: VirtualGPU) -> None:
    layer = linear()
    with torch.autocast("cuda", dtype=HALF, cache_enabled=False):
        layer(empty(2, 8))
        layer(empty(2, 8))
    assert len(copies(gpu, 48)) == 2


def test_gradients_are_float32_as_the_weights_are() -> None:
    layer = linear()
    with VirtualGPU() as gpu:
        with torch.autocast("cuda", dtype=HALF):
            loss = layer(empty(2, 8)).sum()
        loss.backward()
    gradients = [a for a in gpu.tape.allocations if a.part is Part.GRADIENTS]
    assert [(a.dtype, a.size_bytes) for a in gradients] == [("float32", 8 * 6 * 4)]


def test_softmax_reads_float16_without_a_converted_copy(gpu: VirtualGPU) -> None:
    def bytes_made(dtype: torch.dtype) -> list[int]:
        x = empty(4, 8, dtype=dtype)
        before = len(gpu.tape.allocations)
        F.softmax(x, -1)
        F.log_softmax(x, -1)
        return [a.size_bytes for a in gpu.tape.allocations[before:] if a.size_bytes]

    with torch.autocast("cuda", dtype=HALF):
        assert bytes_made(HALF) == [128, 128]
        assert bytes_made(BF16) == [128, 128, 128, 128]


def test_the_last_argument_is_cast_first(gpu: VirtualGPU) -> None:
    """PyTorch itself, behind the stubs: bias, weight, input; backward undoes the input first."""
    with torch.autocast("cuda", torch.float16):
        x, weight, bias = empty(2, 4, grad=True), empty(3, 4, grad=True), empty(3, grad=True)
        loss = F.linear(x, weight, bias).sum()
    loss.backward()
    casts = [
        allocation.shape
        for allocation in gpu.tape.allocations
        if allocation.operator == "aten._to_copy.default" and allocation.shape
    ]
    assert casts[:3] == [(3,), (3, 4), (2, 4)]
    assert casts[-3:] == casts[:3][::-1]
