"""The loops that people write run on the virtual GPU and take what PyTorch itself would take."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from usual_loops import LOOPS, batch, mlp

from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import NoStubs, NothingRecorded
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Part, Phase
from memfit.scripts.process import on_card

CARD = find_gpu("rtx-3090")
#: Loops in which values decide sizes: without values PyTorch does something else.
BY_VALUE = ("lengths", "quasi_newton")
STEPS = {"evaluated": 8, "by_hand": 2, "without_modules": 2}  # the last one is not closed by hand


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_runs_to_its_end(name: str) -> None:
    with VirtualGPU(CARD) as gpu:
        LOOPS[name]()
    assert gpu.recorder.step == STEPS.get(name, 3)
    assert gpu.fits
    assert not torch.cuda.is_initialized()


@pytest.mark.parametrize("name", [name for name in LOOPS if name not in BY_VALUE])
def test_a_loop_allocates_what_pytorch_itself_does(name: str) -> None:
    try:
        environment = os.environ | dict(on_card(CARD))
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")
    program = Path(__file__).with_name("usual_loops.py")
    words = [sys.executable, "-O", str(program), name]
    output = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    with VirtualGPU(CARD) as gpu:
        LOOPS[name]()
    expected = int(output.stdout.split()[-1])
    assert gpu.timeline.peak_allocated_bytes == pytest.approx(expected, rel=1e-3)


def test_the_history_of_lbfgs_is_counted() -> None:
    """Four iterations a step, of which the first of all has nothing to look back to."""
    with VirtualGPU(CARD) as gpu:
        LOOPS["quasi_newton"]()
    live = gpu.timeline.live_at(gpu.timeline.peak.position)
    size = sum(p.numel() for p in mlp().parameters()) * 4
    changes = [n for n in live if gpu.tape.allocations[n].operator == "aten.sub.Tensor"]
    assert {gpu.tape.allocations[n].size_bytes for n in changes} == {size}
    assert len(changes) == 3 + 4 + 3


# -- values ----------------------------------------------------------------------------------------


def test_values_that_are_known() -> None:
    with VirtualGPU() as gpu:
        lengths = torch.tensor([3, 9, 4]).cuda()
        assert lengths.max().item() == 9
        assert (lengths * 2 + torch.ones(3, dtype=torch.long, device="cuda")).tolist() == [7, 19, 9]
        assert lengths[1:].cpu().numpy().tolist() == [9, 4]
        assert torch.equal(lengths, lengths.clone())
        lengths[0] = 5
        assert lengths.float().mean().item() == 6
        assert f"{lengths.sum()}" == "18"
        assert lengths[lengths > 4].shape == (2,)
        assert torch.masked_select(lengths, lengths > 4).tolist() == [5, 9]
        assert torch.where(lengths == 9)[0].item() == 1
        weight = nn.Parameter(torch.full((2,), 0.25).cuda())
        assert weight.detach().sum().item() == 0.5
        weight.detach().zero_()
        assert weight.tolist() == [0, 0]
    assert gpu.made_up == ()


def test_what_is_made_up_is_known_with_its_line() -> None:
    with VirtualGPU() as gpu:
        loss = F.cross_entropy(mlp().cuda()(batch()[0].cuda()), batch()[1].cuda())
        line = sys._getframe().f_lineno + 1
        losses = [loss.item() for _ in range(3)]
        assert not torch.isnan(loss)
    assert losses == sorted(losses, reverse=True)
    assert 0 < losses[-1] < losses[0] <= 1
    first, second = gpu.made_up
    assert first.place.endswith(f"test_usual_loops.py:{line}")
    assert (first.value, first.times) == ("1.0", 3)
    assert second.place.endswith(f"test_usual_loops.py:{line + 1}")
    assert second.value == "False"


def test_what_an_operator_overwrote_is_known_no_more() -> None:
    with VirtualGPU() as gpu:
        total = torch.zeros(1, device="cuda")
        assert total.item() == 0
        assert gpu.made_up == ()
        total += torch.rand(1, device="cuda")
        total.item()
    assert len(gpu.made_up) == 1


def test_random_numbers_are_made_up_and_none_are_drawn() -> None:
    state = torch.get_rng_state()
    with VirtualGPU() as gpu:
        torch.randint(10, (3,), device="cuda").tolist()
    assert len(gpu.made_up) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_tensors_of_the_cpu_have_their_own_values() -> None:
    """Also during an optimizer's step, where norms on the GPU are made up."""

    class Asks(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append(torch.tensor(3.5).item())
            lists = [torch.ones(2), torch.ones(3)]
            torch._foreach_add_(lists, 2.0)
            seen.append(sum(float(tensor.sum()) for tensor in lists))
            return super().step(closure)

    seen: list[float] = []
    with VirtualGPU() as gpu:
        model = mlp().cuda()
        optimizer = Asks(model.parameters(), lr=0.1)
        model(batch()[0].cuda()).sum().backward()
        optimizer.step()
    assert seen == [3.5, 15.0]
    assert gpu.made_up == ()


def test_inference_counts_what_no_grad_does() -> None:
    def peak(mode: Any) -> int:
        with VirtualGPU() as gpu:
            model = mlp().cuda()
            with mode():
                model(batch()[0].cuda()).argmax(1).sum().item()
        return gpu.timeline.peak_allocated_bytes

    assert peak(torch.inference_mode) == peak(torch.no_grad)


# -- what is not a loop ----------------------------------------------------------------------------


def test_nothing_recorded_is_an_error() -> None:
    with VirtualGPU() as gpu:
        mlp()(batch()[0]).sum().backward()
    with pytest.raises(NothingRecorded, match="all on the CPU"):
        _ = gpu.fits
    with pytest.raises(NothingRecorded, match="Nothing was recorded"):
        _ = gpu.timeline


def test_the_card_is_the_one_that_is_played() -> None:
    with VirtualGPU("rtx-3060"):
        assert torch.cuda.is_available()
        assert torch.accelerator.is_available()
        assert torch.cuda.device_count() == 1
        assert torch.cuda.current_device() == 0
        assert torch.cuda.get_device_name(0) == find_gpu("rtx-3060").name
        properties = torch.cuda.get_device_properties("cuda")
        assert properties.total_memory == find_gpu("rtx-3060").total_bytes
        assert torch.cuda.get_device_capability() == (8, 6)
        assert torch.accelerator.current_accelerator() == torch.device("cuda")


def test_statistics_follow_the_allocator() -> None:
    with VirtualGPU() as gpu:
        assert torch.cuda.memory_allocated() == 0
        x = torch.empty(1 << 20, device="cuda")
        y = torch.empty(3 << 20, device="cuda")
        assert torch.cuda.memory_allocated() == 16 << 20
        del y
        assert torch.cuda.memory_allocated() == 4 << 20
        assert torch.cuda.max_memory_allocated() == 16 << 20
        reserved = torch.cuda.memory_reserved()
        assert reserved == gpu.timeline.peak_reserved_bytes
        free, total = torch.cuda.mem_get_info()
        assert free == gpu.gpu.capacity_bytes - reserved < total
        torch.cuda.reset_peak_memory_stats()
        assert torch.cuda.max_memory_allocated() == 4 << 20
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == reserved
        del x
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == torch.cuda.memory_allocated() == 0


def test_another_thread_sees_no_gpu() -> None:
    seen = []

    def look() -> None:
        seen.append((torch.cuda.is_available(), torch.ones(2).device.type))

    is_available = torch.cuda.is_available()
    with VirtualGPU():
        assert torch.cuda.is_available()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [(is_available, "cpu")]


def test_devices_are_found_inside_backward() -> None:
    """A custom function makes tensors where its gradient is, and a checkpoint runs again."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            assert gradient.is_cuda
            return gradient * torch.full((1,), 2.0, device=gradient.device)

    with VirtualGPU() as gpu:
        x = torch.ones(4, device="cuda", requires_grad=True)
        Twice.apply(x).sum().backward()
    assert x.grad is not None
    assert any(a.phase is Phase.BACKWARD for a in gpu.tape.allocations)


def test_a_model_that_moves_late_keeps_its_parameters() -> None:
    model = mlp()
    before = list(model.parameters())
    with VirtualGPU() as gpu:
        model.cuda()
        assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert sum(a.size_bytes for a in gpu.tape.allocations) == 4 * sum(p.numel() for p in before)


def test_steps_by_hand_are_steps_and_micro_batches_are_not() -> None:
    def steps(*, optimizer: bool) -> list[int]:
        with VirtualGPU() as gpu:
            model = mlp().cuda()
            if optimizer:
                torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                model(batch()[0].cuda()).sum().backward()
        return sorted({a.step for a in gpu.tape.allocations if a.phase is Phase.BACKWARD})

    assert steps(optimizer=False) == [0, 1, 2]
    assert steps(optimizer=True) == [0]


def test_a_share_of_the_card_is_that_of_the_plan() -> None:
    half = AllocatorSettings.parse("per_process_memory_fraction:0.5")
    card = find_gpu("rtx-3060").with_free_bytes(8 << 30)

    def fits(size_bytes: int) -> bool:
        with VirtualGPU(card, settings=half) as gpu:
            torch.empty(size_bytes, dtype=torch.uint8, device="cuda")
        return gpu.fits

    share = card.total_bytes // 2
    assert fits(share - (4 << 20))
    assert not fits(share + (4 << 20))


def test_parts_of_a_usual_loop() -> None:
    with VirtualGPU(CARD) as gpu:
        LOOPS["moved_late"]()
    size = 4 * sum(p.numel() for p in mlp().parameters())
    most = gpu.timeline.parts_most
    assert (most[Part.PARAMETERS], most[Part.GRADIENTS]) == (size, size)
    assert most[Part.OPTIMIZER] == 2 * size
    assert most[Part.BATCH] == 2 * (64 * 784 * 4 + 64 * 8)


def test_a_share_of_the_memory_is_heeded() -> None:
    with VirtualGPU(CARD) as gpu:
        torch.cuda.set_per_process_memory_fraction(0.0001)
        LOOPS[next(iter(LOOPS))]()
        assert torch.cuda.get_per_process_memory_fraction() == 0.0001
    assert not gpu.fits


def test_an_event_of_a_stream_has_a_time() -> None:
    with VirtualGPU(CARD) as gpu:
        begin = torch.cuda.current_stream().record_event()
        assert begin.elapsed_time(torch.cuda.Event(enable_timing=True)) == 1.0
    assert [row.value for row in gpu.made_up] == ["1.0"]
