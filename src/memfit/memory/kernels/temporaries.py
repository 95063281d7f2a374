"""What CUDA kernels allocate inside an operator and free before it returns.

On meta tensors these allocations are invisible, so they are written down here, operator by
operator, from ``aten/src/ATen/native/cuda`` (torch 2.11 to 2.15; the file is named at each rule).
A rule gives its blocks in their order (:mod:`memfit.memory.kernels.scope`). An operator that is in
neither table is unknown, which is not the same as needing nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from memfit.memory.kernels.attention_temporaries import ATTENTION_RULES
from memfit.memory.kernels.blas_workspaces import (
    GemmLibrary,
    held_blas_workspaces,
    operation_blas_workspace_bytes,
)
from memfit.memory.kernels.convolution_temporaries import (
    convolution_backward_temporaries,
    convolution_temporaries,
)
from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.indexing_temporaries import INDEXING_RULES
from memfit.memory.kernels.no_temporaries import NO_TEMPORARIES
from memfit.memory.kernels.normalization_temporaries import NORMALIZATION_RULES
from memfit.memory.kernels.recurrent_temporaries import RECURRENT_RULES
from memfit.memory.kernels.reduction_temporaries import reduction_buffers
from memfit.memory.kernels.rules import (
    Arguments,
    Outputs,
    Rule,
    argument,
    copies_contiguous,
    copies_in_format_of,
    each,
    integer_argument,
    integers_in,
    tensor_argument,
    tensors_in,
)
from memfit.memory.kernels.scope import Copy, Result, Returned, Scope

__all__ = ["RULES", "temporaries"]


# -- matrix products -----------------------------------------------------------------------------


def _blas_copy_bytes(matrix: TensorFacts) -> int:
    """``prepare_matrix_for_cublas`` (cuBlasCommonArgs.h) on the last two dimensions."""
    (rows, columns), (by_row, by_column) = matrix.shape[-2:], matrix.strides[-2:]
    column_major = by_row == 1 and by_column >= max(1, rows)
    row_major = by_column == 1 and by_row >= max(1, columns)
    if column_major or row_major or matrix.is_contiguous():
        return 0
    return matrix.size_bytes


# The position of the first factor. Blas.cpp (``addmm_out_cuda_impl``, ``bmm_out_cuda_impl``).
_FIRST_FACTOR = {
    "aten.mm.default": 0,
    "aten.bmm.default": 0,
    "aten.addmm.default": 1,
    "aten.baddbmm.default": 1,
    "aten._addmm_activation.default": 1,
}


def _gemm_library(op: str, arguments: Arguments) -> GemmLibrary:
    """A one-dimensional bias is added by the epilogue of cuBLASLt; the rest is cuBLAS."""
    bias = arguments[0]
    with_bias = op in ("aten.addmm.default", "aten._addmm_activation.default")
    fused = isinstance(bias, TensorFacts) and len(bias.shape) == 1 and bias.is_contiguous()
    return "cublaslt" if with_bias and fused else "cublas"


def _gemm(op: str) -> Rule:
    first = _FIRST_FACTOR[op]

    def rule(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
        library = _gemm_library(op, arguments)
        on = (library, device.compute_capability, device.torch_version)
        factors = (tensor_argument(arguments, first), tensor_argument(arguments, first + 1))
        copies = (Copy(_blas_copy_bytes(factor)) for factor in factors)
        return (*copies, *held_blas_workspaces(*on), operation_blas_workspace_bytes(*on))

    return rule


# -- sums ----------------------------------------------------------------------------------------


def _reduction(partial: Callable[[TensorFacts], int], dimensions_index: int | None) -> Rule:
    """gpu_reduce_kernel, whose partial results have so many bytes."""

    def rule(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
        tensor = tensor_argument(arguments, 0)
        dimensions = _reduced(tensor, arguments, dimensions_index)
        return reduction_buffers(tensor, dimensions, partial(tensor), device)

    return rule


def _sum(dimensions_index: int | None) -> Rule:
    """ReduceOps.cpp ``make_reduction``: what is no float type is converted before it is added up.

    Half types are read as they are where float32 is wanted.
    """

    def rule(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope:
        tensor = tensor_argument(arguments, 0)
        dimensions = _reduced(tensor, arguments, dimensions_index)
        total = outputs[0]
        is_read = tensor.dtype in ("float16", "bfloat16") and total.dtype == "float32"
        if tensor.dtype == total.dtype or is_read:
            return reduction_buffers(tensor, dimensions, tensor.accumulate_bytes, device)
        converted = replace(tensor, dtype=total.dtype, dtype_bytes=total.dtype_bytes)
        buffers = reduction_buffers(converted, dimensions, converted.accumulate_bytes, device)
        return (converted.size_bytes, *buffers)

    return rule


def _reduced(tensor: TensorFacts, arguments: Arguments, index: int | None) -> set[int]:
    """The dimensions that a reduction goes over: those listed, all where none are."""
    given = None if index is None else argument(arguments, index, None)
    rank = len(tensor.shape)
    listed = [given] if isinstance(given, int) else integers_in(given)
    return {index % rank for index in listed} if rank and listed else set(range(rank))


def _accumulated(tensor: TensorFacts) -> int:
    return tensor.accumulate_bytes


def _as_it_is(tensor: TensorFacts) -> int:
    return tensor.dtype_bytes


def _one_byte(_tensor: TensorFacts) -> int:
    return 1


def _with_index(tensor: TensorFacts) -> int:
    """A value and its index, an int64."""
    return 8 + max(8, tensor.dtype_bytes)


def _welford(tensor: TensorFacts) -> int:
    """(mean, m2, n, nf)."""
    return 4 * tensor.accumulate_bytes


def _foreach_norm(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """ForeachReduceOp.cu: one partial norm for each 65,536 elements of the largest tensor."""
    listed = arguments[0]
    tensors = tensors_in(listed) if isinstance(listed, Sequence) else []
    chunks = max((-(-tensor.numel // 65536) for tensor in tensors), default=0)
    width = max((tensor.accumulate_bytes for tensor in tensors), default=0)
    return (len(tensors) * chunks * width,)


def _loss(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """BinaryOps.cpp: mse_loss and smooth_l1_loss average a tensor of every element's loss."""
    loss = tensor_argument(arguments, 0)
    if not _is_reduced(arguments, 2):
        return ()
    return (loss.size_bytes, *_mean_buffers(loss, device))


