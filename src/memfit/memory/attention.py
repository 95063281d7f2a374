"""Which kernel CUDA uses for ``scaled_dot_product_attention``, and what it keeps.

The choice follows ``select_sdp_backend`` and its checks in
``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and ``sdp_utils_cpp.h``; the call follows
``scaled_dot_product_attention`` in ``aten/src/ATen/native/transformers/attention.cpp`` (torch 2.11
to 2.15). Every chosen operator has a meta kernel and autograd, so what is kept for backward is
what CUDA keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "AttentionBackend",
    "AttentionPreference",
    "AttentionProblem",
    "choose_backend",
    "scaled_dot_product_attention",
]

AttentionPreference = Literal["auto", "flash", "efficient", "math"]

_HALF = ("float16", "bfloat16")


class AttentionBackend(StrEnum):
    """The kernels of ``scaled_dot_product_attention`` on CUDA."""

    FLASH = "flash"
    CUDNN = "cudnn"
    EFFICIENT = "efficient"
    MATH = "math"


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """What the choice depends on.

    Args:
        dtype: such as ``"float16"``.
        query_shape: ``(N, heads, L, E)``.
        key_shape: ``(N, key heads, S, E)``.
        value_shape: ``(N, key heads, S, Ev)``.
        has_mask: whether there is an ``attn_mask``.
        dropout: the probability.
        needs_gradient: whether backward will run.
        grouped: ``enable_gqa``: several query heads share one key head.
    """

    dtype: str
    query_shape: tuple[int, ...]
    key_shape: tuple[int, ...]
    value_shape: tuple[int, ...]
    has_mask: bool = False
    dropout: float = 0.0
    needs_gradient: bool = True
    grouped: bool = False


def choose_backend(
    problem: AttentionProblem,
    compute_capability: tuple[int, int],
    preference: AttentionPreference = "auto",
) -> AttentionBackend:
    """The first backend, in PyTorch's order, that accepts the problem.

    Args:
        problem: shapes and options.
        compute_capability: such as ``(8, 6)``.
        preference: as ``torch.nn.attention.sdpa_kernel``; a kernel that does not accept the
            problem falls back to ``math``.
    """
    accepts = {
        AttentionBackend.CUDNN: preference == "auto"
        and _accepts_cudnn(problem, compute_capability),
        AttentionBackend.FLASH: preference in ("auto", "flash")
        and _accepts_flash(problem, compute_capability),
        AttentionBackend.EFFICIENT: preference in ("auto", "efficient")
        and _accepts_efficient(problem, compute_capability),
    }
    return next((backend for backend, yes in accepts.items() if yes), AttentionBackend.MATH)


def _is_dense_batch(problem: AttentionProblem) -> bool:
    shapes = (problem.query_shape, problem.key_shape, problem.value_shape)
    return all(len(shape) == 4 and 0 not in shape for shape in shapes)


def _accepts_flash(problem: AttentionProblem, capability: tuple[int, int]) -> bool:
    """``can_use_flash_attention``: half types, Ampere or newer, no mask, heads up to 256."""
    width = problem.query_shape[-1]
    if not (_is_dense_batch(problem) and problem.dtype in _HALF and capability >= (8, 0)):
        return False
    if problem.has_mask or width > 256 or problem.value_shape[-1] != width:
        return False
    # check_flash_attention_head_dim_size_constraints on sm86, sm89 and sm12x
    is_small_chip = capability in ((8, 6), (8, 9)) or capability[0] == 12
    if is_small_chip and problem.needs_gradient and width > 224 and problem.dropout > 0:
        return False
    return problem.grouped or problem.query_shape[1] == problem.key_shape[1]


def _accepts_cudnn(problem: AttentionProblem, capability: tuple[int, int]) -> bool:
    """``check_prefer_cudnn_attention``: first choice on Hopper and datacentre Blackwell only."""
    width = problem.query_shape[-1]
    return (
        capability in ((9, 0), (10, 0))
        and _is_dense_batch(problem)
        and problem.dtype in _HALF
        and width % 8 == 0
        and problem.value_shape[-1] % 8 == 0
        and max(width, problem.value_shape[-1]) <= 128
        and min(problem.query_shape[2], problem.key_shape[2]) > 1
    )


def _accepts_efficient(problem: AttentionProblem, capability: tuple[int, int]) -> bool:
    """``can_use_mem_efficient_attention``: widths aligned to what its matrix products load."""
    if not _is_dense_batch(problem) or problem.grouped:
        return False
    if problem.dtype == "bfloat16" and capability < (8, 0):
        return False
    if problem.dtype not in (*_HALF, "float32"):
        return False
    if problem.query_shape[1] != problem.key_shape[1]:
        return False
    alignment = 8 if problem.dtype in _HALF else (4 if capability >= (8, 0) else 1)
    return problem.query_shape[-1] % alignment == 0 and problem.value_shape[-1] % alignment == 0


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    compute_capability: tuple[int, int],
    preference: AttentionPreference = "auto",
) -> Tensor:
    """Attention as CUDA would compute it, on meta tensors.

    Args:
        query: ``(N, heads, L, E)``.
        key: ``(N, key heads, S, E)``.
        value: ``(N, key heads, S, Ev)``.
        attn_mask: boolean or additive, expandable to ``(N, heads, L, S)``.
        dropout_p: of attention weights.
        is_causal: lower-triangular mask.
        scale: of the scores.
        enable_gqa: several query heads share one key head.
        compute_capability: of the GPU.
        preference: which kernel may be used.

    Returns:
        ``(N, heads, L, Ev)``.
    """
    tensors = (query, key, value)
    problem = AttentionProblem(
        dtype=str(query.dtype)[6:],
        query_shape=tuple(query.shape),
        key_shape=tuple(key.shape),
        value_shape=tuple(value.shape),
        has_mask=attn_mask is not None,
        dropout=dropout_p,
        needs_gradient=torch.is_grad_enabled() and any(t.requires_grad for t in tensors),
        grouped=enable_gqa and query.shape[1] != key.shape[1],
    )
    backend = choose_backend(problem, compute_capability, preference)
    attn_mask = _additive(attn_mask, query.dtype)
    if backend is AttentionBackend.FLASH:
        return _flash(query, key, value, dropout_p, is_causal, scale)
    if backend is AttentionBackend.MATH:
        math = torch.ops.aten._scaled_dot_product_attention_math
        return math(  # type: ignore[no-any-return]
            query, key, value, attn_mask, dropout_p, is_causal, None,
            scale=scale, enable_gqa=enable_gqa,
        )[0]  # fmt: skip
    bias = _expanded(attn_mask, query, key)
    keeps = problem.needs_gradient
    if backend is AttentionBackend.CUDNN:
        cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention
        return cudnn(query, key, value, bias, keeps, dropout_p, is_causal, False, scale=scale)[0]  # type: ignore[no-any-return]
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, bias, keeps, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """Heads are padded to a multiple of 8 (``pad_last_dim<8>``) and the output is cut again."""
    width = query.shape[-1]
    if padding := -width % 8:
        query, key, value = (F.pad(t, (0, padding)) for t in (query, key, value))
        scale = width**-0.5 if scale is None else scale
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    output: Tensor = flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    return output[..., :width] if padding else output


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """``convert_boolean_attn_mask``: zeros where attended, minus infinity elsewhere."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))


def _expanded(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """``pad_bias<16>`` and expand: rows of a bias start at multiples of 16 elements."""
    if mask is None:
        return None
    keys = key.shape[2]
    if mask.shape[-1] == keys and (padding := -keys % 16):
        mask = F.pad(mask, (0, padding))[..., :keys]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], keys)
