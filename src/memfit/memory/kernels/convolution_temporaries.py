"""What a convolution allocates inside: layout copies, and a workspace that cuDNN wants.

The workspace's size is decided in :mod:`memfit.memory.kernels.cudnn.convolution_workspace`.

The choice of backend is ``_select_conv_backend`` and ``ConvParams`` of
``aten/src/ATen/native/Convolution.cpp``; the copies are those of ``ConvShared.cpp`` and of
``convolution_backward`` (torch 2.11 to 2.15).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memfit.memory.kernels.cudnn.convolution_problem import ConvolutionKind, ConvolutionProblem
from memfit.memory.kernels.cudnn.convolution_workspace import convolution_workspace_bytes
from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.reduction_temporaries import reduction_buffers
from memfit.memory.kernels.rules import (
    Arguments,
    Outputs,
    integers_in,
    tensor_argument,
)
from memfit.memory.kernels.scope import Copy, Result, Scope

__all__ = ["convolution_backward_temporaries", "convolution_temporaries", "output_is_channels_last"]


@dataclass(frozen=True, slots=True)
class _Convolution:
    """The arguments that ``convolution`` and ``convolution_backward`` share."""

    input: TensorFacts
    weight: TensorFacts
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    groups: int

    @property
    def depthwise(self) -> bool:
        """``ConvParams::is_depthwise``."""
        channels = self.input.shape[1]
        return (
            not self.transposed
            and len(self.input.shape) in (4, 5)
            and channels == self.groups > 1
            and self.weight.shape[0] % channels == 0
        )

    @property
    def channels_last(self) -> bool:
        """``cudnn_conv_suggest_memory_format``: either tensor asks for it, float64 never does."""
        if "float64" in (self.input.dtype, self.weight.dtype):
            return False
        return self.input.channels_last or self.weight.channels_last

    @property
    def uses_cudnn(self) -> bool:
        """False for the depthwise kernels that PyTorch brings itself, which need no workspace."""
        return not self.depthwise or self.channels_last or self._cudnn_depthwise_half()

    def copy(self, tensor: TensorFacts) -> Copy:
        """The copy of a tensor that is not in the kernel's layout."""
        return Copy(tensor.copy_bytes(channels_last=self.channels_last))

    def _cudnn_depthwise_half(self) -> bool:
        """``use_cudnn_depthwise`` for contiguous tensors, with cuDNN 8.2 or later."""
        plain = set(self.dilation) == {1} and len(self.input.shape) == 4
        if self.input.dtype != "float16" or not plain or self.input.shape[1] < 32:
            return False
        square = self.stride[0] == self.stride[1] or self.input.shape[2] == 1
        return square and self._depthwise_workload()

    def _depthwise_workload(self) -> bool:
        """``check_cudnn_depthwise_workload_with_filter``."""
        batch, channels, height, width = self.input.shape
        kernel, stride = self.weight.shape[3], self.stride[1]
        if height == 1 and stride == 1:
            return True
        if self.weight.shape[2] != kernel or kernel not in (1, 3, 5) or width < 7:
            return False
        if stride != 2:
            return stride == 1
        if batch == 1:
            return kernel > 1 or width <= 28
        if kernel == 1:
            return batch <= 16 and channels >= 128 and width <= 7
        return channels >= 512 or (channels >= 256 and width >= 28)


def _sizes(value: object, rank: int) -> tuple[int, ...]:
    """A list argument, with one value standing for all dimensions (``expand_param_if_needed``)."""
    sizes = tuple(value) if isinstance(value, Sequence) else (int(str(value)),)
    return sizes * rank if len(sizes) == 1 else sizes


