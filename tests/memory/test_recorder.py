"""What the recorder writes, against nets that can be counted by hand."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from memfit.memory.recording.meta_recorder import MetaRecorder
from memfit.memory.recording.recorder import Recorder
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape
from memfit.torch_inside import in_backward

META = torch.device("meta")
BATCH = 64
INPUTS_BYTES, LABELS_BYTES = 200_704, 512  # 64·1·28·28·4 and 64·8
FIRST_BYTES, SECOND_BYTES = BATCH * 128 * 4, BATCH * 10 * 4  # outputs of the two layers
PARAMETERS_BYTES = [784 * 128 * 4, 128 * 4, 128 * 10 * 4, 10 * 4]

KERNELS = (Part.WORKSPACES,)  # of cuBLAS: not what the recorder itself decides


def mlp() -> nn.Sequential:
    with META:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def train(
    gpu: VirtualGPU, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, **zero: Any
) -> None:
    """The loop of the course."""
    for _ in range(steps):
        images = torch.empty(BATCH, 1, 28, 28, device=gpu.device)
        labels = torch.empty(BATCH, dtype=torch.long, device=gpu.device)
        optimizer.zero_grad(**zero)
        output = model(images)
        loss = F.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()


def story(tape: Tape, step: int) -> list[tuple[str, int, str, str, str]]:
    """Allocations (+) and frees (-) of one step: bytes, part, phase, module; no workspaces."""
    marks = [mark.position for mark in tape.marks if mark.step == step]
    ends = [mark.position for mark in tape.marks if mark.step == step + 1]
    told = []
    for event in tape.events[min(marks) : min(ends, default=len(tape.events))]:
        a = tape.allocations[event if event >= 0 else ~event]
        if a.part not in KERNELS and a.size_bytes:
            sign = "+" if event >= 0 else "-"
            told.append((sign, a.size_bytes, str(a.part), str(a.phase), a.module))
    return told


@pytest.fixture(scope="module")
def sgd_tape() -> Tape:
    model = mlp()
    with VirtualGPU() as gpu:
        gpu.adopt(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
        train(gpu, model, optimizer, steps=2)
    return gpu.tape


def test_mlp_first_step_allocation_by_allocation(sgd_tape: Tape) -> None:
    first, second = FIRST_BYTES, SECOND_BYTES
    assert story(sgd_tape, 0) == [
        *(
            ("+", size, "parameters", "data", m)
            for size, m in zip(PARAMETERS_BYTES, "1133", strict=True)
        ),
        ("+", INPUTS_BYTES, "batch", "data", ""),
        ("+", LABELS_BYTES, "batch", "data", ""),
        ("+", first, "temporaries", "forward", "1"),
        ("+", first, "activations", "forward", "2"),  # ReLU keeps its output...
        ("-", first, "temporaries", "forward", "1"),  # ...so its input goes
        ("+", second, "activations", "forward", "3"),  # logits: the loop's variable
        ("+", second, "activations", "forward", ""),  # log-softmax
        ("+", 4, "activations", "forward", ""),  # the loss
        ("+", 4, "activations", "forward", ""),  # its total weight
        ("+", 4, "activations", "forward", ""),  # the gradient of the loss: one
        ("+", second, "temporaries", "backward", ""),
        ("-", 4, "activations", "forward", ""),
        ("+", second, "temporaries", "backward", ""),
        ("-", second, "temporaries", "backward", ""),
        ("-", second, "activations", "forward", ""),
        ("+", first, "temporaries", "backward", "3"),
        ("+", 128 * 10 * 4, "gradients", "backward", "3"),
        ("+", 10 * 4, "gradients", "backward", "3"),
        ("-", second, "temporaries", "backward", ""),
        ("+", first, "temporaries", "backward", "2"),
        ("-", first, "temporaries", "backward", "3"),
        ("-", first, "activations", "forward", "2"),
        ("+", 784 * 128 * 4, "gradients", "backward", "1"),
        ("+", 128 * 4, "gradients", "backward", "1"),
        ("-", first, "temporaries", "backward", "2"),
        ("-", 4, "activations", "forward", ""),
    ]  # and the optimizer, one loop over the parameters in place, makes nothing


def test_the_last_steps_batch_and_loss_live_until_they_are_overwritten(sgd_tape: Tape) -> None:
    told = story(sgd_tape, 1)
    assert told[:4] == [
        ("+", INPUTS_BYTES, "batch", "data", ""),
        ("-", INPUTS_BYTES, "batch", "data", ""),
        ("+", LABELS_BYTES, "batch", "data", ""),
        ("-", LABELS_BYTES, "batch", "data", ""),
    ]
    assert told[4:8] == [  # zero_grad frees what the last step left
        ("-", size, "gradients", "backward", m)
        for size, m in zip(PARAMETERS_BYTES, "1133", strict=True)
    ]


def test_parameters_and_gradients_are_the_courses_numbers(sgd_tape: Tape) -> None:
    assert total(sgd_tape, Part.PARAMETERS, 0) == 407_080
    assert total(sgd_tape, Part.GRADIENTS, 0) == total(sgd_tape, Part.GRADIENTS, 1) == 407_080
    assert total(sgd_tape, Part.OPTIMIZER) == 0


def test_phases_are_marked_in_order(sgd_tape: Tape) -> None:
    order = [Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER]
    for step in (0, 1):
        assert [mark.phase for mark in sgd_tape.marks if mark.step == step] == order
    positions = [mark.position for mark in sgd_tape.marks]
    assert positions == sorted(positions)


def total(tape: Tape, part: Part, step: int | None = None) -> int:
    return sum(a.size_bytes for a in tape.allocations if a.part is part and step in (None, a.step))


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
        (torch.optim.Adam, 2),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 3),
        (torch.optim.RMSprop, 1),
    ],
)
def test_optimizer_state(make: Any, states: int) -> None:
    model = mlp()
    with VirtualGPU() as gpu:
        gpu.adopt(model)
        train(gpu, model, make(model.parameters()), steps=3)
    assert total(gpu.tape, Part.OPTIMIZER) == states * 407_080
    assert total(gpu.tape, Part.OPTIMIZER, 0) == states * 407_080, "made in the first step"


def test_zero_grad_with_zeros_keeps_the_gradients() -> None:
    model = mlp()
    with VirtualGPU() as gpu:
        gpu.adopt(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(gpu, model, optimizer, steps=3, set_to_none=False)
    by_step = Counter(
        a.step
        for a in gpu.tape.allocations
        if a.part is Part.GRADIENTS
        for _ in range(a.size_bytes)
    )
    assert by_step == {0: 407_080}


def test_accumulating_adds_into_the_first_gradients() -> None:
    model = mlp()
    with VirtualGPU() as gpu:
        gpu.adopt(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            images = torch.empty(BATCH, 1, 28, 28, device=META)
            labels = torch.empty(BATCH, dtype=torch.long, device=META)
            F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert total(gpu.tape, Part.GRADIENTS) == 407_080
    assert total(gpu.tape, Part.BATCH) == 3 * (INPUTS_BYTES + LABELS_BYTES)


# -- storages ---------------------------------------------------------------------------------


def recorded(run: Any, device: str = "meta") -> tuple[list[Allocation], list[int]]:
    recorder = Recorder(device)
    with recorder:
        run()
    return list(recorder.tape().allocations), list(recorder.tape().events)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_views_share_a_storage(device: str) -> None:
    def run() -> None:
        x = torch.empty(6, 4, device=device)
        views = [x.view(24), x.t(), x[1:], x.unfold(0, 2, 1), x.expand(3, 6, 4), x.detach()]
        del x
        assert views

    allocations, events = recorded(run, device)
    assert [a.size_bytes for a in allocations] == [96]
    assert events == [0, ~0], "freed once, with the last view"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_in_place_and_out_operators_allocate_nothing(device: str) -> None:
    def run() -> None:
        x, y = torch.zeros(8, device=device), torch.zeros(8, device=device)
        x.add_(y).mul_(2).relu_()
        torch.add(x, y, out=y)
        x.fill_(1)

    allocations, _ = recorded(run, device)
    assert [a.size_bytes for a in allocations] == [32, 32]


def test_only_the_recorders_device_counts() -> None:
    allocations, _ = recorded(lambda: (torch.empty(8), torch.empty(4, device="meta")), "meta")
    assert [a.size_bytes for a in allocations] == [16]


def test_a_cpu_run_and_a_meta_run_are_one_tape() -> None:
    def run(device: str) -> tuple[list[Allocation], list[int]]:
        with torch.device(device):
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        return recorded(
            lambda: model(torch.ones(2, 3, 8, 8, device=device)).sum().backward(), device
        )

    assert run("cpu") == run("meta")


def test_several_outputs_are_several_allocations() -> None:
    allocations, _ = recorded(lambda: torch.empty(4, 4, device="meta").max(1))
    assert [a.size_bytes for a in allocations] == [64, 16, 32]


def test_an_allocation_knows_its_shape_and_type() -> None:
    allocations, _ = recorded(lambda: torch.empty(4, 2, dtype=torch.float16, device="meta"))
    assert (allocations[0].shape, allocations[0].dtype) == ((4, 2), "float16")
    assert allocations[0].operator == "aten.empty.memory_format"


def test_every_allocation_is_freed_once(sgd_tape: Tape) -> None:
    frees = [~event for event in sgd_tape.events if event < 0]
    assert len(frees) == len(set(frees))
    born: set[int] = set()
    for event in sgd_tape.events:
        if event >= 0:
            assert event not in born
            born.add(event)
        else:
            assert ~event in born
    assert born == set(range(len(sgd_tape.allocations)))


def test_the_recorder_keeps_no_tensor_alive() -> None:
    recorder = Recorder("cpu")
    with recorder:
        x = torch.ones(10, requires_grad=True)
        (x * 2).sum().backward()
    live = sum(1 if event >= 0 else -1 for event in recorder.tape().events)
    assert live == 2, "x and its gradient"
    del x
    gc.collect()
    assert sum(1 if event >= 0 else -1 for event in recorder.tape().events) == 0


# -- modules and parts ----------------------------------------------------------------------------


class Blocks(nn.Module):
    """Three blocks whose inner tensor is kept for backward, or computed again."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 64), nn.Sigmoid(), nn.Linear(64, 32)) for _ in range(3)
        )
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.use_reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.use_reentrant)
        return x


