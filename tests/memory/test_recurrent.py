"""Recurrent layers on the virtual GPU: one operator, one reserve, weights in one piece."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from memfit.memory.cuda.recurrent import reserve_bytes
from memfit.memory.kernels.cudnn.recurrent import RecurrentProblem, ask_recurrent_sizes
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Allocation, Part
from memfit.torch_inside import storage_key

LSTM, GRU, TANH = 2, 3, 1


def reserves(layer: nn.Module, half: bool = False) -> list[Allocation]:
    with VirtualGPU("rtx-3060") as gpu:
        layer.to(gpu.device)
        with torch.autocast("cuda", dtype=torch.float16, enabled=half):
            output, _ = layer(torch.empty(5, 3, 7, device=gpu.device))
        assert output.shape == (5, 3, 8 * (2 if layer.bidirectional else 1))
        assert output.dtype == (torch.float16 if half else torch.float32)
        output.float().sum().backward()
        for parameter in layer.parameters():
            assert parameter.grad is not None
            assert parameter.grad.shape == parameter.shape
            assert parameter.grad.dtype == torch.float32
    made = [a for a in gpu.tape.allocations if a.operator == "aten._cudnn_rnn.default"]
    return [a for a in made if a.dtype == "uint8"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_reserve_is_kept_for_backward(kind: type[nn.RNNBase], bidirectional: bool) -> None:
    (reserve,) = reserves(kind(7, 8, num_layers=2, bidirectional=bidirectional))
    mode = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: TANH}[kind]
    assert reserve.part is Part.ACTIVATIONS
    assert reserve.size_bytes == reserve_bytes(mode, 5, 3, 8, 2, 1 + bidirectional, 4)


def test_what_a_p100_reported() -> None:
    """PyTorch issue 2895: four layers; both figures are from one size of the input."""
    assert reserve_bytes(LSTM, 100, 400, 200, 4, 1, 4) == 736_000_000 + 256
    assert reserve_bytes(GRU, 100, 400, 200, 4, 1, 4) == 864_000_000 + 256


CASES = list(
    itertools.product(
        (0, TANH, LSTM, GRU), (1, 3), (False, True), (False, True), ("float32", "float16"), (0, 5)
    )
)


@pytest.mark.parametrize(("mode", "layers", "is_twice", "drops", "dtype", "projected"), CASES)
def test_the_reserve_is_what_cudnn_says(
    mode: int, layers: int, is_twice: bool, drops: bool, dtype: str, projected: int
) -> None:
    if projected and mode != LSTM:
        pytest.skip("projections are of LSTMs")
    hidden, steps, batch = 37, 7, 3
    width = projected or hidden
    asked = RecurrentProblem(mode, steps, batch, 11, hidden, width, layers, is_twice, drops, dtype)
    sizes = ask_recurrent_sizes(asked)
    if sizes is None:
        pytest.skip("no cuDNN answers here")
    said = reserve_bytes(
        mode, steps, batch, hidden, layers, 1 + is_twice, 4 if dtype == "float32" else 2,
        dropout=0.5 * drops, output_size=width,
    )  # fmt: skip
    assert said == sizes[1]


def test_autocast_keeps_half() -> None:
    (whole,), (half,) = reserves(nn.LSTM(7, 8)), reserves(nn.LSTM(7, 8), half=True)
    assert whole.size_bytes == reserve_bytes(LSTM, 5, 3, 8, 1, 1, 4)
    assert half.size_bytes == reserve_bytes(LSTM, 5, 3, 8, 1, 1, 2)


def test_weights_lie_in_one_piece_after_the_move() -> None:
    with VirtualGPU("rtx-3060") as gpu:
        layer = nn.LSTM(7, 8, num_layers=2).cuda()
        assert len({storage_key(weight) for weight in layer.parameters()}) == 1
        layer(torch.empty(5, 3, 7, device=gpu.device))
        live = [n for n, _ in enumerate(gpu.tape.allocations) if ~n not in gpu.tape.events]
    total = sum(4 * weight.numel() for weight in layer.parameters())
    weights = [a for a in map(gpu.tape.allocations.__getitem__, live) if a.part is Part.PARAMETERS]
    assert [weight.size_bytes for weight in weights] == [total]


def test_a_second_trace_of_a_model_is_like_the_first() -> None:
    layer = nn.LSTM(7, 8, device="meta")

    def sizes() -> list[int]:
        with VirtualGPU("rtx-3060") as gpu:
            gpu.adopt(layer)
            layer(torch.empty(5, 3, 7, device=gpu.device))[0].sum().backward()
            layer.zero_grad()
        return [allocation.size_bytes for allocation in gpu.tape.allocations]

    assert sizes() == sizes()


def test_batch_first_is_the_other_way_round() -> None:
    with VirtualGPU("rtx-3060") as gpu:
        layer = nn.GRU(7, 8, batch_first=True, device=gpu.device)
        output, state = layer(torch.empty(3, 5, 7, device=gpu.device))
        assert output.shape == (3, 5, 8)
        assert state.shape == (1, 3, 8)


def test_projections_narrow_the_output() -> None:
    with VirtualGPU("rtx-3060") as gpu:
        layer = nn.LSTM(7, 8, proj_size=4, device=gpu.device)
        output, (state, cell) = layer(torch.empty(5, 3, 7, device=gpu.device))
        assert output.shape == (5, 3, 4)
        assert state.shape == (1, 3, 4)
        assert cell.shape == (1, 3, 8)