def _convolution(arguments: tuple[object, ...]) -> _Convolution:
    """From (input, weight, stride, padding, dilation, transposed, output_padding, groups)."""
    image, weight, stride, padding, dilation, transposed, _, groups = arguments
    assert isinstance(image, TensorFacts)
    assert isinstance(weight, TensorFacts)
    rank = len(weight.shape) - 2
    return _Convolution(
        image,
        weight,
        _sizes(stride, rank),
        _sizes(padding, rank),
        _sizes(dilation, rank),
        bool(transposed),
        int(str(groups)),
    )


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """1d convolutions run as 2d with height 1 (``view1d_as_2d``)."""
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def _workspace(
    call: _Convolution, kind: ConvolutionKind, output: tuple[int, ...], device: DeviceFacts
) -> tuple[int, ...]:
    """Of cuDNN; nothing where a kernel of PyTorch's own runs."""
    if not call.uses_cudnn:
        return ()
    flat = len(call.weight.shape) == 3
    problem = ConvolutionProblem(
        kind,
        _flat(call.input.shape),
        _flat(call.weight.shape),
        _flat(output),
        (0, *call.padding) if flat else call.padding,
        (1, *call.stride) if flat else call.stride,
        (1, *call.dilation) if flat else call.dilation,
        call.input.dtype,
        call.channels_last,
    )
    if call.transposed:
        problem = replace(
            problem,
            kind=_TRANSPOSED[kind],
            input_shape=problem.output_shape,
            output_shape=problem.input_shape,
        )
    size_bytes = convolution_workspace_bytes(
        problem, device.compute_capability, allow_tf32=device.allow_tf32
    )
    return (size_bytes,)


# A transposed convolution runs as the gradient of a convolution and the other way round
# (``cudnn_convolution_transpose`` in ConvShared.cpp).
_TRANSPOSED: dict[ConvolutionKind, ConvolutionKind] = {
    "forward": "backward_data",
    "backward_data": "forward",
    "backward_filter": "backward_filter",
}


def convolution_temporaries(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope:
    """Of ``aten.convolution``: copies of input and weight in the kernel's layout, workspace.

    Args:
        arguments: input, weight, bias, stride, padding, dilation, transposed, output_padding,
            groups.
        outputs: the result.
        device: the GPU.
    """
    call = _convolution(arguments[:2] + arguments[3:])
    inside = (call.copy(call.weight), *_workspace(call, "forward", outputs[0].shape, device))
    return (call.copy(call.input), Result(0), inside)


def convolution_backward_temporaries(
    arguments: Arguments, _outputs: Outputs, device: DeviceFacts
) -> Scope:
    """Of ``aten.convolution_backward``: one gradient after the other, each with its workspace.

    The gradient of a bias is a sum outside of the library, after its copies are freed.

    Args:
        arguments: grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed,
            output_padding, groups, output_mask.
        device: the GPU.
    """
    gradient, mask = tensor_argument(arguments, 0), integers_in(arguments[10])
    call = _convolution(arguments[1:3] + arguments[4:10])
    scope: Scope = (call.copy(call.input),) if mask[1] else ()
    scope += (call.copy(gradient),)
    if mask[0]:
        workspace = _workspace(call, "backward_data", gradient.shape, device)
        scope += (Result(0), (call.copy(call.weight), *workspace))
    if mask[1]:
        scope += (Result(1), _workspace(call, "backward_filter", gradient.shape, device))
    if mask[2]:
        every_dimension_but_channels = {0, *range(2, len(gradient.shape))}
        of_bias: Scope = (
            Result(2),
            reduction_buffers(
                gradient, every_dimension_but_channels, gradient.accumulate_bytes, device
            ),
        )
        return (scope, *of_bias)
    return scope


def output_is_channels_last(
    input: TensorFacts, weight: TensorFacts, groups: int, transposed: bool
) -> bool:
    """Whether the kernel writes its output channels-last.

    Args:
        input: of the forward convolution.
        weight: of the forward convolution.
        groups: number of groups.
        transposed: whether it is a transposed convolution.
    """
    ones = (1,) * (len(input.shape) - 2)
    call = _Convolution(input, weight, ones, ones, ones, transposed, groups)
    return call.channels_last and call.uses_cudnn