def blocks_tape(use_reentrant: bool | None) -> Tape:
    with META:
        model = Blocks(use_reentrant)
    with VirtualGPU() as gpu:
        gpu.adopt(model)
        images = torch.empty(16, 32, device=gpu.device, requires_grad=True)
        model(images).sum().backward()
    return gpu.tape


INNER_BYTES = 16 * 64 * 4


def test_without_checkpointing_forward_keeps_the_inner_tensors() -> None:
    kept = [a for a in blocks_tape(None).allocations if a.size_bytes == INNER_BYTES]
    assert [a.module for a in kept if a.part is Part.ACTIVATIONS] == [
        f"blocks.{n}.1" for n in range(3)
    ]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_blocks_are_computed_again_in_backward(use_reentrant: bool) -> None:
    inner = [a for a in blocks_tape(use_reentrant).allocations if a.size_bytes == INNER_BYTES]
    forward = [a for a in inner if a.phase is Phase.FORWARD]
    assert {a.part for a in forward} == {Part.TEMPORARIES}
    again = [a for a in inner if a.phase is Phase.BACKWARD and a.part is Part.ACTIVATIONS]
    assert [a.module for a in again] == [f"blocks.{n}.1" for n in (2, 1, 0)]


def test_backward_operators_belong_to_the_module_that_ran_forward(sgd_tape: Tape) -> None:
    gradients = [a for a in sgd_tape.allocations if a.part is Part.GRADIENTS and a.step == 0]
    assert [(a.size_bytes, a.module) for a in gradients] == [
        (5120, "3"), (40, "3"), (401_408, "1"), (512, "1"),
    ]  # fmt: skip


