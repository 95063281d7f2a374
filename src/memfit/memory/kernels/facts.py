"""What a rule about a CUDA kernel may look at: the tensors it is given, and the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

__all__ = ["DeviceFacts", "TensorFacts"]

# Resident threads of a multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per
# Compute Capability".
_THREADS_PER_MULTIPROCESSOR = {
    (7, 5): 1024,
    (8, 6): 1536,
    (8, 7): 1536,
    (8, 9): 1536,
    (12, 0): 1536,
    (12, 1): 1536,
}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The GPU and the switches of PyTorch that decide which kernel runs.

    Attributes:
        compute_capability: (major, minor).
        multiprocessors: number of streaming multiprocessors.
        allow_tf32: ``torch.backends.cudnn.allow_tf32``; matrix products have their own switch.
        cudnn_benchmark: ``torch.backends.cudnn.benchmark``.
        torch_version: (major, minor) of the torch that will train.
    """

    compute_capability: tuple[int, int]
    multiprocessors: int
    allow_tf32: bool = True
    cudnn_benchmark: bool = False
    torch_version: tuple[int, int] = (2, 15)

    @property
    def threads_per_multiprocessor(self) -> int:
        """Resident threads of one multiprocessor."""
        return _THREADS_PER_MULTIPROCESSOR.get(self.compute_capability, 2048)


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A tensor argument.

    Attributes:
        shape: sizes.
        strides: in elements.
        dtype_bytes: of one element.
        dtype: such as "float32".
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype_bytes: int
    dtype: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of a dense copy."""
        return self.numel * self.dtype_bytes

    @property
    def accumulate_bytes(self) -> int:
        """Element size of ``at::toAccumulateType`` on CUDA: float32 for the half types."""
        return max(4, self.dtype_bytes)

    @property
    def channels_last(self) -> bool:
        """Whether ``suggest_memory_format`` says channels-last (2d or 3d).

        The rule is ``is_channels_last_strides_2d_s4`` / ``_3d_s5`` of
        ``c10/core/MemoryFormat.h`` (torch 2.11 to 2.15).
        """
        if len(self.shape) not in (4, 5) or self.strides[1] == 0:
            return False
        smallest = 0
        for dimension in (1, *range(len(self.shape) - 1, 1, -1), 0):
            size, stride = self.shape[dimension], self.strides[dimension]
            ambiguous = dimension == 0 and smallest == self.strides[1]
            if size == 0 or stride < smallest or ambiguous:
                return False
            smallest = stride * max(size, 1)
        return True

    def is_contiguous(self, *, channels_last: bool = False) -> bool:
        """Whether ``contiguous(memory_format)`` would return the tensor itself."""
        rank = len(self.shape)
        if channels_last and rank in (4, 5):
            order = (1, *range(rank - 1, 1, -1), 0)
        else:
            order = tuple(range(rank - 1, -1, -1))
        step = 1
        for dimension in order:
            if self.shape[dimension] != 1:
                if self.strides[dimension] != step:
                    return False
                step *= self.shape[dimension]
        return True

    def copy_bytes(self, *, channels_last: bool = False) -> int:
        """Bytes that ``contiguous(memory_format)`` allocates: 0 when nothing has to move."""
        if self.numel == 0 or self.is_contiguous(channels_last=channels_last):
            return 0
        return self.size_bytes
