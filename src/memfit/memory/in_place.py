"""What autograd does in place on a GPU, and out of place when somebody watches.

Under any dispatch mode, and on meta tensors always, PyTorch avoids some in-place operators: the
engine adds up the gradients of a tensor that is used twice with ``add`` instead of ``add_``, and
the backward of indexing scatters into a second tensor. A tape with those extra tensors would be
the watcher's, not the training step's. Calling the in-place twin gives the step's own.

Source (torch 2.11 to 2.15): ``isTensorSubclassLike`` in ``aten/src/ATen/TensorSubclassLikeUtils.h``
is true for both; it decides in ``can_accumulate_inplace`` (``torch/csrc/autograd/input_buffer.cpp``),
in ``index_backward`` and ``value_selecting_reduction_backward`` (``FunctionsManual.cpp``), and in
``gather_backward`` (``aten/src/ATen/native/TensorAdvancedIndexing.cpp``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["in_place_twin"]

_aten = torch.ops.aten

#: What autograd calls on a gradient that only it holds, and what it would have called.
_TWINS = {
    _aten.add.Tensor: _aten.add_.Tensor,
    _aten.index_put.default: _aten.index_put_.default,
    _aten.scatter.src: _aten.scatter_.src,
    _aten.scatter_add.default: _aten.scatter_add_.default,
}

# References to a tensor that only the engine holds, seen from a dispatch mode: the engine's own,
# the argument on the operator's stack, the Python object and the conversion between them; and to
# its storage: the tensor's and the Python object's. A test measures both on the installed torch.
_TENSOR_REFERENCES = 4
_STORAGE_REFERENCES = 2


def in_place_twin(func: Any, args: tuple[Any, ...]) -> Any:
    """The operator that autograd calls when nobody watches, or ``func`` itself.

    Args:
        func: the operator that a dispatch mode was given during backward.
        args: its positional arguments; the twin writes into the first.
    """
    twin = _TWINS.get(func)
    if twin is None or torch.is_grad_enabled():
        return func
    target = args[0]
    if func is _aten.add.Tensor and not _are_gradients_of_one_tensor(target, args[1]):
        return func
    return twin if _is_unshared(target) else func


def _are_gradients_of_one_tensor(first: Any, second: Any) -> bool:
    return (
        isinstance(second, Tensor)
        and first.shape == second.shape
        and first.dtype == second.dtype
        and bool(_aten.is_non_overlapping_and_dense(first))
    )


def _is_unshared(tensor: Tensor) -> bool:
    storage = tensor.untyped_storage()
    return (
        tensor._use_count() == _TENSOR_REFERENCES  # type: ignore[attr-defined]
        and torch._C._storage_Use_Count(storage._cdata) == _STORAGE_REFERENCES  # type: ignore[attr-defined]
    )
