"""What PyTorch does in place on a GPU, and out of place when somebody watches.

Under any dispatch mode, and on meta tensors always, PyTorch's own C++ code avoids some in-place
operators: the engine adds up the gradients of a tensor that is used twice with ``add`` instead of
``add_``, ``linear`` adds its bias so, and the backward of indexing scatters into a second tensor.
A tape with those extra tensors would be the watcher's, not the training step's. Calling the
in-place twin gives the step's own. ``bench/oracle.py`` holds the result against the profiler.

Source (torch 2.11 to 2.15): ``isTensorSubclassLike`` in ``aten/src/ATen/TensorSubclassLikeUtils.h``
is true for both. It decides in ``can_accumulate_inplace`` (``autograd/input_buffer.cpp``),
``linear`` (``aten/src/ATen/native/Linear.cpp``), the mask of ``_scaled_dot_product_attention_math``
(``native/transformers/attention.cpp``), ``index_backward`` and
``value_selecting_reduction_backward`` (``FunctionsManual.cpp``), ``gather_backward`` and
``index_select_backward`` (``native/TensorAdvancedIndexing.cpp``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memfit.memory.cuda.rules import is_ours
from memfit.torch_inside import in_backward, reference_counts

__all__ = ["in_place_twin"]

_aten = torch.ops.aten

#: Operator, its in-place twin, and the references to the tensor that the twin would overwrite
#: when one variable of C++ code is its only owner: that variable, the argument on the operator's
#: stack, the Python object and the conversion between them (Python code makes one fewer); and one
#: more where the caller was handed the tensor itself. A test measures them on the installed torch.
_TWINS = {
    _aten.add.Tensor: (_aten.add_.Tensor, 4),
    _aten.index_put.default: (_aten.index_put_.default, 5),
    _aten.index_add.default: (_aten.index_add_.default, 4),
    _aten.scatter.src: (_aten.scatter_.src, 4),
    _aten.scatter_add.default: (_aten.scatter_add_.default, 4),
}

_STORAGE_REFERENCES = 2  # the tensor and the Python object


def in_place_twin(func: Any, args: tuple[Any, ...]) -> Any:
    """The operator that PyTorch calls when nobody watches, or ``func`` itself.

    Args:
        func: the operator that a dispatch mode was given.
        args: its positional arguments; the twin writes into the first.
    """
    if func not in _TWINS:
        return func
    twin, references = _TWINS[func]
    target = args[0]
    is_backward = in_backward()
    if func is _aten.add.Tensor:
        is_wanted = _is_accumulation if is_backward else _is_bias_or_mask
        if not is_wanted(target, args[1]):
            return func
    elif not is_backward:
        return func
    references += is_ours(func)  # our kernel has the argument on a stack, too
    has_one_owner = reference_counts(target) == (references, _STORAGE_REFERENCES)
    return twin if has_one_owner else func


def _is_accumulation(first: Tensor, second: Any) -> bool:
    """Whether the engine may be adding up two gradients of one tensor, and may do it in place."""
    return (
        isinstance(second, Tensor)
        and first.shape == second.shape
        and first.dtype == second.dtype
        and not torch.is_grad_enabled()
        and bool(_aten.is_non_overlapping_and_dense(first))
    )


def _is_bias_or_mask(first: Tensor, second: Any) -> bool:
    """Whether this adds something smaller to a result."""
    is_leaf = first.requires_grad and first.is_leaf
    return (
        isinstance(second, Tensor)
        and not is_leaf
        and 0 < second.dim() <= first.dim()
        and second.numel() < first.numel()
        and torch.result_type(first, second) == first.dtype
        and all(
            b in (1, a) for a, b in zip(first.shape[-second.dim() :], second.shape, strict=True)
        )
    )