def test_buffers_count_with_the_parameters() -> None:
    with META:
        model = nn.BatchNorm2d(16)
    recorder = Recorder()
    recorder.adopt_module(model)
    # weight, bias, running mean and variance of 16 channels, and the count of batches
    assert total(recorder.tape(), Part.PARAMETERS) == 4 * 16 * 4 + 8


def test_tied_parameters_count_once() -> None:
    with META:
        model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
        model[1].weight = model[0].weight
    recorder = Recorder()
    recorder.adopt_module(model)
    assert total(recorder.tape(), Part.PARAMETERS) == 8 * 8 * 4


def test_an_operator_without_a_meta_kernel_is_listed() -> None:
    library = torch.library.Library("memfit_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: torch.cat([x, x]), "CPU")
    recorder = MetaRecorder()
    with recorder:
        y = torch.ops.memfit_test.twice(torch.empty(3, device="meta"))
    assert y.shape == (6,)
    assert y.is_meta
    assert list(recorder.unsupported) == ["memfit_test.twice.default"]
    assert [a.size_bytes for a in recorder.tape().allocations] == [12, 24]


def test_backward_is_seen_without_being_told() -> None:
    seen = []
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    y.register_hook(lambda _: seen.append(in_backward()))
    y.sum().backward()
    assert seen == [True]
    assert not in_backward()
