"""What normalisation kernels allocate inside: copies, staging buffers, partial sums."""

from __future__ import annotations

from math import prod

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.reduction_temporaries import reduction_buffers
from memfit.memory.kernels.rules import (
    Arguments,
    Outputs,
    Rule,
    copies_contiguous,
    copies_in_format_of,
    each,
    integer_argument,
    integers_in,
    tensor_argument,
    tensors_in,
)
from memfit.memory.kernels.scope import Copy, Result, Scope

__all__ = ["NORMALIZATION_RULES"]

#: What a normalization returns, and its backward: made after the copies of its arguments.
_RESULTS = Result(0), Result(1), Result(2)


def _channels_last_batch_norm(per_channel: int, reference: int, *copied: int) -> Rule:
    """Copies, and the staging buffer of the channels-last kernels.

    Normalization.cuh: ``flexible_launch_configs``, and ``staging_data`` of per_channel float32
    for each channel and block. The kernels of cuDNN, which PyTorch prefers, ask for a workspace
    of the same order; its size is not published.
    """
    copies = copies_in_format_of(reference, *copied)

    def rule(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope:
        image = tensor_argument(arguments, reference)
        sizes = (*copies(arguments, outputs, device), *_RESULTS)
        if not image.channels_last:
            return sizes
        blocks = _batch_norm_blocks(image.numel // image.shape[1], image.shape[1])
        return (*sizes, per_channel * 4 * image.shape[1] * blocks if blocks > 1 else 0)

    return rule


def _batch_norm_blocks(reduction: int, channels: int) -> int:
    """``grid.y``: tiles at most 32 wide, 16 elements a thread, 512 threads, 128 blocks."""
    width = min(1 << (channels.bit_length() - 1), 32)
    height = min(1 << (max(1, -(-reduction // 16)).bit_length() - 1), 512 // width)
    blocks = min(-(-reduction // (height * 16)), 128)
    return blocks if blocks >= 8 else 1


def _layer_norm(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope:
    """layer_norm_kernel.cu: copies."""
    return (*copies_contiguous(0, 2, 3)(arguments, outputs, device), *_RESULTS)


def _layer_norm_backward(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """layer_norm_kernel.cu: copies; for very many short rows, partial sums of 32 rows each.

    ``layer_norm_backward_cuda`` copies the input and makes the results, the kernel copies the
    gradient. The partial sums of weight and bias are added up one after the other, each by a
    reduction with a result of its own.
    """
    gradient, image = tensor_argument(arguments, 0), tensor_argument(arguments, 1)
    width = prod(integers_in(arguments[2]))
    rows = image.numel // max(1, width)
    is_tall = rows > 64 * 1024 and width // 32 < device.multiprocessors // 2
    blocks = min(64 * 1024 // 2 // -(-width // 32), -(-rows // 32)) if is_tall else 0
    partial = TensorFacts((blocks, width), (width, 1), image.dtype_bytes, image.dtype)
    weight_bytes = width * image.dtype_bytes if is_tall else 0
    total = (weight_bytes, *reduction_buffers(partial, {0}, 4, device))
    wanted = [yes for yes in integers_in(arguments[7])[1:] if yes]
    copies = Copy(image.copy_bytes()), *_RESULTS, Copy(gradient.copy_bytes())
    return (*copies, *[partial.size_bytes for _ in wanted], *[total for _ in wanted])


def _group_norm(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """group_norm_kernel.cu: float32 statistics beside half ones, scale and shift when affine."""
    image = tensor_argument(arguments, 0)
    batch, channels, groups = (integer_argument(arguments, index) for index in (3, 4, 6))
    statistics = batch * groups * 4 if image.dtype_bytes == 2 else 0
    per_channel = batch * channels * image.accumulate_bytes
    is_affine = bool(tensors_in(arguments[1:3]))
    return (
        Copy(image.copy_bytes(channels_last=image.channels_last)),
        *_RESULTS,
        Copy(statistics),
        Copy(statistics),
        *((per_channel, per_channel) if is_affine else ()),
    )


def _group_norm_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """group_norm_kernel.cu: ds and db for each channel; c2 and c3 for each group, then c1.

    c1, the product of scale and deviation, is for the kernel of contiguous tensors.
    """
    gradient, image = tensor_argument(arguments, 0), tensor_argument(arguments, 1)
    batch, channels, groups = (integer_argument(arguments, index) for index in (5, 6, 8))
    per_channel = batch * channels * image.accumulate_bytes
    per_group = batch * groups * image.accumulate_bytes
    last = image.channels_last
    copies = (Copy(tensor.copy_bytes(channels_last=last)) for tensor in (gradient, image))
    c1 = Copy(0 if last else per_channel)
    return (*copies, *_RESULTS, per_channel, per_channel, per_group, per_group, c1)


NORMALIZATION_RULES: dict[str, Rule] = {
    # Normalization.cu, Normalization.cuh, cudnn/BatchNorm.cpp
    **each(
        """native_batch_norm.default _native_batch_norm_legit.default cudnn_batch_norm.default
        _native_batch_norm_legit.no_stats _batch_norm_with_update.default""",
        _channels_last_batch_norm(4, 0, 0),
    ),
    **each(
        "native_batch_norm_backward.default batch_norm_backward.default",
        _channels_last_batch_norm(2, 1, 0, 1),
    ),
    "aten.cudnn_batch_norm_backward.default": _channels_last_batch_norm(2, 0, 0, 1),
    "aten.native_layer_norm.default": _layer_norm,
    "aten.native_layer_norm_backward.default": _layer_norm_backward,
    "aten.native_group_norm.default": _group_norm,
    "aten.native_group_norm_backward.default": _group_norm_backward,
}
"""Overload name to rule."""
