"""Outputs of operators as their CUDA kernels allocate them, where meta kernels differ.

These run below autograd, in place of the meta kernel. Two reasons: PyTorch's meta kernels give
``convolution`` a contiguous output where CUDA keeps channels-last, and its normalisations are
Python decompositions that take most of the time of a trace to return the same empty tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from memfit.memory.cuda.recurrent import RECURRENT_KERNELS
from memfit.memory.kernels.convolution_temporaries import output_is_channels_last
from memfit.memory.kernels.transients import tensor_facts

__all__ = ["CUDA_KERNELS"]

aten = torch.ops.aten


def _convolution(*args: Any) -> Tensor:
    """Channels-last when input or weight is (``Convolution.cpp``, ``ConvShared.cpp``; 2.15)."""
    output: Tensor = aten.convolution.default(*args)
    return _laid_out(output, args[0], args[1], transposed=args[6], groups=args[8])


def _convolution_backward(*args: Any) -> tuple[Tensor | None, ...]:
    gradients = aten.convolution_backward.default(*args)
    return tuple(
        None
        if gradient is None
        else _laid_out(gradient, args[1], args[2], transposed=args[7], groups=args[9])
        for gradient in gradients
    )


def _laid_out(
    output: Tensor, input: Tensor, weight: Tensor, *, transposed: bool, groups: int
) -> Tensor:
    if output.dim() not in (4, 5):
        return output
    if output_is_channels_last(tensor_facts(input), tensor_facts(weight), groups, transposed):
        last = torch.channels_last if output.dim() == 4 else torch.channels_last_3d
        return _new(output, memory_format=last)
    return _new(output)


def _new(tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """As ``empty_like``, whose meta kernel is a slow Python function."""
    return torch.empty(
        tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=memory_format
    )


def _like(tensor: Tensor) -> Tensor:
    """The same, with the tensor's own layout."""
    return _new(tensor) if tensor.is_contiguous() else torch.empty_like(tensor)


def _statistics_dtype(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output like the input ``(N, C, …)``; mean and inverse deviation ``(C,)`` in float32.

    Source: ``batch_norm_cuda`` in ``native/cuda/Normalization.cu`` and ``cudnn_batch_norm`` in
    ``native/cudnn/BatchNorm.cpp`` (2.15).
    """
    size = input.shape[1] if training else 0
    mean = torch.empty(size, dtype=_statistics_dtype(input), device=input.device)
    return _like(input), mean, _like(mean)


def _batch_norm_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    dtype = weight.dtype if weight is not None else _statistics_dtype(input)
    parameter = torch.empty(input.shape[1], dtype=dtype, device=input.device)
    made = (_like(input), parameter, _like(parameter))
    return tuple(t if wanted else None for t, wanted in zip(made, output_mask, strict=True))


def _layer_norm(input: Tensor, normalized_shape: Sequence[int], *_: Any) -> tuple[Tensor, ...]:
    """Output contiguous; mean and rstd ``(…, 1)`` in float32.

    Source: ``layer_norm_cuda`` in ``native/cuda/layer_norm_kernel.cu`` (2.15).
    """
    rank = len(normalized_shape)
    shape = (*input.shape[: input.dim() - rank], *(1 for _ in range(rank)))
    mean = input.new_empty(shape, dtype=_statistics_dtype(input))
    output = torch.empty_like(input, memory_format=torch.contiguous_format)
    return output, mean, torch.empty_like(mean)


def _layer_norm_backward(
    grad_out: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    return (
        torch.empty_like(input, memory_format=torch.contiguous_format) if output_mask[0] else None,
        torch.empty_like(weight) if weight is not None and output_mask[1] else None,
        torch.empty_like(bias) if bias is not None and output_mask[2] else None,
    )


def _threshold_backward(grad_output: Tensor, input: Tensor, threshold: float) -> Tensor:
    """Laid out as its inputs where they are alike (``TensorIterator``, 2.15)."""
    if grad_output.dtype == input.dtype and grad_output.stride() == input.stride():
        return _like(grad_output)
    output: Tensor = aten.threshold_backward.default(grad_output, input, threshold)
    return output


def _col2im(input: Tensor, *sizes: Any) -> Tensor:
    """Made like the input, then resized, which never gives memory back (``Col2Im.cu``, 2.15)."""
    output: Tensor = aten.col2im.default(input, *sizes)
    if output.numel() >= input.numel():
        return output
    return input.new_empty(input.numel()).as_strided(output.shape, output.stride())


def _loss_in_full(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A mean or sum in memory for every element: made for those, then resized, never given back.

    Source: ``TORCH_META_FUNC(mse_loss)`` and ``smooth_l1_loss`` in ``native/BinaryOps.cpp``,
    ``binary_cross_entropy_cuda`` in ``native/cuda/Loss.cu`` (2.15).
    """

    def loss(input: Tensor, *args: Any) -> Tensor:
        output = kernel(input, *args)
        if output.numel() >= input.numel():
            return output
        return output.new_empty(input.numel()).as_strided(output.shape, output.stride())

    return loss


def _ctc_loss(log_probs: Tensor, targets: Tensor, *lengths: Any, **_: Any) -> tuple[Tensor, Tensor]:
    """Losses ``(N,)`` and alpha ``(N, T, 2 S + 1)`` for ``(T, N, classes)`` and targets ``(N, S)``.

    Source: ``ctc_loss_gpu_template`` in ``native/cuda/LossCTC.cu`` (2.15).
    """
    time, batch = log_probs.shape[:2]
    longest = targets.shape[1] if targets.dim() == 2 else max(int(n) for n in lengths[1])
    alpha = log_probs.new_empty((batch, time, 2 * longest + 1))
    return log_probs.new_empty((batch,)), alpha


def _ctc_loss_backward(_grad: Tensor, log_probs: Tensor, *_args: Any, **_: Any) -> Tensor:
    return _new(log_probs)


def _log_sigmoid_forward(input: Tensor) -> tuple[Tensor, Tensor]:
    """Without a buffer, which only the CPU needs (``Activation.cpp``, 2.15)."""
    return _like(input), input.new_empty(0)


#: By overload; each takes the operator's arguments and returns what CUDA would.
CUDA_KERNELS: dict[Any, Callable[..., Any]] = {
    aten.col2im.default: _col2im,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._ctc_loss_backward.default: _ctc_loss_backward,
    aten._ctc_loss_backward.Tensor: _ctc_loss_backward,
    aten.log_sigmoid_forward.default: _log_sigmoid_forward,
    aten.mse_loss.default: _loss_in_full(aten.mse_loss.default),
    aten.smooth_l1_loss.default: _loss_in_full(aten.smooth_l1_loss.default),
    aten.binary_cross_entropy.default: _loss_in_full(aten.binary_cross_entropy.default),
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.threshold_backward.default: _threshold_backward,
    **RECURRENT_KERNELS,
}
