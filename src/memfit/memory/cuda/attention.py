"""``scaled_dot_product_attention`` as CUDA computes it, on meta tensors.

Follows ``scaled_dot_product_attention`` and ``_scaled_dot_product_attention_math`` in
``aten/src/ATen/native/transformers/attention.cpp`` (torch 2.11 to 2.15): the conversion of the
mask, the padding that the chosen kernel wants, its operator, and the cut of the output. The fused
operators have meta kernels and autograd, so what stays for backward is what CUDA keeps. What they
allocate inside is in :mod:`memfit.memory.kernels.attention_temporaries`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from memfit.errors import StepError
from memfit.memory.cuda.attention_backend import (
    AttentionBackend,
    AttentionPreference,
    AttentionProblem,
    Choice,
    choose_backend,
)
from memfit.memory.kernels.transients import installed_torch_version

__all__ = ["AttentionPreference", "scaled_dot_product_attention"]

aten = torch.ops.aten

_HALF = (torch.float16, torch.bfloat16)
# cuDNN does not take minus infinity: ``convert_boolean_attn_mask_cudnn``.
_MASKED_OUT = {AttentionBackend.CUDNN: -65504.0}


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
    """Attention with the kernel, the copies and the saved tensors of a CUDA device.

    Args:
        query: ``(N, heads, L, E)``.
        key: ``(N, key heads, S, E)``.
        value: ``(N, key heads, S, Ev)``.
        attn_mask: boolean or additive, expandable to ``(N, heads, L, S)``.
        dropout_p: probability of dropping an attention weight.
        is_causal: lower-triangular mask.
        scale: of the scores; ``E ** -0.5`` when None.
        enable_gqa: several query heads share one key head.
        compute_capability: of the GPU.
        preference: which kernel may be used, besides ``math``.

    Returns:
        ``(N, heads, L, Ev)``.

    Raises:
        StepError: the program switched off every kernel that accepts these tensors.
    """
    problem = _problem(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    choice = choose_backend(
        problem, compute_capability, preference, torch_version=installed_torch_version()
    )
    backend = choice.backend
    if backend is None:
        raise _no_kernel(problem, choice)
    masked_out = _MASKED_OUT.get(backend, -math.inf)
    mask = _additive(attn_mask, query.dtype, masked_out)
    if backend is AttentionBackend.FLASH:
        return _flash(query, key, value, dropout_p, is_causal, scale)
    if backend is AttentionBackend.MATH:
        return _math(query, key, value, mask, dropout_p, is_causal, scale, enable_gqa)
    kernel = aten._scaled_dot_product_cudnn_attention
    if backend is AttentionBackend.EFFICIENT:
        kernel = aten._scaled_dot_product_efficient_attention
        if mask is not None:
            mask = _bias(mask, query, key)  # frees a mask that is padded
    keeps_logsumexp = problem.requires_grad or _trains_only_mask(problem)
    output: Tensor = kernel(
        query, key, value, mask, keeps_logsumexp, dropout_p, is_causal, scale=scale
    )[0]
    return output


# -- the choice ----------------------------------------------------------------------------------


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    enable_gqa: bool,
) -> AttentionProblem:
    tensors = (query, key, value)
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return AttentionProblem(
        dtype=str(query.dtype).removeprefix("torch."),
        query_shape=tuple(query.shape),
        key_shape=tuple(key.shape),
        value_shape=tuple(value.shape),
        mask_shape=None if mask is None else tuple(mask.shape),
        mask_requires_grad=mask is not None and mask.requires_grad,
        is_causal=is_causal,
        dropout_p=dropout_p,
        requires_grad=torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
        enable_gqa=enable_gqa,
        deterministic=torch.are_deterministic_algorithms_enabled() and not only_warns,
        unit_strides=all(tensor.stride(-1) == 1 for tensor in tensors),
        mask_unit_stride=mask is None or mask.stride(-1) == 1,
        storage_offsets=tuple(int(tensor.storage_offset()) for tensor in tensors),
        disabled=_disabled_backends(),
    )


def _disabled_backends() -> frozenset[AttentionBackend]:
    """What ``torch.nn.attention.sdpa_kernel`` or ``torch.backends.cuda`` switched off."""
    enabled = {
        AttentionBackend.FLASH: torch.backends.cuda.flash_sdp_enabled(),
        AttentionBackend.EFFICIENT: torch.backends.cuda.mem_efficient_sdp_enabled(),
        AttentionBackend.CUDNN: torch.backends.cuda.cudnn_sdp_enabled(),
        AttentionBackend.MATH: torch.backends.cuda.math_sdp_enabled(),
    }
    return frozenset(backend for backend, is_enabled in enabled.items() if not is_enabled)


def _trains_only_mask(problem: AttentionProblem) -> bool:
    """Before 2.14 there was no logsumexp then, and backward failed."""
    if installed_torch_version() < (2, 14):
        return False
    return problem.mask_requires_grad and torch.is_grad_enabled()


def _no_kernel(problem: AttentionProblem, choice: Choice) -> StepError:
    reasons = "; ".join(f"{backend}: {reason}" for backend, reason in choice.refused)
    shapes = f"query {problem.query_shape}, key {problem.key_shape}, {problem.dtype}"
    return StepError(
        f"scaled_dot_product_attention has no kernel for {shapes}: {reasons}.",
        hint="Allow SDPBackend.MATH in torch.nn.attention.sdpa_kernel, or change what it asks for.",
    )


# -- the mask ------------------------------------------------------------------------------------


def _additive(mask: Tensor | None, dtype: torch.dtype, masked_out: float) -> Tensor | None:
    """``convert_boolean_attn_mask``: 0 where attended, ``masked_out`` elsewhere."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(masked_out, dtype=dtype, device=mask.device))


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """``preprocess_mask``: rows start at multiples of 8 elements, then expand."""
    aligned = mask.stride(-1) == 1 and all(stride % 8 == 0 for stride in mask.stride()[:-1])
    if not aligned:
        keys = mask.shape[-1]
        mask = F.pad(mask, (0, 8 - keys % 8))[..., :keys]
    return mask.expand(*query.shape[:3], key.shape[2])


