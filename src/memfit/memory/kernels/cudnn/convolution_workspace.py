"""How large a convolution's workspace is: here it is decided.

The installed cuDNN is asked (:mod:`memfit.memory.kernels.cudnn.plans`). The rule here is what is
left where there is none (a CPU build of torch, a Mac) or it does not know the GPU.
"""

from __future__ import annotations

from math import prod

from memfit.memory.kernels.cudnn.convolution_problem import ConvolutionKind, ConvolutionProblem
from memfit.memory.kernels.cudnn.plans import heuristic_workspace_bytes

__all__ = ["convolution_workspace_bytes", "convolution_workspace_rule_bytes"]

# Which tensors cuDNN's first plan copies into its workspace, for each kind of call. Tensor-core
# kernels are NHWC: contiguous tensors are transposed, and float32 is also rounded to TF32 unless
# the kernels of the architecture do it on the fly (9.0, 10.0). Evidence: the answers of cuDNN 9.26
# for the 373 distinct convolutions of 14 torchvision and timm models on 8 GPUs; most sizes are
# the sum of such copies to within a few hundred bytes, the rest (split-K partial sums, Winograd)
# is what this table does not know. "x", "w", "y" are input, weight and output.
_Copies = dict[ConvolutionKind, str]
_NOTHING: _Copies = {"forward": "", "backward_data": "", "backward_filter": ""}
_EVERYTHING: _Copies = {"forward": "xwy", "backward_data": "xwy", "backward_filter": "xwy"}
_TF32_CONTIGUOUS: _Copies = {"forward": "xw", "backward_data": "xwy", "backward_filter": "xwy"}
_TF32_CHANNELS_LAST: _Copies = {"forward": "xw", "backward_data": "yw", "backward_filter": "xy"}
_FLOAT_CHANNELS_LAST: _Copies = {"forward": "", "backward_data": "xwy", "backward_filter": ""}


def _copies(
    problem: ConvolutionProblem, compute_capability: tuple[int, int], allow_tf32: bool
) -> _Copies:
    half = problem.dtype in ("float16", "bfloat16")
    if half:
        return _NOTHING if problem.channels_last else _EVERYTHING
    if problem.dtype != "float32" or not allow_tf32 or compute_capability < (8, 0):
        return _FLOAT_CHANNELS_LAST if problem.channels_last else _NOTHING
    if not problem.channels_last:
        return _TF32_CONTIGUOUS
    return _NOTHING if compute_capability[0] in (9, 10) else _TF32_CHANNELS_LAST


def convolution_workspace_rule_bytes(
    problem: ConvolutionProblem, compute_capability: tuple[int, int], *, allow_tf32: bool = True
) -> int:
    """A convolution's workspace by rule: the tensors that cuDNN's first plan has to copy.

    Against cuDNN 9.26's own answers, summed over the convolutions of 14 models at batch 32:
    0.8 to 1.15 times for contiguous half precision; 0.8 to 1.0 for contiguous TF32 on 8.0, 9.0,
    10.0 and 12.0, but 1.6 to 1.8 on 8.6 and 8.9, where the library often chooses kernels that
    read float32 as it is; 0.9 to 1.3 for channels-last TF32; 0.5 to 1.35 for channels-last
    float32 without TF32. Where the rule says nothing is needed the answers are about a
    tenth of the tensors' size; the worst are bfloat16 weight gradients on 9.0, with 0.57 of it.

    Args:
        problem: the call.
        compute_capability: (major, minor).
        allow_tf32: ``torch.backends.cudnn.allow_tf32``.
    """
    groups = problem.input_shape[1] // problem.weight_shape[1]
    if groups > 1 and problem.weight_shape[1] == 1:
        return 0  # depthwise kernels read the tensors as they are
    shapes = {"x": problem.input_shape, "w": problem.weight_shape, "y": problem.output_shape}
    element_bytes = {"float16": 2, "bfloat16": 2, "float64": 8}.get(problem.dtype, 4)
    copied = _copies(problem, compute_capability, allow_tf32)[problem.kind]
    return sum(prod(shapes[name]) for name in copied) * element_bytes


def convolution_workspace_bytes(
    problem: ConvolutionProblem, compute_capability: tuple[int, int], *, allow_tf32: bool = True
) -> int:
    """Workspace of a convolution with ``cudnn.benchmark`` off: cuDNN's answer, else the rule.

    PyTorch tries the next plan when this allocation fails (``try_configs`` of Conv_v8.cpp), so a
    workspace that does not fit makes a step slower rather than impossible.

    Args:
        problem: the call.
        compute_capability: (major, minor).
        allow_tf32: ``torch.backends.cudnn.allow_tf32``.
    """
    if compute_capability == (8, 0) and _is_pointwise_contiguous(problem):
        return 0
    asked = heuristic_workspace_bytes(problem, compute_capability, allow_tf32=allow_tf32)
    if asked is not None:
        return asked
    return convolution_workspace_rule_bytes(problem, compute_capability, allow_tf32=allow_tf32)


def _is_pointwise_contiguous(problem: ConvolutionProblem) -> bool:
    """A 1x1 convolution of contiguous float32, which on an A100 needs no copies.

    Measured: in GPUMemNet's table (arXiv 2602.17817; A100, float32) networks of 1x1 and depthwise
    convolutions need no workspace that grows with the batch: EfficientNet-B2 leaves the same 1.8
    to 2.0 GiB outside its tensors from batch 8 to 128. cuDNN 9.8, 9.19 and 9.26, asked about a
    described A100, name plans with copies for them (3.4 GiB at batch 128); for its 3x3
    convolutions the table and cuDNN agree. Why is not known (``docs/decisions.md``), so only the
    card that was measured is held to the table.
    """
    return (
        set(problem.weight_shape[2:]) == {1}
        and problem.dtype == "float32"
        and not problem.channels_last
    )
