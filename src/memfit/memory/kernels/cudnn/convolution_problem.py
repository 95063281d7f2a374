"""What is asked of cuDNN: one call of a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ConvolutionKind", "ConvolutionProblem"]

ConvolutionKind = Literal["forward", "backward_data", "backward_filter"]


@dataclass(frozen=True, slots=True)
class ConvolutionProblem:
    """One call of cuDNN: shapes are of the forward convolution, whatever the kind.

    Attributes:
        kind: which of the three computations.
        input_shape: (N, C, *spatial) of x, with 2 or 3 spatial dimensions.
        weight_shape: (K, C / groups, *kernel).
        output_shape: (N, K, *spatial) of y.
        padding: per spatial dimension, both sides.
        stride: per spatial dimension.
        dilation: per spatial dimension.
        dtype: "float32", "float16", "bfloat16" or "float64".
        channels_last: x, w and y are all channels-last, else all contiguous.
    """

    kind: ConvolutionKind
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    dtype: str
    channels_last: bool
