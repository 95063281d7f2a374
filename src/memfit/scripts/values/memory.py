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

__all__ = ["Marks", "clear", "elements", "on_host", "to_host"]

#: Marks that are kept without looking which have ended.
_FEWEST = 1024


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


def clear(tensor: Tensor) -> None:
    """Zero the whole storage of a tensor on the GPU, which gives its memory back to the host."""
    storage = tensor.untyped_storage()
    if tensor.is_cuda and storage.nbytes():
        _memset()(storage.data_ptr(), 0, storage.nbytes())


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
