"""What indexing and embeddings allocate inside their backward: sorted indices, sums by segment.

Sources, torch 2.15: ``Embedding.cu``, ``EmbeddingBackwardKernel.cu``, ``Indexing.cu`` in
``aten/src/ATen/native/cuda``, ``aten/src/ATen/cuda/cub.cuh``; and of CUB (CCCL 3.2, CUDA 13.2)
``dispatch_radix_sort.cuh``, ``dispatch_scan.cuh`` and their tunings.
"""

from __future__ import annotations

from collections.abc import Sequence

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.rules import (
    Arguments,
    Outputs,
    Rule,
    argument,
    each,
    integer_argument,
    tensor_argument,
    tensors_in,
)
from memfit.memory.kernels.scope import Copy, Result, Returned, Scope

__all__ = ["INDEXING_RULES"]

_INDEX_BYTES = 8
_WARP = 32


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# -- CUB -----------------------------------------------------------------------------------------


def _cub_storage(*parts: int) -> int:
    """``alias_temporaries``: each part starts at a multiple of 256 bytes, as does the first."""
    return sum(_ceil(part, 256) * 256 for part in parts) + 255


def _sort_pairs_storage(count: int, wide: int, bits: int, device: DeviceFacts) -> int:
    """``DeviceRadixSort::SortPairs`` of indices with their places, both of so many bytes.

    One block sorts what fits a tile; else the one-sweep algorithm takes 8 bits in each pass.
    """
    if count <= 256 * (19 * 4 // wide):
        return 1
    threads, items = (384, 24) if device.compute_capability >= (9, 0) else (384, 21)
    tiles = _ceil(count, threads * (items * 4 // wide))
    passes = _ceil(bits, 8)
    is_twice = passes > 1
    return _cub_storage(
        passes * 256 * 8,  # bins
        tiles * 256 * 4,  # look-back
        count * wide * is_twice,
        count * wide * is_twice,
        passes * 4,  # counters
    )


def _scan_storage(count: int, wide: int) -> int:
    """``DeviceScan::ExclusiveSum`` of integers of so many bytes.

    Blocks of 128 threads take 15 values of 4 bytes, or as much of 8 (``tuning_scan.cuh``). A tile's
    state is its sum and a flag as wide (``ScanTileState`` in ``single_pass_scan_operators.cuh``).
    """
    return _tile_states(_ceil(count, 128 * (15 * 4 // wide)), wide)


def _unique_storage(count: int, wide: int, device: DeviceFacts) -> int:
    """``DeviceSelect::UniqueByKey``: a scan of int64 offsets, whatever the keys are.

    Tiles are those of ``tuning_unique_by_key.cuh``; what is tuned for 10.0 is not looked at.
    """
    threads, items = 64, 11 * 4 // wide
    if device.compute_capability >= (9, 0):
        threads, items = (512, 14) if wide == 4 else (448, 11)
    elif device.compute_capability == (8, 0):
        threads, items = (256, 11) if wide == 4 else (192, 7)
    return _tile_states(_ceil(count, threads * items), 8)


def _tile_states(tiles: int, wide: int) -> int:
    """A value and a flag for each tile, and for a warp of them before the first."""
    return _cub_storage((tiles + _WARP) * 2 * wide, 1)


# -- embeddings ----------------------------------------------------------------------------------


def _embedding_backward(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """Sort the indices, sum their rows by segments.

    Up to 3,072 indices nothing is allocated. Beyond, the indices are sorted with their places,
    and rows with one index, a segment, are added up ten at a time: at most min(indices, rows of
    the table) segments, the one size here that is not affine in the batch.
    """
    gradient, indices = tensor_argument(arguments, 0), tensor_argument(arguments, 1)
    rows, by_frequency = integer_argument(arguments, 2), bool(arguments[4])
    is_sorted = indices.numel > 3072 or by_frequency
    size = indices.size_bytes if is_sorted else 0
    bits = rows.bit_length()
    sort = _sort_pairs_storage(indices.numel, indices.dtype_bytes, bits, device) * is_sorted
    wide = indices.dtype_bytes
    scan = (_scan_storage(indices.numel, wide) * is_sorted,)
    unique = _unique_storage(indices.numel, wide, device) * is_sorted
    count: Scope = (size, scan, scan) if by_frequency else ()
    return (
        Copy(indices.copy_bytes()),
        Copy(gradient.copy_bytes()),
        *(size, size, (size, sort)),
        *count,
        Result(0),
        *(size, 8 * is_sorted, (size, unique)),
        *_segment_sums(gradient, size, indices.dtype_bytes, rows, device),
    )


def _segment_sums(
    gradient: TensorFacts, sorted_bytes: int, index_bytes: int, rows: int, device: DeviceFacts
) -> Scope:
    """Where each part of a segment begins, and the parts' sums in float32.

    From torch 2.15 few long segments are added up by atomics, into a float32 table where the
    gradient is of a half type.
    """
    width, count = gradient.shape[-1], sorted_bytes // index_bytes
    is_sorted = count > 0
    segments = min(count, rows)
    parts = count // 10 + segments
    padded = _ceil(width, _WARP) * _WARP
    blocks = _ceil(segments * padded, min(padded, 1024))
    is_atomic = blocks < 4 * device.multiprocessors and parts > 4 * blocks
    offsets = (segments * index_bytes,) * 2
    starts = 8 * is_sorted, parts * index_bytes
    scan = (_scan_storage(segments, index_bytes) * is_sorted,)
    sums = parts * width * gradient.accumulate_bytes
    if is_atomic and device.torch_version >= (2, 15):
        is_half = gradient.dtype_bytes == 2
        sums = rows * width * gradient.accumulate_bytes * is_half * is_sorted
        return (*offsets, scan, *starts, parts * index_bytes, sums)
    return (*offsets, scan, *starts, 0, sums)


# -- index_put -----------------------------------------------------------------------------------


def _index_put(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """``index_put_with_sort_kernel``: linear indices, sorted with their places.

    Each index is wrapped, multiplied by its stride and added to the first. Bounds are checked
    where a program calls it, by a few scalars; backward, which they are left out for, does not.
    """
    target, listed, values = tensor_argument(arguments, 0), arguments[1], arguments[2]
    if not bool(argument(arguments, 3, False)) or not isinstance(listed, Sequence):
        return ()
    indices = tensors_in(listed)
    count = max((tensor.numel for tensor in indices), default=0)
    size = count * _INDEX_BYTES
    indexed = [n for n, index in enumerate(listed) if index is not None]
    places = 1
    for dimension in range(max(indexed, default=-1) + 1):
        places *= target.shape[dimension]
    storage = _sort_pairs_storage(count, _INDEX_BYTES, max(1, (places - 1).bit_length()), device)
    more = ((size, size),) * (len(indices) - 1)
    copy = Copy(values.copy_bytes()) if isinstance(values, TensorFacts) else Copy(0)
    return ((size, Returned(size)), *more, copy, size, size, (size, storage))


INDEXING_RULES: dict[str, Rule] = {
    "aten.embedding_dense_backward.default": _embedding_backward,
    **each(
        """index_put.default index_put_.default _index_put_impl_.default
        _unsafe_index_put.default""",
        _index_put,
    ),
}
"""Overload name to rule."""
