"""What the frames of a stack say about where in a training program it was.

A rule looks for a piece of a file's name and a piece of a function's name. Python frames carry
both; of C++ frames usually only the function is known. The stacks were read in snapshots that
people have published (torch 2.1 to 2.12); each rule names the file of torch that it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from memfit.memory.snapshot.snapshot import Frame, Stack
from memfit.memory.tape.tape import Phase

__all__ = ["FRAME_RULES", "FrameRule", "Place", "StackFacts", "facts_of"]


class Place(Enum):
    """A part of torch or of a program that a frame belongs to."""

    OPTIMIZER = auto()
    OPTIMIZER_STATE = auto()  # where an optimizer makes its state
    CLIP = auto()  # gradient clipping and unscaling
    ZERO_GRAD = auto()
    BACKWARD = auto()
    ACCUMULATE_GRAD = auto()
    BUCKET = auto()  # gradients of DDP or FSDP
    GATHER = auto()  # parameters of FSDP
    RECOMPUTE = auto()  # gradient checkpointing
    FORWARD = auto()
    BUILD = auto()  # making, loading or moving a module
    COPY = auto()  # a tensor's .to() or .cuda()
    LOADER = auto()
    WORKSPACE = auto()
    PYTHON = auto()  # any Python frame
    CPP = auto()  # any C++ frame


@dataclass(frozen=True, slots=True)
class FrameRule:
    """Frames whose file contains ``file`` and whose function contains one of ``names``.

    Args:
        place: what they belong to.
        file: piece of the path, with ``/``; empty for any.
        names: pieces of the function's name; empty for any.
        source: the file of torch 2.15 where the function is.
    """

    place: Place
    file: str
    names: tuple[str, ...]
    source: str


FRAME_RULES: tuple[FrameRule, ...] = (
    FrameRule(Place.WORKSPACE, "", (
        "getCurrentCUDABlasHandle", "getNewWorkspace", "getCUDABlasLtWorkspace",
        "getCUDABlasWorkspace"), "aten/src/ATen/cuda/CublasHandlePool.cpp"),
    FrameRule(Place.WORKSPACE, "", (
        "run_conv_plan", "raw_cudnn_convolution", "try_plans", "get_plans_from_find",
        "Workspace::Workspace"), "aten/src/ATen/native/cudnn/Conv_v8.cpp and Conv_v7.cpp"),
    FrameRule(Place.OPTIMIZER_STATE, "torch/optim/", ("_init_group", "init_state", "_init_state"),
              "torch/optim/adam.py"),
    FrameRule(Place.ZERO_GRAD, "torch/optim/", ("zero_grad",), "torch/optim/optimizer.py"),
    FrameRule(Place.ZERO_GRAD, "torch/nn/modules/module.py", ("zero_grad",),
              "torch/nn/modules/module.py"),
    FrameRule(Place.CLIP, "torch/nn/utils/clip_grad.py", (), "torch/nn/utils/clip_grad.py"),
    FrameRule(Place.CLIP, "torch/amp/grad_scaler.py", ("unscale", "step", "_maybe_opt_step",
              "update"), "torch/amp/grad_scaler.py"),
    FrameRule(Place.CLIP, "torch/cuda/amp/grad_scaler.py", ("unscale", "step", "update"),
              "torch/cuda/amp/grad_scaler.py"),
    FrameRule(Place.CLIP, "torch/optim/swa_utils.py", (), "torch/optim/swa_utils.py"),
    FrameRule(Place.OPTIMIZER, "torch/optim/", ("step", "adam", "sgd", "_multi_tensor",
              "_single_tensor", "_fused", "profile_hook_step", "wrapper", "_use_grad"),
              "torch/optim/optimizer.py"),
    FrameRule(Place.OPTIMIZER, "bitsandbytes/optim/", (), "bitsandbytes"),
    FrameRule(Place.ACCUMULATE_GRAD, "", ("AccumulateGrad", "accumulateGrad"),
              "torch/csrc/autograd/functions/accumulate_grad.h"),
    FrameRule(Place.BUCKET, "", ("c10d::Reducer", "Reducer::initialize_buckets"),
              "torch/csrc/distributed/c10d/reducer.cpp"),
    FrameRule(Place.BUCKET, "torch/distributed/fsdp/", ("reduce", "post_backward"),
              "torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py"),
    FrameRule(Place.GATHER, "torch/distributed/fsdp/", ("all_gather", "unshard",
              "_alloc_padded_unsharded_flat_param", "alloc_all_gather_outputs"),
              "torch/distributed/fsdp/_fully_shard/_fsdp_param.py"),
    FrameRule(Place.RECOMPUTE, "torch/utils/checkpoint.py", ("recompute", "unpack_hook",
              "backward"), "torch/utils/checkpoint.py"),
    FrameRule(Place.BACKWARD, "", ("torch::autograd::Engine::", "autograd::python::PythonEngine",
              "torch::autograd::Node::operator()", "_engine_run_backward"),
              "torch/csrc/autograd/engine.cpp"),
    FrameRule(Place.BACKWARD, "torch/_tensor.py", ("backward",), "torch/_tensor.py"),
    FrameRule(Place.BACKWARD, "torch/autograd/", ("backward", "grad", "_engine_run_backward"),
              "torch/autograd/graph.py"),
    FrameRule(Place.BUILD, "torch/nn/modules/module.py", ("_apply", "convert", "to", "cuda",
              "to_empty", "load_state_dict", "_load_from_state_dict"),
              "torch/nn/modules/module.py"),
    FrameRule(Place.BUILD, "torch/nn/init.py", (), "torch/nn/init.py"),
    FrameRule(Place.BUILD, "torch/nn/", ("__init__", "reset_parameters", "__new__"),
              "torch/nn/modules/linear.py"),
    FrameRule(Place.BUILD, "torch/serialization.py", (), "torch/serialization.py"),
    FrameRule(Place.BUILD, "transformers/modeling_utils.py", ("_load", "from_pretrained"),
              "transformers"),
    FrameRule(Place.FORWARD, "torch/nn/modules/", ("forward", "_call_impl", "_wrapped_call_impl",
              "_slow_forward", "__call__"), "torch/nn/modules/module.py"),
    FrameRule(Place.FORWARD, "torch/nn/functional.py", (), "torch/nn/functional.py"),
    FrameRule(Place.FORWARD, "torch/nn/parallel/", ("forward",),
              "torch/nn/parallel/distributed.py"),
    FrameRule(Place.LOADER, "torch/utils/data/", (), "torch/utils/data/dataloader.py"),
    FrameRule(Place.COPY, "", ("THPVariable_to(", "THPVariable_cuda(", "dispatch_to(",
              "at::_ops::_to_copy::", "at::native::_to_copy("),
              "torch/csrc/autograd/python_variable_methods.cpp"),
)  # fmt: skip

# torch/nn/modules/module.py has more functions with "to" in their names than its own.
_WHOLE_NAMES = frozenset({"to", "cuda", "grad", "step", "apply", "forward", "convert"})

#: Frames that say how torch works, not where the program was.
_TORCH_FILE = re.compile(
    r"(^|/)(site-packages|dist-packages|lib/python3[^/]*)/|^\?\?$|^$|^<|"
    r"(^|/)torch/(nn|optim|utils|autograd|cuda|amp|distributed|_\w+|\w+\.py)|"
    r"\.(cpp|cc|c|h|cu|cuh|so[.0-9]*)$"
)
_OPERATOR = re.compile(r"at::_ops::(\w+)::")


@dataclass(frozen=True, slots=True)
class StackFacts:
    """What a stack says.

    Args:
        places: everything it goes through.
        phase: of the training loop; None where it does not say.
        where: the innermost frame of the user's own code, such as ``"train.py:41 train_step"``.
        operator: such as ``"aten.convolution"``, else the innermost function.
    """

    places: frozenset[Place]
    phase: Phase | None
    where: str
    operator: str


def facts_of(stacks: Sequence[Stack]) -> list[StackFacts]:
    """What each stack says; every different frame is looked at once."""
    known = {frame: _places_of(frame) for frame in {frame for stack in stacks for frame in stack}}
    return [_facts(stack, [known[frame] for frame in stack]) for stack in stacks]


def _places_of(frame: Frame) -> frozenset[Place]:
    file = frame.filename.replace("\\", "/")
    found = {rule.place for rule in FRAME_RULES if _is(rule, file, frame.name)}
    found.add(Place.PYTHON if file.endswith(".py") or file.startswith("<") else Place.CPP)
    return frozenset(found)


def _is(rule: FrameRule, file: str, function: str) -> bool:
    if rule.file not in file or (rule.file == "" and file.endswith(".py")):
        return False
    return not rule.names or any(
        function == name if name in _WHOLE_NAMES else name in function for name in rule.names
    )


def _facts(stack: Stack, places: Sequence[frozenset[Place]]) -> StackFacts:
    everything: frozenset[Place] = frozenset().union(*places)
    return StackFacts(everything, _phase(places), _where(stack), _operator(stack))


_OPTIMIZER_PLACES = frozenset({Place.OPTIMIZER, Place.OPTIMIZER_STATE, Place.CLIP, Place.ZERO_GRAD})
_BACKWARD_PLACES = frozenset({Place.BACKWARD, Place.ACCUMULATE_GRAD, Place.RECOMPUTE})


def _phase(places: Sequence[frozenset[Place]]) -> Phase | None:
    """The innermost phase; forward inside of backward is recomputing, and belongs to backward."""
    is_forward = False
    for here in places:
        if here & _OPTIMIZER_PLACES:
            return Phase.FORWARD if is_forward else Phase.OPTIMIZER
        if here & _BACKWARD_PLACES:
            return Phase.BACKWARD
        if Place.BUILD in here and not is_forward:
            return Phase.DATA
        is_forward = is_forward or Place.FORWARD in here
    return Phase.FORWARD if is_forward else None


def _where(stack: Stack) -> str:
    for frame in stack:
        file = frame.filename.replace("\\", "/")
        if not _TORCH_FILE.search(file):
            return f"{file.rsplit('/', 1)[-1]}:{frame.line} {frame.name}"
    return ""


def _operator(stack: Stack) -> str:
    for frame in stack:
        found = _OPERATOR.search(frame.name)
        if found is not None and not found[1].startswith("empty"):
            return f"aten.{found[1]}"
    python = [frame.name for frame in stack if frame.filename.endswith(".py")]
    return python[0] if python else ""
