"""What a recurrent layer allocates inside cuDNN's calls: copies, weights in one piece, workspaces.

Source: ``_cudnn_rnn``, ``_cudnn_rnn_backward_input`` and ``_cudnn_rnn_backward_weight`` in
``aten/src/ATen/native/cudnn/RNN.cpp`` (torch 2.15).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from memfit.memory.kernels.cudnn.recurrent import RecurrentProblem, recurrent_workspace_bytes
from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.rules import (
    Arguments,
    Outputs,
    Rule,
    argument,
    integer_argument,
    tensor_argument,
    tensors_in,
)
from memfit.memory.kernels.scope import Copy, Result, Scope

__all__ = ["RECURRENT_RULES"]

#: Where ``mode`` stands; from there on forward and backward take the same arguments.
_OF_FORWARD, _OF_BACKWARD = 6, 10


def _in_steps(tensor: TensorFacts, is_batch_first: bool) -> TensorFacts:
    """``(steps, batch, values)``, as cuDNN reads it."""
    if not is_batch_first:
        return tensor
    (n, t, *shape), (by_n, by_t, *strides) = tensor.shape, tensor.strides
    return replace(tensor, shape=(t, n, *shape), strides=(by_t, by_n, *strides))


def _problem(input: TensorFacts, options: Arguments) -> RecurrentProblem:
    """``options`` begin with the mode; ``input`` is in steps."""
    hidden, projected = integer_argument(options, 1), integer_argument(options, 2)
    return RecurrentProblem(
        mode=integer_argument(options, 0),
        steps=input.shape[0],
        batch=input.shape[1],
        input_size=input.shape[2],
        hidden_size=hidden,
        output_size=projected or hidden,
        layers=integer_argument(options, 3),
        is_bidirectional=bool(options[7]),
        has_dropout=bool(options[5]) and bool(options[6]),
        dtype=input.dtype,
    )


def _forward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    options = arguments[_OF_FORWARD:]
    input = _in_steps(tensor_argument(arguments, 0), bool(options[4]))
    workspace = recurrent_workspace_bytes(_problem(input, options))
    made = Result(0), Result(1), Result(2), Result(4)
    return (Copy(input.copy_bytes()), *made, workspace, Result(3))


def _backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """Gradients of what nobody uses are zeros; the gradients of all weights are one block.

    Without biases the parameters are fewer than in cuDNN's block, and get copies of their parts.
    """
    options = arguments[_OF_BACKWARD:]
    is_batch_first = bool(options[4])
    input = _in_steps(tensor_argument(arguments, 0), is_batch_first)
    states = tensors_in([arguments[4], arguments[5]])
    zeros = [
        like.size_bytes
        for like, given in zip(
            (tensor_argument(arguments, 6), *states), arguments[7:_OF_BACKWARD], strict=False
        )
        if not isinstance(given, TensorFacts)
    ]
    copies = [
        Copy(_in_steps(gradient, is_batch_first).copy_bytes())
        for gradient in tensors_in([arguments[7]])
    ]
    copied = Copy(input.copy_bytes())
    workspace = recurrent_workspace_bytes(_problem(input, options))
    of_input: Scope = (copied, *copies, Result(0), Result(1), Result(2), workspace)
    if not bool(argument(_wanted(arguments), 3, True)):
        return (*zeros, of_input)
    has_biases = integer_argument(arguments, 2) >= 4
    block = prod(tensor_argument(arguments, 3).shape) * input.dtype_bytes
    of_weights: Scope = (Result(3), workspace) if has_biases else (block, workspace, Result(3))
    return (*zeros, of_input, (copied, *of_weights))


def _wanted(arguments: Arguments) -> Arguments:
    mask = arguments[-1]
    return mask if isinstance(mask, tuple) else ()


RECURRENT_RULES: dict[str, Rule] = {
    "aten._cudnn_rnn.default": _forward,
    "aten._cudnn_rnn_backward.default": _backward,
}
"""Overload name to rule."""
