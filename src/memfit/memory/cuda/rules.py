"""CUDA semantics on meta tensors: the rules that PyTorch gates on ``tensor.is_cuda()``.

A training step traced on meta tensors runs PyTorch's own code, with the choices that it makes for
a tensor that is on no GPU: no autocast, no fused dropout, the unfused attention, no cuDNN. The
rules here put CUDA's choices back. They are Python kernels on the dispatch key
``AutocastPrivateUse1``, which sits above autograd and which no NVIDIA build uses. The key is
switched on per thread (:func:`semantics`), so nothing changes for tensors outside a virtual GPU,
and the autograd engine carries it into backward as it carries any dispatch state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from memfit.memory.cuda import autocast
from memfit.memory.cuda.attention import AttentionPreference, scaled_dot_product_attention
from memfit.memory.cuda.autocast import AUTOCAST_POLICIES, CastCache
from memfit.memory.cuda.recurrent import RECURRENT_OPERATORS, run_recurrent
from memfit.torch_inside import excluding, has_kernel, key_set, switch_key

__all__ = ["AttentionPreference", "CudaSemantics", "is_ours", "semantics"]


Op = Callable[..., Any]

_KEY = "AutocastPrivateUse1"
_KEY_SET = key_set(_KEY)


@dataclass
class CudaSemantics:
    """What the rules need to know of the device that is played.

    Args:
        compute_capability: such as ``(8, 6)``.
        attention: which kernel ``scaled_dot_product_attention`` may use.
    """

    compute_capability: tuple[int, int] = (8, 6)
    attention: AttentionPreference = "auto"
    casts: CastCache = field(default_factory=CastCache)


_active: list[CudaSemantics] = []


@contextmanager
def semantics(device: CudaSemantics) -> Iterator[None]:
    """Play a CUDA device on this thread: the rules are on inside, and off again after."""
    _register()
    _active.append(device)
    if len(_active) == 1:
        switch_key(_KEY, on=True)
    try:
        yield
    finally:
        _active.pop()
        device.casts.clear()
        if not _active:
            switch_key(_KEY, on=False)


@cache
def _register() -> list[torch.library.Library]:
    """Install the kernels, once in a process; the libraries must stay referenced."""
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(torch.library.fallthrough_kernel, _KEY)
    kernels = torch.library.Library("aten", "IMPL")
    for name in sorted(_installed_policies() | _SEMANTIC_RULES.keys()):
        kernels.impl(name, partial(_kernel, name, _overload(name)), _KEY)
    return [fallback, kernels]


@cache
def _installed_policies() -> set[str]:
    """The operators of our table that autocast on the installed torch."""
    return {name for name in AUTOCAST_POLICIES if has_kernel(f"aten::{name}", "AutocastCUDA")}


def is_ours(op: Any) -> bool:
    """Whether a call of this operator comes through a kernel of these rules on its way."""
    name = op.name().removeprefix("aten::")
    return bool(_active) and (name in _SEMANTIC_RULES or name in _installed_policies())


def _overload(name: str) -> Op:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")  # type: ignore[no-any-return]


def _kernel(name: str, op: Op, *args: Any, **kwargs: Any) -> Any:
    """Cast as autocast does, then call what CUDA would."""
    with excluding(_KEY_SET):
        device = _active[-1]
        policy = AUTOCAST_POLICIES.get(name)
        if policy is not None and autocast.is_enabled():
            args, kwargs, op = autocast.apply_policy(policy, op, args, kwargs, device.casts)
        rule = _SEMANTIC_RULES.get(name)
        return op(*args, **kwargs) if rule is None else rule(device, op, *args, **kwargs)


def _dropout(_device: CudaSemantics, op: Op, input: Tensor, p: float, train: bool) -> Tensor:
    """CUDA drops with one fused kernel and keeps a one-byte mask.

    Source: ``is_fused_kernel_acceptable`` in ``aten/src/ATen/native/Dropout.cpp`` (2.15).
    """
    if train and 0 < p < 1 and input.numel() > 0:
        return torch.native_dropout(input, p, train)[0]
    return op(input, p, train)  # type: ignore[no-any-return]


def _attention(device: CudaSemantics, _op: Op, *args: Any, **kwargs: Any) -> Tensor:
    return scaled_dot_product_attention(
        *args,
        **kwargs,
        compute_capability=device.compute_capability,
        preference=device.attention,
    )


def _softmax(
    kernel: Op,
    _device: CudaSemantics,
    op: Op,
    input: Tensor,
    dim: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """CUDA reads float16 and writes float32 in one kernel, without a converted copy.

    Source: ``softmax`` and ``log_softmax`` in ``aten/src/ATen/native/SoftMax.cpp`` (2.15): the
    short cut is for float16 only, bfloat16 is converted first.
    """
    if input.dtype == torch.float16 and dtype == torch.float32:
        return kernel(input, dim, True)  # type: ignore[no-any-return]
    return op(input, dim, dtype)  # type: ignore[no-any-return]


def _recurrent(name: str, device: CudaSemantics, _op: Op, *args: Any) -> Any:
    """One call of cuDNN."""
    return run_recurrent(name, device.casts, *args)


_SEMANTIC_RULES: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "scaled_dot_product_attention": _attention,
    "softmax.int": partial(_softmax, torch.ops.aten._softmax.default),
    "log_softmax.int": partial(_softmax, torch.ops.aten._log_softmax.default),
    **{name: partial(_recurrent, name) for name in RECURRENT_OPERATORS},
}
