"""Anybody's training loop on the virtual GPU, and that nothing of it stays behind."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.overrides import _get_current_function_mode
from torch.utils import checkpoint
from torch.utils._python_dispatch import _get_current_dispatch_mode

from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Part, Phase, Tape

BATCH_BYTES = 64 * 28 * 28 * 4 + 64 * 8


def total(tape: Tape, part: Part, step: int | None = None) -> int:
    return sum(a.size_bytes for a in tape.allocations if a.part is part and step in (None, a.step))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, device: Any) -> None:
    images = torch.empty(64, 1, 28, 28, device=device)
    labels = torch.empty(64, dtype=torch.long, device=device)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()


def moved_by_to(model: nn.Module) -> nn.Module:
    return model.to("cuda")


def moved_by_cuda(model: nn.Module) -> nn.Module:
    return model.cuda()


def moved_to_a_device(model: nn.Module) -> nn.Module:
    return model.to(torch.device("cuda", 0))


@pytest.mark.parametrize("move", [moved_by_to, moved_by_cuda, moved_to_a_device])
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_a_loop_written_for_cuda(move: Any, device: Any) -> None:
    with VirtualGPU() as gpu:
        model = move(mlp())
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(2):
            step(model, optimizer, device)
    assert total(gpu.tape, Part.PARAMETERS) == 407_080
    assert total(gpu.tape, Part.GRADIENTS, 1) == 407_080
    assert total(gpu.tape, Part.OPTIMIZER) == 814_160
    assert total(gpu.tape, Part.BATCH, 1) == BATCH_BYTES
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_loop_that_moves_its_batches() -> None:
    with VirtualGPU() as gpu:
        model = mlp().cuda()
        images, labels = torch.empty(64, 1, 28, 28), torch.zeros(64, dtype=torch.long)
        images, labels = images.cuda(non_blocking=True), labels.to("cuda", non_blocking=True)
        F.cross_entropy(model(images), labels).backward()
    assert total(gpu.tape, Part.BATCH) == BATCH_BYTES


def test_autocast_and_a_gradient_scaler() -> None:
    with VirtualGPU() as gpu:
        model = mlp().cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = GradScaler("cuda")
        images = torch.empty(64, 1, 28, 28, device="cuda")
        labels = torch.empty(64, dtype=torch.long, device="cuda")
        with torch.autocast("cuda", dtype=torch.float16):
            output = model(images)
            loss = F.cross_entropy(output, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert (output.dtype, loss.dtype) == (torch.float16, torch.float32)
    halves = [a for a in gpu.tape.allocations if a.shape == (128, 784) and a.dtype == "float16"]
    assert {a.operator for a in halves} == {"aten._to_copy.default", "aten.mm.default"}
    assert total(gpu.tape, Part.GRADIENTS) == 407_080


@pytest.mark.parametrize("device", [0, "cuda:1", torch.device("cuda", 1)])
def test_ways_to_name_a_gpu(device: Any) -> None:
    with VirtualGPU():
        assert torch.empty(2, device=device).is_meta
        assert torch.empty(2).to(device).is_meta
        assert torch.empty(2).to(device=device, dtype=torch.float16).is_meta
        assert nn.Linear(2, 2, device=device).weight.is_meta
        assert torch.empty(2).pin_memory().to(device, non_blocking=True).is_meta
        assert not torch.empty(2).to("cpu").is_meta


def test_foreach_is_the_default_of_optimizers_as_on_cuda() -> None:
    def temporaries(**options: Any) -> int:
        with VirtualGPU() as gpu:
            model = mlp().cuda()
            step(model, torch.optim.Adam(model.parameters(), **options), "cuda")
        return sum(
            a.size_bytes
            for a in gpu.tape.allocations
            if a.phase is Phase.OPTIMIZER and a.part is Part.TEMPORARIES
        )

    assert temporaries() == temporaries(foreach=True) == 407_080, "one for each square root at once"
    assert temporaries(fused=True) == 0


def test_gradients_are_tagged_when_nobody_steps() -> None:
    with VirtualGPU() as gpu:
        model = mlp().cuda()
        model(torch.empty(2, 784, device="cuda")).sum().backward()
    assert total(gpu.tape, Part.GRADIENTS) == 407_080


def test_a_module_path_is_that_of_the_root_that_is_called() -> None:
    with VirtualGPU() as gpu:
        model = nn.ModuleDict({"body": mlp()}).cuda()
        model["body"](torch.empty(2, 784, device="cuda"))
    assert {a.module for a in gpu.tape.allocations if a.phase is Phase.FORWARD} == {"1", "2", "3"}


def test_an_adopted_model_keeps_its_own_paths() -> None:
    with VirtualGPU() as gpu:
        model = nn.ModuleDict({"body": mlp()}).cuda()
        gpu.adopt(model)
        model["body"](torch.empty(2, 784, device="cuda"))
    assert {a.module for a in gpu.tape.allocations if a.phase is Phase.FORWARD} == {
        "body.1", "body.2", "body.3",
    }  # fmt: skip
    assert gpu.input_shape_at("body.1") == (2, 784)
    assert gpu.module_at("body.3") is model["body"][3]
    assert gpu.module_at("nowhere") is None


# -- nothing stays behind ----------------------------------------------------------------------


NAMES = [
    (torch, "tensor"), (torch, "load"), (torch, "Generator"),
    (torch.cuda, "is_available"), (torch.cuda, "memory_allocated"), (torch.cuda, "Stream"),
    (torch.cuda, "_lazy_init"), (torch.accelerator, "current_accelerator"),
    (torch.Tensor, "to"), (torch.Tensor, "cuda"), (torch.Tensor, "device"),
    (torch.Tensor, "is_cuda"), (torch.Tensor, "__format__"), (torch.optim.Optimizer, "__init__"),
    (nn.DataParallel, "forward"),
]  # fmt: skip


def surroundings() -> dict[str, Any]:
    """Everything that the virtual GPU replaces or registers."""
    return {
        "autocast": torch.amp.autocast_mode.autocast.__init__,
        "available": torch.cuda.amp.common.amp_definitely_not_available,
        "bf16": torch.cuda.is_bf16_supported,
        "checkpoint": checkpoint._infer_device_type,
        "clear": torch.clear_autocast_cache,
        "foreach": optimizer_hooks._get_foreach_kernels_supported_devices,
        "fused": optimizer_hooks._get_fused_kernels_supported_devices,
        "module hooks": (
            list(module_hooks._global_forward_pre_hooks),
            list(module_hooks._global_forward_hooks),
            list(module_hooks._global_forward_hooks_always_called),
        ),
        "optimizer hooks": (
            list(optimizer_hooks._global_optimizer_pre_hooks),
            list(optimizer_hooks._global_optimizer_post_hooks),
        ),
        "dispatch mode": _get_current_dispatch_mode(),
        "function mode": _get_current_function_mode(),
        "names": [vars(owner).get(name) for owner, name in NAMES],
        "swaps": torch.__future__.get_swap_module_params_on_conversion(),
        "warnings": list(warnings.filters),
        "key": torch._C._dispatch_tls_is_dispatch_key_included(
            torch._C.DispatchKey.AutocastPrivateUse1
        ),
    }


def test_everything_is_put_back() -> None:
    before = surroundings()
    with VirtualGPU():
        assert surroundings() != before
    assert surroundings() == before


class Failing(nn.Module):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.where = where

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        if self.where == "forward":
            raise ArithmeticError
        y.register_hook(self.fail)
        return y

    def fail(self, gradient: torch.Tensor) -> None:
        raise ArithmeticError


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_everything_is_put_back_when_a_module_raises(where: str) -> None:
    def fail() -> None:
        with gpu:
            Failing(where).cuda()(torch.empty(2, 4, device="cuda")).sum().backward()

    before, gpu = surroundings(), VirtualGPU()
    with pytest.raises(ArithmeticError):
        fail()
    assert surroundings() == before
    assert gpu.tape.allocations, "what was recorded until then is there"


def test_a_failed_forward_leaves_the_module_paths_right() -> None:
    with VirtualGPU() as gpu:
        with pytest.raises(ArithmeticError):
            Failing("forward").cuda()(torch.empty(2, 4, device="cuda"))
        model = mlp().cuda()
        model(torch.empty(2, 784, device="cuda"))
    assert gpu.recorder.trail.running == []


def test_random_numbers_are_left_as_they_were() -> None:
    state = torch.get_rng_state()
    with VirtualGPU():
        F.dropout(torch.rand(8, 8, device="cuda"), 0.5)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_thread_is_not_recorded() -> None:
    with VirtualGPU() as gpu:
        thread = threading.Thread(target=lambda: torch.empty(1000, device="meta") + 1)
        thread.start()
        thread.join()
    assert not gpu.tape.allocations


def test_two_virtual_gpus_one_after_the_other_see_the_same() -> None:
    tapes = []
    for _ in range(2):
        with VirtualGPU() as gpu:
            model = mlp().cuda()
            step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), "cuda")
        tapes.append(gpu.tape)
    assert [a.size_bytes for a in tapes[0].allocations] == [
        a.size_bytes for a in tapes[1].allocations
    ]


def test_timeline_peaks_are_ordered() -> None:
    with VirtualGPU() as gpu:
        model = mlp().cuda()
        step(model, torch.optim.Adam(model.parameters()), "cuda")
    timeline = gpu.timeline
    assert gpu.tape.peak_requested_bytes <= timeline.peak_allocated_bytes
    assert timeline.peak_allocated_bytes <= timeline.peak_reserved_bytes
    parts = timeline.peak.parts
    assert sum(parts.values()) <= timeline.peak.allocated_bytes
    assert parts[Part.PARAMETERS] == 407_080
