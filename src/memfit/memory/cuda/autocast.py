"""CUDA autocast on meta tensors: which operators cast their inputs, and the cache of half weights.

The lists are the macros ``AT_FORALL_*`` of ``aten/src/ATen/autocast_mode.h`` (torch 2.11 to 2.15)
and the CUDA registrations in ``autocast_mode.cpp``; a test compares them with the kernels that
the installed torch has registered for AutocastCUDA.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from memfit.torch_inside import is_view, overload_name, schema_of

__all__ = ["AUTOCAST_POLICIES", "CastCache", "Policy", "apply_policy", "is_enabled"]

Op = Callable[..., Any]


class Policy(Enum):
    """What autocast does with the inputs of an operator."""

    LOWER = "cast to the autocast dtype"
    FP32 = "cast to float32"
    FP32_OUT = "compute and return in float32 through the dtype argument"
    FP32_NORM = "append float32 as the dtype argument"
    PROMOTE = "cast to the widest input"
    BANNED = "raises"


_LOWER = """
    _convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d
    conv_transpose2d.input conv_transpose3d.input convolution cudnn_convolution
    cudnn_convolution_transpose prelu addmm addmv addr matmul einsum
    mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot
    _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
    _scaled_dot_product_flash_attention scaled_dot_product_attention
"""
_FP32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan
    pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm
    group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity poisson_nll_loss
    cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss
    huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm
    logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d
    _upsample_nearest_exact2d upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d
    _upsample_bicubic2d_aa
"""
_FP32_OUT = """
    prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm
    linalg_matrix_norm linalg_matrix_norm.str_ord sum sum.dim_IntList
"""
_PROMOTE = """
    addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
"""

#: Policy by overload name as in ``native_functions.yaml`` ("softmax.int").
AUTOCAST_POLICIES: dict[str, Policy] = (
    dict.fromkeys(_LOWER.split(), Policy.LOWER)
    | dict.fromkeys(_FP32.split(), Policy.FP32)
    | dict.fromkeys(_FP32_OUT.split(), Policy.FP32_OUT)
    | dict.fromkeys(_PROMOTE.split(), Policy.PROMOTE)
    | {"norm.Scalar": Policy.FP32_NORM, "norm.ScalarOpt_dim": Policy.FP32_NORM}
    | {"binary_cross_entropy": Policy.BANNED}
)

_HALF_TYPES = (torch.float16, torch.bfloat16)


def is_enabled() -> bool:
    """Whether ``torch.autocast("cuda")`` is in force on this thread."""
    return torch.is_autocast_enabled("cuda")


class CastCache:
    """Half copies of float32 leaves, alive until the outermost autocast region ends.

    Source: ``cached_cast`` and ``clear_cache`` in ``autocast_mode.cpp``. The copies fill memory
    beside the float32 weights: this is why automatic mixed precision does not halve everything.
    Nothing is kept in inference mode, whose copies no training could use (issue 158232).
    """

    def __init__(self) -> None:
        self._casts: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}

    def clear(self) -> None:
        """What leaving the outermost autocast region does."""
        self._casts.clear()

    def cast(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """``tensor`` in ``dtype``; from the cache where CUDA's autocast would cache.

        Args:
            tensor: any shape; returned as it is when not floating point, or float64.
            dtype: the target.
        """
        if tensor.dtype == dtype or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        if not (
            dtype in _HALF_TYPES
            and tensor.dtype == torch.float32
            and tensor.requires_grad
            and tensor.is_leaf
            and not is_view(tensor)
            and torch.is_autocast_cache_enabled()
            and not torch.is_inference_mode_enabled()
        ):
            return tensor.to(dtype)
        found = self._casts.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        copy = tensor.to(dtype)
        self._casts[id(tensor)] = (weakref.ref(tensor), copy)
        return copy


def apply_policy(
    policy: Policy, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], cache: CastCache
) -> tuple[tuple[Any, ...], dict[str, Any], Op]:
    """The arguments and the overload with which CUDA's autocast would call ``op``."""
    if policy is Policy.LOWER:
        return *_cast_all(args, kwargs, torch.get_autocast_dtype("cuda"), cache), op
    if policy is Policy.FP32:
        return *_cast_all(args, kwargs, torch.float32, cache), op
    if policy is Policy.PROMOTE:
        return *_cast_all(args, kwargs, _widest(args), cache), op
    if policy is Policy.BANNED:
        raise RuntimeError(
            "torch.nn.functional.binary_cross_entropy is unsafe under autocast; "
            "use binary_cross_entropy_with_logits"
        )
    if not _is_eligible(args[0]):
        return args, kwargs, op
    if policy is Policy.FP32_OUT:
        return *_set_dtype(op, args, kwargs), op
    return (*args, *_missing_norm_args(op, args)), kwargs | {"dtype": torch.float32}, _norm(op)


def _is_eligible(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dtype != torch.float64
    )  # fmt: skip


def _cast_all(
    args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype, cache: CastCache
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Every tensor cast, the last first: so does the C++ of GCC evaluate ``f(cast(args)...)``.

    The order decides where in memory the copies lie, and in which order backward undoes them.
    """

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor):
            return cache.cast(value, dtype) if value.device.type == "meta" else value
        if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
            return [cast(v) for v in value]
        return value

    named = {name: cast(value) for name, value in reversed(kwargs.items())}
    return tuple(cast(value) for value in reversed(args))[::-1], named


def _widest(args: tuple[Any, ...]) -> torch.dtype:
    """The promoted type: float32 as soon as one input is, else the autocast dtype."""
    flat = [a for arg in args for a in (arg if isinstance(arg, (list, tuple)) else (arg,))]
    if any(_is_eligible(a) and a.dtype == torch.float32 for a in flat):
        return torch.float32
    return torch.get_autocast_dtype("cuda")


def _set_dtype(
    op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Fill an omitted ``dtype`` argument with float32."""
    names = [argument.name for argument in schema_of(op).arguments]
    position = names.index("dtype")
    given = args[position] if position < len(args) else kwargs.get("dtype")
    if given is not None:
        return args, kwargs
    if position < len(args):
        return (*args[:position], torch.float32, *args[position + 1 :]), kwargs
    return args, kwargs | {"dtype": torch.float32}


def _missing_norm_args(op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    defaults: tuple[Any, ...] = (None, 2, [], False) if "dim" in overload_name(op) else (None, 2)
    return defaults[len(args) :]


def _norm(op: Op) -> Op:
    norm = torch.ops.aten.norm
    has_dim = "dim" in overload_name(op)
    return norm.ScalarOpt_dim_dtype if has_dim else norm.ScalarOpt_dtype
