"""Snapshots as torch records them of a training loop, with the parts that are true.

Addresses and lifetimes are those of a plan's tape; the stacks are those that torch 2.x writes
(read in snapshots that people have published), with nothing of memfit left in.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import memfit
from memfit.memory.snapshot.writer import snapshot_bytes
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape

SITE = "/opt/venv/lib/python3.11/site-packages/torch"
Stack = list[dict[str, Any]]


def frames(*lines: str) -> Stack:
    found = []
    for line in lines:
        filename, number, name = line.split(":", 2)
        found.append({"filename": filename, "line": int(number), "name": name})
    return found


MALLOC = (
    "CUDACachingAllocator.cpp:0:c10::cuda::CUDACachingAllocator::Native::DeviceCachingAllocator"
    "::malloc(signed char, unsigned long, CUstream_st*)",
    "??:0:at::detail::empty_cuda(c10::ArrayRef<long>, c10::TensorOptions const&)",
)
MAIN = ("/home/me/train.py:61:train_step", "/home/me/train.py:90:<module>")
EXEC = "/usr/local/src/python-3.11/Python/ceval.c:1:_PyEval_EvalFrameDefault"
BUILD = (
    *MALLOC, "??:0:at::_ops::_to_copy::redispatch(c10::DispatchKeySet)",
    f"{SITE}/nn/modules/module.py:1329:convert", f"{SITE}/nn/modules/module.py:930:_apply",
    f"{SITE}/nn/modules/module.py:1343:to", "/home/me/train.py:20:<module>",
)  # fmt: skip
BATCH = (
    *MALLOC, "??:0:at::_ops::_to_copy::call(at::Tensor const&)",
    "python_variable_methods.cpp:0:torch::autograd::THPVariable_to(_object*, _object*, _object*)",
    EXEC, *MAIN,
)  # fmt: skip
FORWARD = (
    *MALLOC, "??:0:at::_ops::OPERATOR::call(at::Tensor const&)", EXEC,
    f"{SITE}/nn/modules/linear.py:125:forward", f"{SITE}/nn/modules/module.py:1750:_call_impl",
    f"{SITE}/nn/modules/module.py:1739:_wrapped_call_impl", "/home/me/model.py:12:forward",
    f"{SITE}/nn/modules/module.py:1750:_call_impl", *MAIN,
)  # fmt: skip
BACKWARD = (
    *MALLOC, "??:0:at::_ops::OPERATOR::call(at::Tensor const&)",
    "??:0:torch::autograd::generated::AddmmBackward0::apply(std::vector<at::Tensor>&&)",
    ":0:torch::autograd::Node::operator()(std::vector<at::Tensor>&&)",
    "??:0:torch::autograd::Engine::evaluate_function(std::shared_ptr<torch::autograd::GraphTask>&)",
    "??:0:torch::autograd::Engine::thread_main(std::shared_ptr<torch::autograd::GraphTask> const&)",
)  # fmt: skip
STATE = (
    *MALLOC, "python_torch_functions_0.cpp:0:torch::autograd::THPVariable_zeros_like(_object*)",
    f"{SITE}/optim/adam.py:180:_init_group", f"{SITE}/optim/adam.py:236:step",
    f"{SITE}/optim/optimizer.py:79:_use_grad", f"{SITE}/optim/optimizer.py:485:wrapper", *MAIN,
)  # fmt: skip
STEP = (
    *MALLOC, "??:0:at::_ops::_foreach_sqrt::call(c10::ArrayRef<at::Tensor>)",
    f"{SITE}/optim/adam.py:620:_multi_tensor_adam", f"{SITE}/optim/adam.py:784:adam",
    f"{SITE}/optim/adam.py:246:step", f"{SITE}/optim/optimizer.py:485:wrapper", *MAIN,
)  # fmt: skip
CUBLAS = (MALLOC[0], "??:0:at::cuda::getCurrentCUDABlasHandle()")
ZERO_GRAD = (f"{SITE}/optim/optimizer.py:1020:zero_grad", *MAIN)


def stack_of(made: Allocation) -> Stack:
    if made.part is Part.WORKSPACES:
        inside = BACKWARD if made.phase is Phase.BACKWARD else FORWARD
        lines: tuple[str, ...] = (*CUBLAS, *inside[2:])
    elif made.part is Part.BATCH:
        lines = BATCH
    elif made.part is Part.OPTIMIZER:
        lines = STATE
    else:
        lines = {
            Phase.DATA: BUILD, Phase.FORWARD: FORWARD, Phase.BACKWARD: BACKWARD,
            Phase.OPTIMIZER: STEP,
        }[made.phase]  # fmt: skip
    operator = made.operator.split(".")[1] if "." in made.operator else "op"
    return frames(*(line.replace("OPERATOR", operator) for line in lines))


@cache
def training_tape() -> Tape:
    """Two steps of a small convolutional net with Adam."""
    made = memfit.plan("cnn", batch_size=4, optimizer="adam")
    tape = made.tape_at(4)[0]
    events = list(tape.events)
    while events[-1] < 0:  # a program is still there when its snapshot is taken
        events.pop()
    return replace(tape, events=tuple(events))


def recorded(
    tape: Tape | None = None, *, python_only: bool = False, drop: int = 0, **options: Any
) -> dict[str, Any]:
    """A snapshot as torch would have recorded it.

    Args:
        tape: what was run.
        python_only: as with ``_record_memory_history(stacks="python")``.
        drop: entries that a ring buffer has lost.
        options: of :func:`snapshot_bytes`.
    """
    tape = tape or training_tape()
    snapshot: dict[str, Any] = pickle.loads(snapshot_bytes(tape, **options))
    del snapshot["memfit"]
    allocations = iter(tape.allocations[n] for n in tape.events if n >= 0 if tape.sizes_bytes[n])
    live: dict[int, Allocation] = {}
    for entry in snapshot["device_traces"][0]:
        entry.pop("category", None)
        entry["user_metadata"] = ""
        if entry["action"] in ("alloc", "oom"):
            made = next(allocations)
            entry["frames"] = stack_of(made)
            live[entry.get("addr", -1)] = made
        elif entry["action"].startswith("free") and live[entry["addr"]].part is Part.GRADIENTS:
            entry["frames"] = frames(*ZERO_GRAD)
    owners = {address: stack_of(made) for address, made in live.items()}
    for segment in snapshot["segments"]:
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                block["frames"] = owners[block["address"]]
    if python_only:
        everything = snapshot["device_traces"][0] + [
            b for s in snapshot["segments"] for b in s["blocks"]
        ]
        for item in everything:
            item["frames"] = [f for f in item["frames"] if f["filename"].endswith(".py")]
    snapshot["external_annotations"] = []
    del snapshot["device_traces"][0][:drop]
    return snapshot
