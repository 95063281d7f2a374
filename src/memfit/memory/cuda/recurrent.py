"""Recurrent layers as cuDNN runs them: one operator with a reserve kept for backward.

On CUDA ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` call ``_cudnn_rnn``
(``aten/src/ATen/native/cudnn/RNN.cpp``, torch 2.11 to 2.15) for the whole sequence; on meta
tensors PyTorch would unroll them step by step. Their weights lie in one piece of memory, where the
module's move to the GPU puts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from memfit.memory.cuda import autocast
from memfit.memory.cuda.autocast import CastCache
from memfit.torch_inside import flat_weights, storage_key

__all__ = [
    "RECURRENT_KERNELS", "RECURRENT_OPERATORS", "flatten_weights", "reserve_bytes",
    "run_recurrent", "separate_weights",
]  # fmt: skip

aten = torch.ops.aten

#: cuDNN's number of the cell, gates, and values of a unit kept for one step, which lie apart.
_CELLS = {
    "rnn_relu.input": (0, 1, (1,)),
    "rnn_tanh.input": (1, 1, (1,)),
    "lstm.input": (2, 4, (4, 1)),
    "gru.input": (3, 3, (6,)),
}
RECURRENT_OPERATORS = tuple(_CELLS)
_KEPT = {mode: kept for mode, _, kept in _CELLS.values()}
_ALIGNMENT_BYTES = 32


def reserve_bytes(
    mode: int,
    steps: int,
    batch: int,
    hidden_size: int,
    layers: int,
    directions: int,
    element_bytes: int,
    *,
    dropout: float = 0.0,
    output_size: int | None = None,
) -> int:
    """What one call keeps for backward.

    For each unit and step an LSTM keeps four gates and its cell, a GRU six values, a plain cell its
    output; the outputs between layers are kept, too, with one bit each under dropout. Found by
    asking cuDNN 9.26 (``tests/memory/test_recurrent.py`` asks again), and what a P100 reported for
    four layers: 23 values a unit for an LSTM, 27 for a GRU (PyTorch issue 2895).

    Args:
        mode: cuDNN's number of the cell.
        steps: length of the sequences.
        batch: how many.
        hidden_size: units.
        layers: number of layers.
        directions: 2 if bidirectional.
        element_bytes: of one value.
        dropout: between layers.
        output_size: after a projection.

    >>> reserve_bytes(2, 10, 2, 8, 1, 1, 4)
    3456
    """
    rows = steps * batch * directions
    units, outputs = rows * hidden_size, rows * (output_size or hidden_size)
    kept = [units * layers * each * element_bytes for each in _KEPT[mode]]
    if outputs != units:  # both sides of the projection
        kept += [units * layers * element_bytes, outputs * layers * element_bytes]
    between = units * (layers - 1) * element_bytes
    masks = (layers - 1) * directions * _aligned(-(-outputs // 8)) if dropout > 0 else 0
    return 256 + sum(map(_aligned, [*kept, between])) + masks


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


# -- weights in one piece --------------------------------------------------------------------------


def _numel(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def _put(buffer: Tensor, weights: Iterable[Tensor]) -> list[Tensor]:
    """Where each weight is in a buffer: tensors over its memory that are no views of it."""
    pieces, offset = [], 0
    for weight in weights:
        piece = torch.empty(0, dtype=buffer.dtype, device=buffer.device)
        with torch.no_grad():
            piece.set_(buffer.untyped_storage(), offset, weight.shape, _strides(weight.shape))
        pieces.append(piece)
        offset += weight.numel()
    return pieces


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(shape[n + 1 :]) for n in range(len(shape)))


def flatten_weights(layer: nn.RNNBase) -> None:
    """Put the weights of a layer on the virtual GPU into one piece, as its move there does.

    Source: ``RNNBase.flatten_parameters``; cuDNN's types are float16, float32 and float64.
    """
    weights = flat_weights(layer)
    first = weights[0]
    if not first.is_meta or first.dtype is torch.bfloat16:
        return
    biases = 0 if layer.bias else _bias_numel(layer)
    buffer = first.new_empty(_numel(weights) + biases)
    with torch.no_grad():
        for weight, piece in zip(weights, _put(buffer, weights), strict=True):
            weight.set_(piece)  # type: ignore[call-overload, unused-ignore]


def _bias_numel(layer: nn.RNNBase) -> int:
    """Room that the block of cuDNN has for the biases of a layer that has none."""
    weights = flat_weights(layer)
    per_direction = 3 if layer.proj_size else 2
    return 2 * sum(weight.shape[0] for weight in weights[::per_direction])


def separate_weights(layer: nn.RNNBase) -> None:
    """Give each weight memory of its own, as before its move to the GPU."""
    for weight in flat_weights(layer):
        if weight.is_meta:
            with torch.no_grad():
                weight.set_(torch.empty_like(weight))  # type: ignore[call-overload, unused-ignore]


def _flat(weights: Sequence[Tensor]) -> Tensor | None:
    """The one piece of memory that they share; None where they do not."""
    storage = weights[0].untyped_storage()
    if len(set(map(storage_key, weights))) > 1:
        return None
    whole = torch.empty(0, dtype=weights[0].dtype, device=weights[0].device)
    size = storage.nbytes() // weights[0].element_size()
    return None if size < _numel(weights) else whole.set_(storage, 0, (size,), (1,))


# -- the calls -------------------------------------------------------------------------------------


def run_recurrent(
    operator: str,
    casts: CastCache,
    input: Tensor,
    hidden: Sequence[Tensor] | Tensor,
    parameters: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """The outputs of a recurrent layer, as one call of cuDNN.

    Args:
        operator: such as ``"lstm.input"``.
        casts: what autocast has cast already.
        input: ``(T, N, features)``, or ``(N, T, features)`` with ``batch_first``.
        hidden: states ``(layers * directions, N, hidden)``; LSTMs have two.
        parameters: weights and biases by layer and direction.
        has_biases: whether there are two biases for each.
        layers: number of layers.
        dropout: between layers.
        train: whether dropout is on.
        bidirectional: two directions.
        batch_first: layout of input and output.
    """
    states = [hidden] if isinstance(hidden, Tensor) else list(hidden)
    weights, whole = list(parameters), _flat(parameters)
    if autocast.is_enabled():
        weights, whole = _cast_weights(weights, whole)
        states = [casts.cast(state, torch.float16) for state in reversed(states)][::-1]
        input = casts.cast(input, torch.float16)
    hx, cx = states[0], states[1] if len(states) > 1 else None
    hidden_size, projected = hx.shape[2], 0
    if cx is not None and cx.shape[2] != hx.shape[2]:
        hidden_size, projected = cx.shape[2], hx.shape[2]
    per_direction = (4 if has_biases else 2) + (projected > 0)
    output, hy, cy, _, _ = aten._cudnn_rnn.default(
        input, weights, per_direction, whole, hx, cx, _CELLS[operator][0], hidden_size, projected,
        layers, batch_first, dropout, train, bidirectional, [], None,
    )  # fmt: skip
    return (output, hy) if cx is None else (output, hy, cy)


def _cast_weights(
    weights: list[Tensor], whole: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    """Weights of float32 in one piece of float16, made at each call.

    Source: ``_cudnn_rnn_cast_reflatten`` in ``aten/src/ATen/cudnn/AutocastRNN.cpp`` (2.15), which
    knows no bfloat16.
    """
    if weights[0].dtype is not torch.float32:
        return weights, whole
    whole = torch.empty(
        _numel(weights) if whole is None else whole.numel(),
        dtype=torch.float16, device=weights[0].device,
    )  # fmt: skip
    pieces = [
        piece.copy_(weight) for weight, piece in zip(weights, _put(whole, weights), strict=True)
    ]
    return pieces, whole


def _cudnn_rnn(
    input: Tensor,
    weight: Sequence[Tensor],
    weight_stride0: int,
    weight_buf: Tensor | None,
    hx: Tensor,
    cx: Tensor | None,
    mode: int,
    hidden_size: int,
    proj_size: int,
    num_layers: int,
    batch_first: bool,
    dropout: float,
    train: bool,
    bidirectional: bool,
    *_: Any,
) -> tuple[Tensor, ...]:
    batch, steps = (0, 1) if batch_first else (1, 0)
    directions, width = 2 if bidirectional else 1, proj_size or hidden_size
    output = input.new_empty(input.shape[steps], input.shape[batch], width * directions)
    reserve = reserve_bytes(
        mode, input.shape[steps], input.shape[batch], hidden_size, num_layers, directions,
        input.element_size(), dropout=dropout, output_size=width,
    )  # fmt: skip
    missing = 0 if weight_stride0 >= 4 else 2 * sum(w.shape[0] for w in weight[::weight_stride0])
    return (
        output.transpose(0, 1) if batch_first else output,
        torch.empty_like(hx),
        input.new_empty(0) if cx is None else torch.empty_like(cx),
        input.new_empty(reserve if train else 0, dtype=torch.uint8),
        input.new_empty(_numel(weight) + missing) if weight_buf is None else weight_buf,
    )


def _cudnn_rnn_backward(
    input: Tensor,
    weight: Sequence[Tensor],
    weight_stride0: int,
    weight_buf: Tensor,
    hx: Tensor,
    cx: Tensor | None,
    *options: Any,
) -> tuple[Any, ...]:
    batch_first, wants = options[8], options[-1]
    gradient = torch.empty_like(
        input.transpose(0, 1) if batch_first else input, memory_format=torch.contiguous_format
    )
    pieces = (
        _put(torch.empty_like(weight_buf), weight)
        if weight_stride0 >= 4
        else [torch.empty_like(each) for each in weight]
    )
    return (
        gradient.transpose(0, 1) if batch_first else gradient,
        torch.empty_like(hx),
        input.new_empty(0) if cx is None else torch.empty_like(cx),
        pieces if wants[3] else [],
    )


RECURRENT_KERNELS = {
    aten._cudnn_rnn.default: _cudnn_rnn,
    aten._cudnn_rnn_backward.default: _cudnn_rnn_backward,
}
"""Overload to what it returns on CUDA."""
