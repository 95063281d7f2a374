"""The buffer of a reduction that is split over thread blocks.

``gpu_reduce_kernel`` allocates partial results and semaphores when it splits one output over
several blocks; how it splits is ``setReduceConfig`` in ``aten/src/ATen/native/cuda/Reduce.cuh``
(torch 2.11 to 2.15). ``global_memory_size`` multiplies the block width and the *number of outputs*
where the number of blocks would do, so a sum that keeps the fastest dimension, such as the
gradient of a bias, takes up to 128 times what it writes: 108 MiB on an A100 for ``[65536, 768]``.
The number of blocks is what fills the GPU, held between 16 and 256 values for a thread: the size
is piecewise affine in the batch, constant where the GPU is just filled.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts

__all__ = ["reduction_buffers"]

_WARP = 32
_MAX_THREADS = 512  # mnt_wrapper::MAX_NUM_THREADS, the default
_VECTOR = 4  # vt0 and input_vec_size of sum and most others
_MIN_PER_THREAD, _MAX_PER_THREAD = 16, 256


@dataclass(frozen=True, slots=True)
class _Loops:
    """The input as TensorIterator sees it: (size, stride) with mergeable dimensions merged."""

    reduced: tuple[tuple[int, int], ...]
    kept: tuple[tuple[int, int], ...]

    @property
    def inputs(self) -> int:
        """Elements summed into one output."""
        return prod(size for size, _ in self.reduced)

    @property
    def outputs(self) -> int:
        """Elements of the result."""
        return prod(size for size, _ in self.kept)

    @property
    def along_fastest(self) -> bool:
        """Whether the dimension with the smallest stride is reduced."""
        return not self.kept or self.reduced[0][1] < self.kept[0][1]

    @property
    def fastest_stride(self) -> int:
        """In elements."""
        return (self.reduced if self.along_fastest else self.kept)[0][1]


def _merged(dimensions: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for size, stride in sorted(dimensions, key=lambda d: d[1]):
        if merged and merged[-1][0] * merged[-1][1] == stride:
            merged[-1] = (merged[-1][0] * size, merged[-1][1])
        else:
            merged.append((size, stride))
    return tuple(merged)


def _loops(tensor: TensorFacts, dimensions: Collection[int]) -> _Loops:
    reduced: list[tuple[int, int]] = []
    kept: list[tuple[int, int]] = []
    for index, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True)):
        if size != 1:
            (reduced if index in dimensions else kept).append((size, stride))
    return _Loops(_merged(reduced), _merged(kept))


def _last_power_of_2(number: int) -> int:
    return 1 << (max(1, number).bit_length() - 1)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _output_vector(loops: _Loops) -> int:
    """``get_output_vec_size``, for an aligned input."""
    vector = _VECTOR
    for number in [loops.kept[0][0], *(s for _, s in (*loops.reduced, *loops.kept[1:]))]:
        while number % vector:
            vector //= 2
    return vector


def _block(dim0: int, dim1: int, vector: int) -> tuple[int, int]:
    """``set_block_dimension``: (width, height) in threads."""
    threads = _MAX_THREADS // vector
    power0, power1 = (min(_last_power_of_2(d), threads) for d in (dim0, dim1))
    width = min(power0, _WARP)
    height = min(power1, threads // width)
    return min(power0, threads // height), height


def reduction_buffers(
    tensor: TensorFacts, dimensions: Collection[int], partial_bytes: int, device: DeviceFacts
) -> tuple[int, int]:
    """Partial results and semaphores of a reduction.

    Args:
        tensor: the input.
        dimensions: which are reduced, none negative.
        partial_bytes: size of one partial result (4 for a sum, 16 for a variance in float32).
        device: the GPU.

    Returns:
        Bytes of both, 0 when no output is split over blocks.
    """
    loops = _loops(tensor, dimensions)
    if tensor.numel == 0 or not loops.reduced:
        return 0, 0
    along, vector = loops.along_fastest, 1
    dim0, dim1 = (loops.inputs, loops.outputs) if along else (loops.outputs, loops.inputs)
    if loops.fastest_stride == 1 and along and dim0 >= 128 and len(loops.reduced) == 1:
        dim0 //= _VECTOR
    elif loops.fastest_stride == 1 and not along:
        vector = _output_vector(loops)
        dim0 //= vector
    width, height = _block(dim0, dim1, vector)
    step_input, step_output = (width, 1) if along else (1, width)
    split_height = _ceil(loops.inputs, step_input) >= min(height * 16, _MAX_PER_THREAD)
    if split_height:
        step_input *= height
    else:
        step_output *= height
    grid = _ceil(loops.outputs // vector, step_output)
    blocks = _blocks_per_output(
        _ceil(loops.inputs, step_input), grid, width * height, split_height, device
    )
    if blocks <= 1:
        return 0, 0
    lanes = 1 if along else width * vector
    return partial_bytes * loops.outputs * blocks * lanes, 4 * grid


def _blocks_per_output(
    values: int, grid: int, threads: int, split_height: bool, device: DeviceFacts
) -> int:
    """``ctas_per_output``: values is what one thread would add up without a split."""
    target = device.multiprocessors * (device.threads_per_multiprocessor // threads)
    if not split_height or values < _MAX_PER_THREAD or grid > target:
        return 1
    low, high = _ceil(values, _MAX_PER_THREAD), _ceil(values, _MIN_PER_THREAD)
    return min(max(_ceil(target, grid), low), high)
