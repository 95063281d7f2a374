"""Recurrent layers as cuDNN runs them: one operator with a reserve kept for backward.

On CUDA ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` call ``_cudnn_rnn``
(``aten/src/ATen/native/cudnn/RNN.cpp``, torch 2.11 to 2.15) for the whole sequence; on meta
tensors PyTorch would unroll them step by step. What the call keeps: input, states, weights,
output, and a *reserve* of a size that only the library knows.

The reserve here is an estimate: what the gradient needs by the equations of the layer, for every
step, sample, layer and direction. For an LSTM that is four gates, the cell and the output, for a
GRU three gates, the recurrent half of the candidate and the output, for a plain RNN the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["RECURRENT_OPERATORS", "reserve_bytes", "run_recurrent"]

#: Values of one hidden unit kept for one step, by operator.
_KEPT_PER_UNIT = {"lstm.input": 6, "gru.input": 5, "rnn_tanh.input": 1, "rnn_relu.input": 1}
_GATES = {"lstm.input": 4, "gru.input": 3, "rnn_tanh.input": 1, "rnn_relu.input": 1}

RECURRENT_OPERATORS = tuple(_KEPT_PER_UNIT)


def reserve_bytes(
    operator: str,
    steps: int,
    batch: int,
    hidden_size: int,
    layers: int,
    directions: int,
    element_bytes: int,
    *,
    dropout: float = 0.0,
) -> int:
    """The reserve of one call, in bytes; with dropout a mask byte for each value between layers.

    >>> reserve_bytes("lstm.input", 10, 2, 8, 1, 1, 4)
    3840
    """
    units = steps * batch * hidden_size * directions
    masks = units * (layers - 1) if dropout > 0 else 0
    return units * layers * _KEPT_PER_UNIT[operator] * element_bytes + masks


class _CudnnRecurrent(torch.autograd.Function):
    """The outputs and gradients of ``_cudnn_rnn``, with nothing computed."""

    @staticmethod
    def forward(
        ctx: Any, reserve_size: int, output_shape: tuple[int, ...], states: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        source = tensors[0]
        output = source.new_empty(output_shape)
        final = [torch.empty_like(state) for state in tensors[1 : 1 + states]]
        reserve = source.new_empty(reserve_size, dtype=torch.uint8)
        ctx.states = states
        ctx.save_for_backward(*tensors, output, reserve)
        return (output, *final)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> tuple[Any, ...]:
        *tensors, _output, _reserve = ctx.saved_tensors
        inputs, weights = tensors[: 1 + ctx.states], tensors[1 + ctx.states :]
        flat = weights[0].new_empty(sum(weight.numel() for weight in weights))
        gradients = [torch.empty_like(tensor) for tensor in inputs]
        for weight, piece in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            gradients.append(piece.view(weight.shape))
        return (None, None, None, *gradients)


def run_recurrent(
    operator: str,
    input: Tensor,
    hidden: Sequence[Tensor] | Tensor,
    parameters: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...] | None:
    """The outputs of a recurrent layer; None where cuDNN would not run it as one call.

    Args:
        operator: such as ``"lstm.input"``.
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
    states = list(hidden) if isinstance(hidden, (list, tuple)) else [hidden]
    directions = 2 if bidirectional else 1
    is_projected = len(parameters) != layers * directions * (4 if has_biases else 2)
    if is_projected or input.dim() != 3:
        return None
    first, second, _ = input.shape
    batch, steps = (first, second) if batch_first else (second, first)
    hidden_size = parameters[0].shape[0] // _GATES[operator]
    reserve = reserve_bytes(
        operator, steps, batch, hidden_size, layers, directions, input.element_size(),
        dropout=dropout if train else 0.0,
    )  # fmt: skip
    shape = (first, second, hidden_size * directions)
    results = _CudnnRecurrent.apply(reserve, shape, len(states), input, *states, *parameters)
    return tuple(results)  # type: ignore[arg-type, unused-ignore]
