"""Operators whose CUDA kernels allocate nothing beside their outputs.

Element-wise kernels read any strides through TensorIterator (``aten/src/ATen/native/cuda/
Loops.cuh``); fills, views and random numbers likewise; ``_foreach_`` and ``_fused_`` kernels carry
the list of tensors in their launch arguments (``MultiTensorApply.cuh``). torch 2.11 to 2.15.
"""

from __future__ import annotations

__all__ = ["NO_TEMPORARIES"]

_POINTWISE = """
abs acos add addcdiv addcmul alias_copy angle asin atan atan2 bitwise_and bitwise_not bitwise_or
bitwise_xor ceil celu clamp clamp_max clamp_min copysign cos cosh deg2rad digamma div elu
elu_backward eq erf erfc erfinv exp exp2 expm1 floor floor_divide fmax fmin fmod frac ge gelu
gelu_backward glu glu_backward gt hardshrink hardshrink_backward hardsigmoid hardsigmoid_backward
hardswish hardswish_backward hardtanh hardtanh_backward heaviside huber_loss_backward hypot
isfinite isinf isnan le leaky_relu leaky_relu_backward lerp lgamma log log10 log1p log2
log_sigmoid_backward log_sigmoid_forward logaddexp logaddexp2 logical_and logical_not logical_or
logical_xor logit logit_backward lt masked_fill maximum minimum mish mish_backward
mse_loss_backward mul mvlgamma nan_to_num ne neg nextafter _prelu_kernel _prelu_kernel_backward
pow reciprocal relu relu6 remainder round rsqrt rsub selu sgn sigmoid sigmoid_backward sign
signbit silu silu_backward sin sinc sinh smooth_l1_loss_backward softplus softplus_backward
softshrink softshrink_backward special_entr sqrt square sub tan tanh tanh_backward threshold
threshold_backward tril triu trunc where xlogy native_dropout_backward
_fused_dropout _local_scalar_dense masked_scale binary_cross_entropy_backward
"""
_FILL_AND_COPY = """
arange bernoulli bernoulli_ cat clone constant_pad_nd contiguous copy copy_ detach empty
empty_like empty_permuted empty_strided exponential_ eye fill fill_ flip full full_like lift_fresh
linspace new_empty new_empty_strided new_full new_ones new_zeros normal_ ones ones_like rand
rand_like randint randn randn_like random_ repeat resize_ scalar_tensor set_ stack _to_copy
uniform_ zero zero_ zeros zeros_like reflection_pad2d replication_pad2d
"""
_VIEWS = """
_reshape_alias _unsafe_view alias as_strided diagonal expand movedim permute pixel_shuffle
pixel_unshuffle reshape select slice split split_with_sizes squeeze swapaxes t transpose unbind
unfold unsafe_chunk unsafe_split unsqueeze view view_as_complex view_as_real select_backward
slice_backward select_scatter slice_scatter as_strided_scatter
"""
_INDEXING = """
embedding gather index index_add index_fill index_select scatter scatter_add scatter_reduce
_unsafe_index grid_sampler_2d nll_loss_forward nll_loss_backward nll_loss2d_forward
nll_loss2d_backward
"""
_ATTENTION = """
_scaled_dot_product_cudnn_attention
"""
_OPTIMIZERS = """
_amp_foreach_non_finite_check_and_unscale_ _amp_update_scale_ _fused_adam_ _fused_adamw_
_fused_adagrad_ _fused_sgd_ _foreach_abs _foreach_add _foreach_addcdiv _foreach_addcmul
_foreach_clamp_max _foreach_clamp_min _foreach_copy_ _foreach_div _foreach_exp _foreach_lerp
_foreach_maximum _foreach_minimum _foreach_mul _foreach_neg _foreach_pow _foreach_reciprocal
_foreach_rsqrt _foreach_sign _foreach_sqrt _foreach_sub _foreach_zero_
"""
_LISTS = (_POINTWISE, _FILL_AND_COPY, _VIEWS, _INDEXING, _ATTENTION, _OPTIMIZERS)


def _with_in_place(name: str) -> tuple[str, ...]:
    return (f"aten.{name}",) if name.endswith("_") else (f"aten.{name}", f"aten.{name}_")


NO_TEMPORARIES: frozenset[str] = frozenset(
    form for names in _LISTS for name in names.split() for form in _with_in_place(name)
)
"""Names such as "aten.relu", for every overload; in-place forms included."""
