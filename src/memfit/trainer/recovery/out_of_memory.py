"""Which errors mean that memory ran out, and how to let go of what they hold."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import torch

from memfit.errors import DoesNotFit

__all__ = [
    "OutOfMemoryKept",
    "is_out_of_memory",
    "let_go",
    "preparing",
    "release",
    "release_accelerator_cache",
]

#: How libraries that allocate beside PyTorch's allocator say that they could not, in a plain
#: ``RuntimeError``. Searched as they are, so an illegal access or a wrong argument is none of them.
#: PyTorch 2.11 to 2.15: ``AT_CUDNN_CHECK`` and ``TORCH_CUDABLAS_CHECK`` put the status's name into
#: the text (``aten/src/ATen/cuda/Exceptions.h``; names of cuDNN 8 and 9, cuBLAS, cuSOLVER),
#: ``c10_cuda_check_implementation`` what ``cudaGetErrorString`` says
#: (``c10/cuda/CUDAException.cpp``), ``check_cudnn_sdpa_execution`` words of its own
#: (``aten/src/ATen/native/cudnn/MHA.cpp``).
_TEXTS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUDA ran out of memory outside PyTorch's allocator",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "HIP out of memory",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch can help: memory ran out, and the device is still well.

    Args:
        error: what forward or backward raised.

    Example:
        >>> is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
        True
        >>> is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def let_go(error: BaseException) -> None:
    """Clear the frames that an error came through: their variables hold activations."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]


def release_accelerator_cache() -> None:
    """Give cached blocks back to the device, so that blocks of other sizes can be made."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def release(give_back: Callable[[], None]) -> None:
    """Free what only the collector can, then release the cache; call it outside ``except``."""
    gc.collect()
    give_back()


class OutOfMemoryKept:
    """Memory may run out inside ``with``: the block ends there, and goes on behind it.

    The error is let go of with all that it holds; any other error is raised as ever.

    Attributes:
        message: the first line of the error; None where memory was enough.

    Example:
        >>> with OutOfMemoryKept() as kept:
        ...     raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        >>> kept.message
        'CUDA out of memory. Tried to allocate 2.00 GiB.'
    """

    def __init__(self) -> None:
        self.message: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None or not is_out_of_memory(error):
            return False
        let_go(error)
        self.message = str(error).partition("\n")[0]
        return True


@contextmanager
def preparing() -> Iterator[None]:
    """Out of memory inside, before the first step: no batch is small enough.

    Raises:
        DoesNotFit: instead of what PyTorch raises.
    """
    with OutOfMemoryKept() as kept:
        yield
    if kept.message is not None:
        raise DoesNotFit(
            f"The model and the optimizer's state do not fit: {kept.message}",
            hint="Ask `memfit plan` what they need, and for ways to need less.",
        )
