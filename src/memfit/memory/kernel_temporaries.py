"""What CUDA kernels allocate inside an operator and free before it returns.

On meta tensors these allocations are invisible, so they are written down here, operator by
operator, from ``aten/src/ATen/native/cuda`` (torch 2.11 to 2.15; the file is named at each rule).
The sizes are those that are alive together at the operator's own peak. An operator that is in
neither table is unknown, which is not the same as needing nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memfit.memory.convolution_temporaries import (
    convolution_backward_temporaries,
    convolution_temporaries,
)
from memfit.memory.kernel_facts import DeviceFacts, TensorFacts
from memfit.memory.no_temporaries import NO_TEMPORARIES
from memfit.memory.reduction_temporaries import reduction_buffers
from memfit.memory.workspaces import (
    GemmLibrary,
    held_blas_workspaces,
    operation_blas_workspace_bytes,
)

__all__ = ["RULES", "held_workspaces", "temporaries"]

Arguments = tuple[object, ...]
Outputs = tuple[TensorFacts, ...]
Sizes = tuple[int, ...]
Rule = Callable[[Arguments, Outputs, DeviceFacts], Sizes]


def _tensors(values: Sequence[object]) -> list[TensorFacts]:
    return [value for value in values if isinstance(value, TensorFacts)]


def _tensor(arguments: Arguments, index: int) -> TensorFacts:
    value = arguments[index]
    assert isinstance(value, TensorFacts), f"argument {index} is no tensor"
    return value


def _argument(arguments: Arguments, index: int, default: object) -> object:
    return arguments[index] if index < len(arguments) else default


def _integer(arguments: Arguments, index: int) -> int:
    return int(str(arguments[index]))


def _present(*sizes: int) -> Sizes:
    return tuple(size for size in sizes if size > 0)


# -- copies that a kernel makes of what is not laid out as it wants ------------------------------


def _contiguous(*indices: int) -> Rule:
    """The kernel calls ``contiguous()`` on these arguments."""

    def rule(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
        given = _tensors([_argument(arguments, index, None) for index in indices])
        return _present(*(tensor.copy_bytes() for tensor in given))

    return rule


def _same_format(reference: int, *indices: int) -> Rule:
    """The kernel calls ``contiguous(reference.suggest_memory_format())`` on these arguments."""

    def rule(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
        last = _tensor(arguments, reference).channels_last
        given = _tensors([arguments[index] for index in indices])
        return _present(*(tensor.copy_bytes(channels_last=last) for tensor in given))

    return rule


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


def _gemm_library(op: str, arguments: Arguments) -> GemmLibrary | None:
    """cuBLASLt adds a one-dimensional bias in its epilogue; the other products are cuBLAS."""
    if op not in _FIRST_FACTOR:
        return None
    bias = arguments[0]
    with_bias = op in ("aten.addmm.default", "aten._addmm_activation.default")
    fused = isinstance(bias, TensorFacts) and len(bias.shape) == 1 and bias.is_contiguous()
    return "cublaslt" if with_bias and fused else "cublas"


def _gemm(op: str) -> Rule:
    first = _FIRST_FACTOR[op]

    def rule(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Sizes:
        library = _gemm_library(op, arguments)
        assert library is not None
        workspace = operation_blas_workspace_bytes(
            library, device.compute_capability, device.torch_version
        )
        factors = (_tensor(arguments, first), _tensor(arguments, first + 1))
        return _present(*map(_blas_copy_bytes, factors), workspace)

    return rule


# -- normalisation -------------------------------------------------------------------------------


def _channels_last_batch_norm(per_channel: int, reference: int, *copied: int) -> Rule:
    """Copies, and the staging buffer of the channels-last kernels.

    Normalization.cuh: ``flexible_launch_configs``, and ``staging_data`` of per_channel float32
    for each channel and block. The kernels of cuDNN, which PyTorch prefers, ask for a workspace
    of the same order; its size is not published.
    """
    copies = _same_format(reference, *copied)

    def rule(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Sizes:
        image = _tensor(arguments, reference)
        sizes = copies(arguments, outputs, device)
        if not image.channels_last:
            return sizes
        blocks = _batch_norm_blocks(image.numel // image.shape[1], image.shape[1])
        return (*sizes, per_channel * 4 * image.shape[1] * blocks) if blocks > 1 else sizes

    return rule


def _batch_norm_blocks(reduction: int, channels: int) -> int:
    """``grid.y``: tiles at most 32 wide, 16 elements a thread, 512 threads, 128 blocks."""
    width = min(1 << (channels.bit_length() - 1), 32)
    height = min(1 << (max(1, -(-reduction // 16)).bit_length() - 1), 512 // width)
    blocks = min(-(-reduction // (height * 16)), 128)
    return blocks if blocks >= 8 else 1


def _layer_norm_backward(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Sizes:
    """layer_norm_kernel.cu: copies; for very many short rows, partial sums of 32 rows each."""
    gradient, image = _tensor(arguments, 0), _tensor(arguments, 1)
    copies = (gradient.copy_bytes(), image.copy_bytes())
    width = 1
    for size in _sequence(arguments[2]):
        width *= size
    rows = image.numel // max(1, width)
    if not (rows > 64 * 1024 and width // 32 < device.multiprocessors // 2):
        return _present(*copies)
    blocks = min(64 * 1024 // 2 // -(-width // 32), -(-rows // 32))
    wanted = _sequence(arguments[7])[1:]
    return _present(*copies, *(blocks * width * image.dtype_bytes for yes in wanted if yes))


def _sequence(value: object) -> list[int]:
    return [int(item) for item in value] if isinstance(value, Sequence) else []


def _group_norm(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
    """group_norm_kernel.cu: scale a and shift b for each sample and channel, when affine."""
    image = _tensor(arguments, 0)
    per_channel = _integer(arguments, 3) * _integer(arguments, 4) * image.accumulate_bytes
    affine = bool(_tensors(arguments[1:3]))
    return _present(image.copy_bytes(), *((per_channel, per_channel) if affine else ()))


def _group_norm_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
    """group_norm_kernel.cu: ds, db and c1 for each channel; c2 and c3 for each group."""
    gradient, image = _tensor(arguments, 0), _tensor(arguments, 1)
    batch, channels, groups = (_integer(arguments, index) for index in (5, 6, 8))
    per_channel = batch * channels * image.accumulate_bytes
    per_group = batch * groups * image.accumulate_bytes
    copies = (gradient.copy_bytes(), image.copy_bytes())
    return _present(*copies, *[per_channel] * 3, *[per_group] * 2)


# -- sums ----------------------------------------------------------------------------------------


def _reduction(partial_elements: int, dimensions_index: int | None) -> Rule:
    """gpu_reduce_kernel with partial results of so many accumulators."""

    def rule(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Sizes:
        tensor = _tensor(arguments, 0)
        given = None if dimensions_index is None else _argument(arguments, dimensions_index, None)
        rank = len(tensor.shape)
        listed = [given] if isinstance(given, int) else _sequence(given)
        dimensions = {index % rank for index in listed} if rank and listed else set(range(rank))
        partial = partial_elements * tensor.accumulate_bytes
        return reduction_buffers(tensor, dimensions, partial, device)

    return rule


def _foreach_norm(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
    """ForeachReduceOp.cu: one partial norm for each 65,536 elements of the largest tensor."""
    listed = arguments[0]
    tensors = _tensors(listed) if isinstance(listed, Sequence) else []
    if not tensors:
        return ()
    chunks = max(-(-tensor.numel // 65536) for tensor in tensors)
    return _present(len(tensors) * chunks * tensors[0].accumulate_bytes)


# -- indexing ------------------------------------------------------------------------------------


def _embedding_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
    """Embedding.cu, EmbeddingBackwardKernel.cu: sort the indices, sum rows by segments.

    Up to 3,072 indices nothing is allocated. Beyond, a segment is at most 10 rows (NROWS_PER_
    THREAD), and there are at most min(indices, rows of the table) of them: the one size here
    that is not affine in the batch.
    """
    gradient, indices = _tensor(arguments, 0), _tensor(arguments, 1)
    table_rows, by_frequency = _integer(arguments, 2), bool(arguments[4])
    copies = (gradient.copy_bytes(), indices.copy_bytes())
    if indices.numel <= 3072 and not by_frequency:
        return _present(*copies)
    segments = min(indices.numel, table_rows)
    partial_segments = indices.numel // 10 + segments
    index_bytes, width = indices.dtype_bytes, gradient.shape[-1]
    sorted_bytes = indices.numel * index_bytes
    return _present(
        *copies,
        *[sorted_bytes] * (4 if by_frequency else 3),  # sorted, original, segment offsets, count
        *[segments * index_bytes] * 2,
        partial_segments * index_bytes,
        partial_segments * width * gradient.accumulate_bytes,
    )


def _index_put(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
    """Indexing.cu ``index_put_with_sort_kernel``: linear, sorted and original indices, range."""
    listed, accumulate = arguments[1], bool(_argument(arguments, 3, False))
    if not accumulate or not isinstance(listed, Sequence):
        return ()
    count = max((tensor.numel for tensor in _tensors(listed)), default=0)
    return _present(*[count * 8] * 4)


# -- attention -----------------------------------------------------------------------------------


def _flash_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Sizes:
    """flash_attn/flash_api.cpp ``mha_bwd``: softmax_d and dq_accum in float32, rounded up."""
    batch, heads, length, size = _tensor(arguments, 1).shape
    rows = -(-length // 128) * 128
    step = 32 if size <= 128 else 64
    width = -(-size // step) * step
    return _present(batch * heads * rows * 4, batch * rows * heads * width * 4)


RULES: dict[str, Rule] = {
    "aten.convolution.default": convolution_temporaries,
    "aten.convolution_backward.default": convolution_backward_temporaries,
    **{op: _gemm(op) for op in _FIRST_FACTOR},
    # Normalization.cu, Normalization.cuh, cudnn/BatchNorm.cpp
    "aten.native_batch_norm.default": _channels_last_batch_norm(4, 0, 0),
    "aten._native_batch_norm_legit.default": _channels_last_batch_norm(4, 0, 0),
    "aten._native_batch_norm_legit.no_stats": _channels_last_batch_norm(4, 0, 0),
    "aten._batch_norm_with_update.default": _channels_last_batch_norm(4, 0, 0),
    "aten.cudnn_batch_norm.default": _channels_last_batch_norm(4, 0, 0),
    "aten.native_batch_norm_backward.default": _channels_last_batch_norm(2, 1, 0, 1),
    "aten.batch_norm_backward.default": _channels_last_batch_norm(2, 1, 0, 1),
    "aten.cudnn_batch_norm_backward.default": _channels_last_batch_norm(2, 0, 0, 1),
    "aten.native_layer_norm.default": _contiguous(0, 2, 3),
    "aten.native_layer_norm_backward.default": _layer_norm_backward,
    "aten.native_group_norm.default": _group_norm,
    "aten.native_group_norm_backward.default": _group_norm_backward,
    # Reduce.cuh; a variance keeps (mean, m2, n, nf), an arg-reduction (value, index)
    "aten.sum.default": _reduction(1, None),
    "aten.sum.dim_IntList": _reduction(1, 1),
    "aten.mean.default": _reduction(1, None),
    "aten.mean.dim": _reduction(1, 1),
    "aten.amax.default": _reduction(1, 1),
    "aten.amin.default": _reduction(1, 1),
    "aten.max.default": _reduction(1, None),
    "aten.min.default": _reduction(1, None),
    "aten.max.dim": _reduction(4, 1),
    "aten.min.dim": _reduction(4, 1),
    "aten.argmax.default": _reduction(4, 1),
    "aten.argmin.default": _reduction(4, 1),
    "aten.linalg_vector_norm.default": _reduction(1, 2),
    "aten.norm.Scalar": _reduction(1, None),
    "aten.norm.ScalarOpt_dim": _reduction(1, 2),
    "aten.var.correction": _reduction(4, 1),
    "aten.var_mean.correction": _reduction(4, 1),
    "aten.std.correction": _reduction(4, 1),
    "aten.any.default": _reduction(1, None),
    "aten.all.default": _reduction(1, None),
    "aten._foreach_norm.Scalar": _foreach_norm,
    # SoftMax.cu
    "aten._softmax.default": _contiguous(0),
    "aten._log_softmax.default": _contiguous(0),
    "aten._softmax_backward_data.default": _contiguous(0, 1),
    "aten._log_softmax_backward_data.default": _contiguous(0, 1),
    # DilatedMaxPool2d.cu, DilatedMaxPool3d.cu, AveragePool2d.cu, AdaptiveAveragePooling.cu
    "aten.max_pool2d_with_indices.default": _same_format(0, 0),
    "aten.max_pool2d_with_indices_backward.default": _same_format(1, 0, 1, 7),
    "aten.max_pool3d_with_indices.default": _same_format(0, 0),
    "aten.max_pool3d_with_indices_backward.default": _same_format(1, 0, 1, 7),
    "aten.avg_pool2d.default": _same_format(0, 0),
    "aten.avg_pool2d_backward.default": _same_format(1, 0, 1),
    "aten._adaptive_avg_pool2d.default": _same_format(0, 0),
    "aten._adaptive_avg_pool2d_backward.default": _same_format(1, 0, 1),
    "aten.adaptive_max_pool2d_backward.default": _contiguous(0),
    # UpSample*.cu
    "aten.upsample_bilinear2d.vec": _same_format(0, 0),
    "aten.upsample_bilinear2d.default": _same_format(0, 0),
    "aten.upsample_bilinear2d_backward.default": _same_format(0, 0),
    "aten.upsample_nearest2d.default": _same_format(0, 0),
    "aten.upsample_nearest2d_backward.default": _same_format(0, 0),
    "aten.upsample_bicubic2d_backward.default": _contiguous(0),
    # TensorTransformations.cu, ScanKernels.cpp
    "aten.roll.default": _contiguous(0),
    "aten.cumsum.default": _contiguous(0),
    "aten.cumprod.default": _contiguous(0),
    # Embedding.cu, Indexing.cu
    "aten.embedding_dense_backward.default": _embedding_backward,
    "aten.index_put.default": _index_put,
    "aten.index_put_.default": _index_put,
    "aten._index_put_impl_.default": _index_put,
    "aten._unsafe_index_put.default": _index_put,
    # transformers/cuda
    "aten._scaled_dot_product_flash_attention_backward.default": _flash_backward,
}


def temporaries(
    op: str, args: Arguments, outputs: Outputs, device: DeviceFacts
) -> tuple[int, ...] | None:
    """What an operator allocates inside, beside its outputs.

    Args:
        op: overload name such as "aten.convolution_backward.default".
        args: positional arguments in schema order, tensors as :class:`TensorFacts`.
        outputs: the tensors it returned.
        device: the GPU.

    Returns:
        Bytes of each block alive at the operator's own peak; ``()`` when it is known to need
        none; None when it is not in the tables, so unknown.
    """
    rule = RULES.get(op)
    if rule is not None:
        return rule(args, outputs, device)
    return () if op.rpartition(".")[0] in NO_TEMPORARIES else None


def held_workspaces(
    op: str, args: Arguments, device: DeviceFacts
) -> tuple[tuple[GemmLibrary, int], ...]:
    """What a matrix product allocates at its first call on a thread and keeps until the end.

    Args:
        op: overload name.
        args: positional arguments in schema order.
        device: the GPU.

    Returns:
        (library, bytes) pairs; count each once for the forward and once for the backward thread.
    """
    library = _gemm_library(op, args)
    if library is None:
        return ()
    return held_blas_workspaces(library, device.compute_capability, device.torch_version)
