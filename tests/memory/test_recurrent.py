"""Recurrent layers on the virtual GPU: one operator, one reserve."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memfit.memory.cuda.recurrent import reserve_bytes
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Allocation, Part


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
    return [a for a in gpu.tape.allocations if a.dtype == "uint8"]


@pytest.mark.parametrize(("kind", "kept"), [(nn.LSTM, 4 + 1 + 1), (nn.GRU, 3 + 1 + 1), (nn.RNN, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_reserve_is_kept_for_backward(
    kind: type[nn.RNNBase], kept: int, bidirectional: bool
) -> None:
    (reserve,) = reserves(kind(7, 8, num_layers=2, bidirectional=bidirectional))
    assert reserve.part is Part.ACTIVATIONS
    assert reserve.size_bytes == 5 * 3 * 8 * 2 * kept * 4 * (2 if bidirectional else 1)


def test_autocast_halves_it() -> None:
    (whole,), (half,) = reserves(nn.LSTM(7, 8)), reserves(nn.LSTM(7, 8), half=True)
    assert half.size_bytes * 2 == whole.size_bytes


def test_dropout_adds_masks_between_layers() -> None:
    plain = reserve_bytes("lstm.input", 5, 3, 8, 2, 1, 4)
    assert reserve_bytes("lstm.input", 5, 3, 8, 2, 1, 4, dropout=0.5) == plain + 5 * 3 * 8


def test_batch_first_is_the_other_way_round() -> None:
    with VirtualGPU("rtx-3060") as gpu:
        layer = nn.GRU(7, 8, batch_first=True, device=gpu.device)
        output, state = layer(torch.empty(3, 5, 7, device=gpu.device))
        assert output.shape == (3, 5, 8)
        assert state.shape == (1, 3, 8)


def test_projections_are_left_to_torch() -> None:
    with VirtualGPU("rtx-3060") as gpu:
        layer = nn.LSTM(7, 8, proj_size=4, device=gpu.device)
        output, _ = layer(torch.empty(5, 3, 7, device=gpu.device))
        assert output.shape == (5, 3, 4)