# -- the kernels ---------------------------------------------------------------------------------


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
        query, key, value = (F.pad(tensor, (0, padding)) for tensor in (query, key, value))
    scale = width**-0.5 if scale is None else scale
    output: Tensor = aten._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, False, scale=scale
    )[0]
    return output[..., :width] if padding else output


def _math(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """``_scaled_dot_product_attention_math``: half types are computed in float32.

    Written out, because on meta tensors the operator itself drops weights with an unfused dropout
    and adds the mask out of place. The weights are returned in the input's dtype: a copy that is
    made before the second product and dropped after it.
    """
    dtype = query.dtype
    if dtype in _HALF and not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed():
        query, key, value = query.float(), key.float(), value.float()
    factor = math.sqrt(query.shape[-1] ** -0.5 if scale is None else abs(scale))
    sign = -1.0 if scale is not None and scale < 0 else 1.0
    scaled = aten.mul.Scalar(query, sign * factor)
    if is_causal:
        square = (query.shape[-2], key.shape[-2])
        lower = torch.ones(square, dtype=torch.bool, device=query.device).tril()
        mask = _additive(lower, scaled.dtype, -math.inf)
        del lower
    keys, values = (_repeated(t, query) if enable_gqa else t for t in (key, value))
    scores = torch.matmul(scaled, aten.mul.Scalar(keys.transpose(-2, -1), factor))
    if mask is not None:
        scores.add_(mask)
    scores = aten._safe_softmax(scores, -1)
    if dropout_p > 0:
        scores = torch.native_dropout(scores, dropout_p, True)[0]
    weights = scores.to(dtype)
    output = torch.matmul(scores, values).to(dtype)
    del weights
    return output


def _repeated(tensor: Tensor, query: Tensor) -> Tensor:
    """``pre_process_group_query_attention_input``: one copy of a key head for each query head."""
    repeats = query.shape[-3] // tensor.shape[-3]
    return tensor if repeats == 1 else tensor.repeat_interleave(repeats, -3)
