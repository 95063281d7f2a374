"""The bytes of a GPU that is not there are this process's: tensors of the host over them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from memfit.torch_inside import host_storage, storage_key

__all__ = ["Marks", "clear", "elements", "give_back_zeros", "on_host", "to_host", "write"]

#: Marks that are kept without looking which have ended.
_FEWEST = 1024
#: Bytes of a tensor whose pages are worth asking whether they hold anything but zeros.
_WORTH_GIVING_BACK = 1 << 18
_ORDERS = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)


def elements(tensors: Iterable[Tensor]) -> int:
    """How many there are in all."""
    return sum(tensor.numel() for tensor in tensors)


def on_host(tensor: Tensor) -> Tensor:
    """A tensor of the host that shares the bytes of one on the virtual GPU."""
    storage = tensor.untyped_storage()
    bytes_of_host = host_storage(storage.data_ptr(), storage.nbytes())
    shape, strides = tensor.shape, tensor.stride()
    return torch.empty(0, dtype=tensor.dtype).set_(
        bytes_of_host, tensor.storage_offset(), shape, strides
    )


def to_host(value: Any) -> Any:
    """An argument as an operator of the host takes it."""
    if isinstance(value, Tensor):
        return on_host(value) if value.is_cuda else value
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_host, value)) if type(value) in (list, tuple) else value
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    if isinstance(value, torch.Generator):
        return None
    return value


def write(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor the values of one of the host; zeros on the GPU take no memory."""
    if tensor.is_cuda and value.nbytes >= _WORTH_GIVING_BACK and not value.any():
        clear(tensor)
    else:
        to_host(tensor).copy_(value)


def clear(tensor: Tensor) -> None:
    """Zero a tensor on the GPU, or its storage where it has gaps, and give its memory back."""
    storage = tensor.untyped_storage()
    if tensor.is_cuda and storage.nbytes():
        is_alone = _has_no_gaps(tensor)
        at, size_bytes = (tensor, tensor.nbytes) if is_alone else (storage, storage.nbytes())
        _memset()(at.data_ptr(), 0, size_bytes)


def give_back_zeros(tensor: Tensor) -> None:
    """Whatever zeros were written to a tensor on the GPU take no memory."""
    is_large = tensor.is_cuda and tensor.nbytes >= _WORTH_GIVING_BACK
    if is_large and _has_no_gaps(tensor) and not on_host(tensor).any():
        clear(tensor)


def _has_no_gaps(tensor: Tensor) -> bool:
    return any(tensor.is_contiguous(memory_format=order) for order in _ORDERS)


@cache
def _memset() -> Any:
    memset = ctypes.CDLL(None).cudaMemset  # of CUDA's runtime, which is loaded
    memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    return memset


class Marks:
    """Storages whose values somebody made up, and those of the host with values of the GPU."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[StorageWeakRef, bool]] = {}
        self._room = _FEWEST

    def __bool__(self) -> bool:
        return bool(self._marks)

    def of(self, tensors: Iterable[Tensor]) -> bool | None:
        """Whether any of them is made up; None where none is marked."""
        found = None
        for tensor in tensors:
            mark = self._marks.get(storage_key(tensor))
            if mark is not None:
                if mark[1]:
                    return True
                found = False
        return found

    def set(self, tensor: Tensor, is_made_up: bool) -> None:
        """Mark a storage; the mark ends with it."""
        if len(self._marks) >= self._room:
            self._marks = {key: mark for key, mark in self._marks.items() if not mark[0].expired()}
            self._room = _FEWEST + 2 * len(self._marks)
        # A weak reference keeps the key from being given to another storage.
        self._marks[storage_key(tensor)] = StorageWeakRef(tensor.untyped_storage()), is_made_up

    def drop(self, tensor: Tensor) -> None:
        """Its values are real."""
        self._marks.pop(storage_key(tensor), None)