def _huber_loss(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """Loss.cpp: the loss of every element, then its mean."""
    loss = tensor_argument(arguments, 0)
    if not _is_reduced(arguments, 2):
        return ()
    return (loss.size_bytes, Result(0), *_mean_buffers(loss, device))


def _binary_cross_entropy(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """Loss.cu: a mean that is written back into the memory of every element's loss."""
    loss = tensor_argument(arguments, 0)
    if not _is_reduced(arguments, 3):
        return ()
    return (loss.dtype_bytes, *_mean_buffers(loss, device))


def _binary_cross_entropy_with_logits(
    arguments: Arguments, _outputs: Outputs, device: DeviceFacts
) -> Scope:
    """Loss.cpp: the logarithm of the sigmoid, its weights, the loss of every element."""
    loss = tensor_argument(arguments, 0)
    positive = tensors_in([argument(arguments, 3, None)])
    weights = [((weight.size_bytes, Returned(loss.size_bytes)),) for weight in positive]
    if not _is_reduced(arguments, 4):
        return (loss.size_bytes, *weights, Result(0))
    return (
        loss.size_bytes, *weights, loss.size_bytes, Result(0), *_mean_buffers(loss, device)
    )  # fmt: skip


def _ctc_loss(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """LossCTC.cu: lengths of targets and of inputs, and where each target begins, in int64."""
    counts = 8 * tensor_argument(arguments, 0).shape[1]
    return (counts, counts, counts, Result(1), Result(0))


def _ctc_loss_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """LossCTC.cu: the counts again, and beta, which is as large as alpha."""
    counts = 8 * tensor_argument(arguments, 1).shape[1]
    alpha = tensors_in(arguments)[-1]
    return (counts, counts, counts, alpha.size_bytes, Result(0))


def _is_reduced(arguments: Arguments, index: int) -> bool:
    mean = 1
    return bool(argument(arguments, index, mean))


def _mean_buffers(loss: TensorFacts, device: DeviceFacts) -> Scope:
    every_dimension = set(range(len(loss.shape)))
    return reduction_buffers(loss, every_dimension, loss.accumulate_bytes, device)


# -- softmax -------------------------------------------------------------------------------------


def _softmax_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """SoftMax.cu ``softmax_backward_cuda_out``: gradient times output, with the gradient's layout.

    The kernel calls ``contiguous()`` on both.
    """
    gradient, output = tensor_argument(arguments, 0), tensor_argument(arguments, 1)
    return gradient.size_bytes, Copy(gradient.copy_bytes()), Copy(output.copy_bytes())


def _safe_softmax(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope:
    """SoftMax.cpp: which scores are minus infinity, in which rows all are, and a zero for those.

    Until torch 2.14 the blanked rows are written to a second tensor.
    """
    scores, softmax = tensor_argument(arguments, 0), outputs[0]
    dimension = integer_argument(arguments, 1) % len(scores.shape)
    masked = replace(scores, dtype="bool", dtype_bytes=1)
    rows = scores.numel // max(1, scores.shape[dimension])
    all_masked = (rows, reduction_buffers(masked, {dimension}, 1, device))
    if device.torch_version < (2, 15):
        zero = softmax.dtype_bytes
        return softmax.size_bytes, zero, masked.size_bytes, *all_masked, zero, Result(0)
    return Result(0), masked.size_bytes, *all_masked, softmax.dtype_bytes


def _native_dropout(_arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """Dropout.cu: the mask is made before the output."""
    return Result(1), Result(0)


def _roll(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """One dimension after the other (``roll_common`` of TensorTransformations.h)."""
    tensor = tensor_argument(arguments, 0)
    dimensions = len(integers_in(argument(arguments, 2, None)))
    if dimensions < 2:
        return (Copy(tensor.copy_bytes()), Result(0))
    scope: Scope = (tensor.size_bytes, Result(0))
    for _ in range(dimensions - 2):
        scope = (tensor.size_bytes, scope)
    return ((Copy(tensor.copy_bytes()), Returned(tensor.size_bytes)), *scope[1:])


RULES: dict[str, Rule] = {
    "aten.convolution.default": convolution_temporaries,
    "aten.convolution_backward.default": convolution_backward_temporaries,
    **{op: _gemm(op) for op in _FIRST_FACTOR},
    **NORMALIZATION_RULES,
    **RECURRENT_RULES,
    # Reduce.cuh; a variance keeps (mean, m2, n, nf), an arg-reduction (value, index)
    **each("sum.default mean.default", _sum(None)),
    **each("sum.dim_IntList mean.dim", _sum(1)),
    **each("max.default min.default", _reduction(_as_it_is, None)),
    **each("amax.default amin.default", _reduction(_as_it_is, 1)),
    **each("any.default all.default", _reduction(_one_byte, None)),
    **each("max.dim min.dim argmax.default argmin.default", _reduction(_with_index, 1)),
    **each("var.correction var_mean.correction std.correction", _reduction(_welford, 1)),
    "aten.norm.Scalar": _reduction(_accumulated, None),
    **each("linalg_vector_norm.default norm.ScalarOpt_dim", _reduction(_accumulated, 2)),
    "aten._foreach_norm.Scalar": _foreach_norm,
    **each("mse_loss.default smooth_l1_loss.default", _loss),
    "aten.huber_loss.default": _huber_loss,
    "aten.binary_cross_entropy.default": _binary_cross_entropy,
    "aten.binary_cross_entropy_with_logits.default": _binary_cross_entropy_with_logits,
    **each("_ctc_loss.default _ctc_loss.Tensor", _ctc_loss),
    **each("_ctc_loss_backward.default _ctc_loss_backward.Tensor", _ctc_loss_backward),
    # SoftMax.cu
    **each("_softmax.default _log_softmax.default", copies_contiguous(0)),
    "aten._softmax_backward_data.default": _softmax_backward,
    "aten.roll.default": _roll,
    "aten._log_softmax_backward_data.default": copies_contiguous(0, 1),
    "aten._safe_softmax.default": _safe_softmax,
    "aten.native_dropout.default": _native_dropout,
    # DilatedMaxPool2d.cu, DilatedMaxPool3d.cu, AveragePool2d.cu, AdaptiveAveragePooling.cu
    **each(
        """max_pool2d_with_indices.default max_pool3d_with_indices.default
        avg_pool2d.default _adaptive_avg_pool2d.default""",
        copies_in_format_of(0, 0),
    ),
    **each(
        "max_pool2d_with_indices_backward.default max_pool3d_with_indices_backward.default",
        copies_in_format_of(1, 0, 1, 7),
    ),
    **each(
        "avg_pool2d_backward.default _adaptive_avg_pool2d_backward.default",
        copies_in_format_of(1, 0, 1),
    ),
    "aten.adaptive_max_pool2d_backward.default": copies_contiguous(0),
    # UpSample*.cu
    **each(
        """upsample_bilinear2d.vec upsample_bilinear2d.default upsample_bilinear2d_backward.default
        upsample_nearest2d.default upsample_nearest2d_backward.default""",
        copies_in_format_of(0, 0),
    ),
    "aten.upsample_bicubic2d_backward.default": copies_contiguous(0),
    # Im2Col.cu, TensorTransformations.cu, ScanKernels.cpp
    **each(
        "im2col.default col2im.default cumsum.default cumprod.default",
        copies_contiguous(0),
    ),
    **INDEXING_RULES,
    **ATTENTION_RULES,
}


def temporaries(op: str, args: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope | None:
    """What an operator allocates inside, beside its outputs.

    Args:
        op: overload name such as "aten.convolution_backward.default".
        args: positional arguments in schema order, tensors as :class:`TensorFacts`.
        outputs: the tensors it returned.
        device: the GPU.

    Returns:
        Its blocks and results in order; ``()`` when it is known to need no blocks; None when it
        is not in the tables, so unknown.
    """
    rule = RULES.get(op)
    if rule is not None:
        return rule(args, outputs, device)
    return () if op.rpartition(".")[0] in NO_TEMPORARIES else None
