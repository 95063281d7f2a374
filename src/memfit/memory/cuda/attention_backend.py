"""Which kernel CUDA chooses for ``scaled_dot_product_attention``.

The checks are those of ``select_sdp_backend`` in
``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and ``../sdp_utils_cpp.h``, in their order.
They differ between torch 2.11 and 2.15 where :data:`_SINCE` says so, with the cuDNN that each
release brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = [
    "AttentionBackend",
    "AttentionPreference",
    "AttentionProblem",
    "Choice",
    "choose_backend",
]

AttentionPreference = Literal["auto", "flash", "efficient", "math"]

_HALF = ("float16", "bfloat16")

#: The first torch release with a check (what PyTorch 2.11, 2.12, 2.13, 2.14 and 2.15 answered).
_SINCE = {
    "cudnn dropout in sixteenths": (2, 12),
    "cudnn grid limit": (2, 13),
    "efficient storage offset": (2, 13),
    "efficient grouped heads": (2, 14),
    "one key head for all": (2, 14),
    "cudnn heads of 256": (2, 14),
    "flash grid limit": (2, 15),
}
_GRID_LIMIT = 65535  # the CUDA limit of the y and z dimensions of a grid


class AttentionBackend(StrEnum):
    """The kernels of ``scaled_dot_product_attention`` on CUDA."""

    FLASH = "flash"
    EFFICIENT = "efficient"
    CUDNN = "cudnn"
    MATH = "math"


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """What the choice depends on.

    Args:
        dtype: of query, key and value, such as ``"float16"``.
        query_shape: ``(N, heads, L, E)``.
        key_shape: ``(N, key heads, S, E)``.
        value_shape: ``(N, value heads, S, Ev)``.
        mask_shape: of ``attn_mask``; None without one.
        mask_requires_grad: the mask is trained, as a relative position bias is.
        is_causal: lower-triangular mask, without a tensor.
        dropout_p: probability of dropping an attention weight.
        requires_grad: backward will run.
        enable_gqa: several query heads may share one key head.
        deterministic: ``torch.use_deterministic_algorithms(True)``, not only warning.
        unit_strides: the last dimension of query, key and value is dense.
        mask_unit_stride: and that of the mask.
        storage_offsets: of query, key and value, in elements.
        disabled: backends that the program switched off (``torch.backends.cuda``).
    """

    dtype: str
    query_shape: tuple[int, ...]
    key_shape: tuple[int, ...]
    value_shape: tuple[int, ...]
    mask_shape: tuple[int, ...] | None = None
    mask_requires_grad: bool = False
    is_causal: bool = False
    dropout_p: float = 0.0
    requires_grad: bool = True
    enable_gqa: bool = False
    deterministic: bool = False
    unit_strides: bool = True
    mask_unit_stride: bool = True
    storage_offsets: tuple[int, ...] = (0, 0, 0)
    disabled: frozenset[AttentionBackend] = frozenset()

    @property
    def is_half(self) -> bool:
        """float16 or bfloat16."""
        return self.dtype in _HALF


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend, and why those that come before it were refused.

    Args:
        backend: the kernel that runs; None when every kernel is refused or switched off.
        refused: the reason for each backend that was asked first, in order.
    """

    backend: AttentionBackend | None
    refused: tuple[tuple[AttentionBackend, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Gpu:
    capability: tuple[int, int]
    torch_version: tuple[int, int]

    def has(self, check: str) -> bool:
        return self.torch_version >= _SINCE[check]


_Check = Callable[[AttentionProblem, _Gpu], str | None]


def choose_backend(
    problem: AttentionProblem,
    compute_capability: tuple[int, int],
    preference: AttentionPreference = "auto",
    *,
    torch_version: tuple[int, int] = (2, 15),
) -> Choice:
    """The first backend, in PyTorch's order, that accepts the problem.

    Args:
        problem: shapes and options.
        compute_capability: such as ``(8, 6)``.
        preference: as ``torch.nn.attention.sdpa_kernel([preference, "math"])``.
        torch_version: (major, minor) of the torch that will train.

    >>> vit = AttentionProblem("float16", *3 * [(64, 12, 197, 64)])
    >>> choose_backend(vit, (8, 6)).backend, choose_backend(vit, (7, 5)).backend
    (<AttentionBackend.FLASH: 'flash'>, <AttentionBackend.EFFICIENT: 'efficient'>)
    """
    gpu = _Gpu(compute_capability, torch_version)
    refused: list[tuple[AttentionBackend, str]] = []
    for backend in _priority(compute_capability):
        reason = _why_not(backend, problem, gpu, preference)
        if reason is None:
            return Choice(backend, tuple(refused))
        refused.append((backend, reason))
    return Choice(None, tuple(refused))


def _priority(capability: tuple[int, int]) -> tuple[AttentionBackend, ...]:
    """``check_prefer_cudnn_attention``: cuDNN first on Hopper and datacentre Blackwell."""
    fused = (AttentionBackend.FLASH, AttentionBackend.EFFICIENT, AttentionBackend.MATH)
    if capability[0] in (9, 10):
        return (AttentionBackend.CUDNN, *fused)
    return (*fused, AttentionBackend.CUDNN)


def _why_not(
    backend: AttentionBackend, problem: AttentionProblem, gpu: _Gpu, preference: AttentionPreference
) -> str | None:
    if preference != "auto" and backend not in (preference, AttentionBackend.MATH):
        return f"the preference is {preference}"
    if backend in problem.disabled:
        return "switched off by the program"
    reasons = (check(problem, gpu) for check in _CHECKS[backend])
    return next((reason for reason in reasons if reason is not None), None)


# -- shared checks -------------------------------------------------------------------------------


def _four_dimensions(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    shapes = (problem.query_shape, problem.key_shape, problem.value_shape)
    return None if all(len(shape) == 4 for shape in shapes) else "not four dimensions"


def _some_length(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    return None if problem.query_shape[2] and problem.key_shape[2] else "a sequence of length 0"


def _dense_rows(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    dense = problem.unit_strides and problem.mask_unit_stride
    return None if dense else "the last dimension is not dense"


def _dense_rows_or_one_column(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    dense = problem.unit_strides or problem.query_shape[3] == 1
    return None if dense and problem.mask_unit_stride else "the last dimension is not dense"


def _same_batch_and_heads(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    query, key, value = problem.query_shape, problem.key_shape, problem.value_shape
    if not query[0] == key[0] == value[0]:
        return "query, key and value differ in batch"
    if query[1] == key[1] == value[1]:
        return None
    broadcasts = key[1] == value[1] == 1 and gpu.has("one key head for all")
    if not (problem.enable_gqa or broadcasts):
        return "query, key and value differ in heads, without enable_gqa"
    shares = key[1] == value[1] and query[1] % key[1] == 0
    return None if shares else "query heads are no multiple of key heads"


def _same_batch_and_heads_before_grouping(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    heads = {problem.query_shape[1], problem.key_shape[1], problem.value_shape[1]}
    if len(heads) > 1 and not gpu.has("efficient grouped heads"):
        return "query, key and value differ in heads"
    return _same_batch_and_heads(problem, gpu)


def _half_types(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    accepted = _HALF if gpu.capability >= (8, 0) else ("float16",)
    return None if problem.dtype in accepted else f"{problem.dtype} is not {' or '.join(accepted)}"


def _ampere_or_newer(_problem: AttentionProblem, gpu: _Gpu) -> str | None:
    known = (8, 0) <= gpu.capability <= (12, 1)
    return None if known else "compute capability below 8.0 or above 12.1"


def _fits_grid(check: str) -> _Check:
    def fits_grid(problem: AttentionProblem, gpu: _Gpu) -> str | None:
        fits = max(problem.query_shape[:2]) <= _GRID_LIMIT or not gpu.has(check)
        return None if fits else f"more than {_GRID_LIMIT} samples or heads"

    return fits_grid


# -- flash ---------------------------------------------------------------------------------------


def _no_mask(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    return None if problem.mask_shape is None else "there is a mask"


def _flash_width(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    width, same = problem.query_shape[3], problem.value_shape[3] == problem.query_shape[3]
    return None if same and width <= 256 else "heads wider than 256, or value heads of other width"


def _flash_backward_width(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    """``check_requires_grad_and_head_dim_gt192_constraints_on_sm86_89_or_120``."""
    little_shared_memory = (8, 6) <= gpu.capability <= (8, 9) or gpu.capability[0] == 12
    width = problem.query_shape[3]
    if not (problem.requires_grad and little_shared_memory) or width <= 192:
        return None
    if width > 224 and problem.dropout_p == 0:
        return None
    return "backward of heads wider than 192 needs more shared memory"


def _square_if_causal(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    square = problem.query_shape[2] == problem.key_shape[2]
    return None if square or not problem.is_causal else "causal with L different from S"


# -- memory-efficient ----------------------------------------------------------------------------


def _alignment(problem: AttentionProblem, gpu: _Gpu) -> int:
    """``minimum_gemm_alignment``, in elements: 16 bytes for tensor cores."""
    tensor_cores = gpu.capability >= (8, 0) or (gpu.capability >= (7, 0) and problem.is_half)
    return (8 if problem.is_half else 4) if tensor_cores else 1


def _efficient_width(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    alignment = _alignment(problem, gpu)
    widths = (problem.query_shape[3], problem.value_shape[3])
    fits = all(width > 0 and width % alignment == 0 for width in widths)
    return None if fits else f"head width is no multiple of {alignment}"


def _efficient_offset(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    if not gpu.has("efficient storage offset") or gpu.capability < (8, 0):
        return None
    alignment = _alignment(problem, gpu)
    aligned = all(offset % alignment == 0 for offset in problem.storage_offsets)
    return None if aligned else f"storage offset is no multiple of {alignment} elements"


def _efficient_hardware(_problem: AttentionProblem, gpu: _Gpu) -> str | None:
    known = (5, 0) <= gpu.capability <= (12, 1)
    return None if known else "compute capability below 5.0 or above 12.1"


def _efficient_types(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    accepted = (*_HALF, "float32") if gpu.capability >= (8, 0) else ("float16", "float32")
    return None if problem.dtype in accepted else f"{problem.dtype} is not {' or '.join(accepted)}"


# -- cuDNN ---------------------------------------------------------------------------------------


def _deterministic(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    return "not deterministic" if problem.deterministic else None


def _cudnn_mask(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    """``check_attn_mask_shape``."""
    mask = problem.mask_shape
    if mask is None:
        return None
    batch, heads, length, _ = problem.query_shape
    full = (batch, heads, length, problem.key_shape[2])
    fits = len(mask) in (2, 4) and all(
        size in (1, whole) for size, whole in zip(mask, full[-len(mask) :], strict=True)
    )
    return None if fits and not problem.mask_requires_grad else "a mask of 3 dimensions or trained"


def _cudnn_dropout(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    whole = (problem.dropout_p * 16).is_integer()
    if whole or not gpu.has("cudnn dropout in sixteenths"):
        return None
    return "dropout is no multiple of 1/16"


def _cudnn_width(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    """``check_cudnn_tensor_shapes``: up to 128, more on Hopper and datacentre Blackwell."""
    widths = (problem.query_shape[3], problem.value_shape[3])
    large = gpu.capability[0] == 10 or gpu.capability == (9, 0)
    limit = 128
    if gpu.capability == (9, 0) or (large and gpu.has("cudnn heads of 256")):
        limit = 256
    elif large and widths == (192, 128):
        limit = 192
    if max(widths) > limit or any(width % 8 for width in widths):
        return f"head width over {limit} or no multiple of 8"
    return None


def _cudnn_length(problem: AttentionProblem, _gpu: _Gpu) -> str | None:
    if problem.key_shape[2] == 1 or (problem.dropout_p and problem.query_shape[2] == 1):
        return "a sequence of length 1"
    return None


def _cudnn_backward_width(problem: AttentionProblem, gpu: _Gpu) -> str | None:
    """``check_cudnn_d256_bprop_head_dim``."""
    large = gpu.capability[0] == 10 or gpu.capability == (9, 0)
    if not (problem.requires_grad and large and gpu.has("cudnn heads of 256")):
        return None
    widths = (problem.query_shape[3], problem.value_shape[3])
    fits = max(widths) <= 128 or widths in ((192, 128), (256, 256))
    return None if fits else "no backward for this head width"


_CHECKS: dict[AttentionBackend, tuple[_Check, ...]] = {
    AttentionBackend.FLASH: (
        _four_dimensions, _no_mask, _flash_width, _ampere_or_newer, _flash_backward_width,
        _square_if_causal, _half_types, _same_batch_and_heads, _some_length,
        _dense_rows_or_one_column, _fits_grid("flash grid limit"),
    ),
    AttentionBackend.EFFICIENT: (
        _efficient_hardware, _four_dimensions, _efficient_width, _efficient_offset, _some_length,
        _dense_rows, _same_batch_and_heads_before_grouping, _efficient_types,
    ),
    AttentionBackend.CUDNN: (
        _four_dimensions, _deterministic, _half_types, _cudnn_mask, _ampere_or_newer,
        _cudnn_dropout, _some_length, _dense_rows_or_one_column, _same_batch_and_heads,
        _fits_grid("cudnn grid limit"), _cudnn_width, _cudnn_length, _cudnn_backward_width,
    ),
    AttentionBackend.MATH: (),
}  # fmt: skip
