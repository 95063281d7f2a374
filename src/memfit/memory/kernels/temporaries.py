"""What CUDA kernels allocate inside an operator and free before it returns.

On meta tensors these allocations are invisible, so they are written down here, operator by
operator, from ``aten/src/ATen/native/cuda`` (torch 2.11 to 2.15; the file is named at each rule).
A rule gives its blocks in their order (:mod:`memfit.memory.kernels.scope`). An operator that is in
neither table is unknown, which is not the same as needing nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from memfit.memory.kernels.no_temporaries import NO_TEMPORARIES
from memfit.memory.kernels.normalization_temporaries import NORMALIZATION_RULES
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
from memfit.memory.kernels.scope import Copy, Scope

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


def _reduction(partial_elements: int, dimensions_index: int | None) -> Rule:
    """gpu_reduce_kernel with partial results of so many accumulators."""

    def rule(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
        tensor = tensor_argument(arguments, 0)
        given = None if dimensions_index is None else argument(arguments, dimensions_index, None)
        rank = len(tensor.shape)
        listed = [given] if isinstance(given, int) else integers_in(given)
        dimensions = {index % rank for index in listed} if rank and listed else set(range(rank))
        partial = partial_elements * tensor.accumulate_bytes
        return reduction_buffers(tensor, dimensions, partial, device)

    return rule


def _foreach_norm(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """ForeachReduceOp.cu: one partial norm for each 65,536 elements of the largest tensor."""
    listed = arguments[0]
    tensors = tensors_in(listed) if isinstance(listed, Sequence) else []
    chunks = max((-(-tensor.numel // 65536) for tensor in tensors), default=0)
    width = max((tensor.accumulate_bytes for tensor in tensors), default=0)
    return (len(tensors) * chunks * width,)


def _loss(copies: int, reduction_index: int) -> Rule:
    """A loss that is computed for each element before it is averaged or summed.

    BinaryOps / Loss.cpp / Loss.cu: mse_loss, smooth_l1_loss, huber_loss and binary_cross_entropy
    keep one such tensor, binary_cross_entropy_with_logits two.
    """

    def rule(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
        mean = 1
        reduction = argument(arguments, reduction_index, mean)
        size = tensor_argument(arguments, 0).size_bytes
        return (size,) * (copies if reduction else copies - 1)

    return rule


# -- indexing ------------------------------------------------------------------------------------


def _embedding_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """Embedding.cu, EmbeddingBackwardKernel.cu: sort the indices, sum rows by segments.

    Up to 3,072 indices nothing is allocated. Beyond, a segment is at most 10 rows (NROWS_PER_
    THREAD), and there are at most min(indices, rows of the table) of them: the one size here
    that is not affine in the batch.
    """
    gradient, indices = tensor_argument(arguments, 0), tensor_argument(arguments, 1)
    table_rows, by_frequency = integer_argument(arguments, 2), bool(arguments[4])
    is_sorted = by_frequency or indices.numel > 3072
    count = indices.numel if is_sorted else 0
    segments = min(count, table_rows)
    partial_segments = count // 10 + segments
    index_bytes, width = indices.dtype_bytes, gradient.shape[-1]
    sorted_bytes = count * index_bytes
    return (
        Copy(gradient.copy_bytes()),
        Copy(indices.copy_bytes()),
        *[sorted_bytes] * (4 if by_frequency else 3),  # sorted, original, segment offsets, count
        *[segments * index_bytes] * 2,
        partial_segments * index_bytes,
        partial_segments * width * gradient.accumulate_bytes,
    )


def _index_put(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """Indexing.cu ``index_put_with_sort_kernel``: linear, sorted and original indices, range."""
    listed, accumulate = arguments[1], bool(argument(arguments, 3, False))
    if not accumulate or not isinstance(listed, Sequence):
        return ()
    count = max((tensor.numel for tensor in tensors_in(listed)), default=0)
    return (count * 8,) * 4


def _safe_softmax(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """SoftMax.cpp: the softmax before rows without a finite value are blanked, and their mask."""
    scores = tensor_argument(arguments, 0)
    return scores.size_bytes, scores.numel


RULES: dict[str, Rule] = {
    "aten.convolution.default": convolution_temporaries,
    "aten.convolution_backward.default": convolution_backward_temporaries,
    **{op: _gemm(op) for op in _FIRST_FACTOR},
    **NORMALIZATION_RULES,
    # Reduce.cuh; a variance keeps (mean, m2, n, nf), an arg-reduction (value, index)
    **each(
        "sum.default mean.default max.default min.default norm.Scalar any.default all.default",
        _reduction(1, None),
    ),
    **each("sum.dim_IntList mean.dim amax.default amin.default", _reduction(1, 1)),
    **each("max.dim min.dim argmax.default argmin.default", _reduction(4, 1)),
    **each("var.correction var_mean.correction std.correction", _reduction(4, 1)),
    **each("linalg_vector_norm.default norm.ScalarOpt_dim", _reduction(1, 2)),
    "aten._foreach_norm.Scalar": _foreach_norm,
    **each("mse_loss.default smooth_l1_loss.default huber_loss.default", _loss(1, 2)),
    "aten.binary_cross_entropy.default": _loss(1, 3),
    "aten.binary_cross_entropy_with_logits.default": _loss(2, 4),
    # SoftMax.cu
    **each("_softmax.default _log_softmax.default", copies_contiguous(0)),
    **each(
        "_softmax_backward_data.default _log_softmax_backward_data.default",
        copies_contiguous(0, 1),
    ),
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
        "im2col.default col2im.default roll.default cumsum.default cumprod.default",
        copies_contiguous(0),
    ),
    # Embedding.cu, Indexing.cu
    "aten.embedding_dense_backward.default": _embedding_backward,
    **each(
        """index_put.default index_put_.default _index_put_impl_.default
        _unsafe_index_put.default""",
        _index_put,
    ),
    "aten._safe_softmax.default": _safe_softmax,
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
