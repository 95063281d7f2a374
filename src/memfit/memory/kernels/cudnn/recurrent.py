"""Asking cuDNN for the workspace of a recurrent layer, in a process that sees no GPU.

PyTorch allocates what ``cudnnGetRNNTempSpaceSizes`` says for the length of a call
(``aten/src/ATen/native/cudnn/RNN.cpp``, torch 2.15). There is no public formula for the
workspace. The library answers for the standard algorithm without a device: it reads nothing of the
handle (tried with cuDNN 9.26: any content gets the same answers), and has written the sizes when it
finds that there is no GPU. As that is no documented way, it is asked in a process of its own, which
this file is, too; one process answers every question.

PyTorch takes persistent algorithms for hidden sizes up to 192 (up to 384 without gates), and for
some float16 layers of one direction; those the library sizes on a device only. The standard
algorithm's sizes stand for them.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["RecurrentProblem", "ask_recurrent_sizes", "recurrent_workspace_bytes"]

_DATA_TYPE = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 2}  # refused without a device
_FLOAT, _DOUBLE = 0, 1
_STANDARD, _DOUBLE_BIAS, _LINEAR_INPUT, _DEFAULT_MATH, _PADDED = 0, 2, 0, 0, 1
_SEQUENCE_MAJOR, _TRAINING = 0, 1


@dataclass(frozen=True, slots=True)
class RecurrentProblem:
    """One call of a recurrent layer.

    Args:
        mode: of cuDNN: 0 and 1 without gates (ReLU, tanh), 2 an LSTM, 3 a GRU.
        steps: length of the sequences.
        batch: how many.
        input_size: values of one step.
        hidden_size: units.
        output_size: units after a projection, else those of ``hidden_size``.
        layers: number of layers.
        is_bidirectional: two directions.
        has_dropout: between layers.
        dtype: such as ``"float32"``.
    """

    mode: int
    steps: int
    batch: int
    input_size: int
    hidden_size: int
    output_size: int
    layers: int
    is_bidirectional: bool
    has_dropout: bool
    dtype: str


def recurrent_workspace_bytes(problem: RecurrentProblem) -> int:
    """Workspace of one call in training, in bytes; 0 where no cuDNN answers.

    Args:
        problem: the call.
    """
    sizes = ask_recurrent_sizes(problem)
    return 0 if sizes is None else sizes[0]


@lru_cache(maxsize=4096)
def ask_recurrent_sizes(problem: RecurrentProblem) -> tuple[int, int] | None:
    """Workspace and reserve of one call in training, in bytes; None where no cuDNN answers.

    Args:
        problem: the call.
    """
    process = _asked()
    if process is None or problem.dtype not in _DATA_TYPE:
        return None
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(problem)) + "\n")
        process.stdin.flush()
        workspace, reserve = map(int, process.stdout.readline().split())
    except (OSError, ValueError):  # it has ended
        return None
    return workspace, reserve


@cache
def _asked() -> subprocess.Popen[str] | None:
    """The process that answers; it ends with this one."""
    spec = find_spec("torch")
    if not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return None
    packages = Path(spec.origin).parents[1]
    places = [
        *packages.glob("nvidia/*/lib/libcudnn.so.9"),
        *packages.glob("torch/lib/libcudnn.so.9"),
    ]
    if not places:
        return None
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, str(places[0])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,  # Ctrl-C is for the program that asks
    )
    atexit.register(process.communicate)  # the end of its input is its own
    return process


# -- the process that answers ----------------------------------------------------------------------


def _sizes(
    library: ctypes.CDLL, handle: ctypes.c_void_p, problem: RecurrentProblem
) -> tuple[int, int]:
    layer, dropout, sequence = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    library.cudnnCreateDropoutDescriptor(ctypes.byref(dropout))
    library.cudnnRestoreDropoutDescriptor(  # setting one runs a kernel
        dropout,
        handle,
        ctypes.c_float(0.5 if problem.has_dropout else 0.0),
        handle,
        ctypes.c_size_t(1 << 16),
        ctypes.c_ulonglong(0),
    )
    library.cudnnCreateRNNDescriptor(ctypes.byref(layer))
    dtype = _DATA_TYPE[problem.dtype]
    library.cudnnSetRNNDescriptor_v8(
        layer, _STANDARD, problem.mode, _DOUBLE_BIAS, int(problem.is_bidirectional), _LINEAR_INPUT,
        dtype, _DOUBLE if dtype == _DOUBLE else _FLOAT, _DEFAULT_MATH, problem.input_size,
        problem.hidden_size, problem.output_size, problem.layers, dropout, _PADDED,
    )  # fmt: skip
    library.cudnnCreateRNNDataDescriptor(ctypes.byref(sequence))
    lengths = (ctypes.c_int * problem.batch)(*[problem.steps] * problem.batch)
    library.cudnnSetRNNDataDescriptor(
        sequence, dtype, _SEQUENCE_MAJOR, problem.steps, problem.batch, problem.input_size, lengths,
        ctypes.byref(ctypes.c_double(0)),
    )  # fmt: skip
    workspace, reserve = ctypes.c_size_t(), ctypes.c_size_t()
    library.cudnnGetRNNTempSpaceSizes(
        handle, layer, _TRAINING, sequence, ctypes.byref(workspace), ctypes.byref(reserve)
    )
    library.cudnnDestroyRNNDataDescriptor(sequence)
    library.cudnnDestroyRNNDescriptor(layer)
    library.cudnnDestroyDropoutDescriptor(dropout)
    return workspace.value, reserve.value


if __name__ == "__main__":
    cudnn, blank = ctypes.CDLL(sys.argv[1]), ctypes.create_string_buffer(1 << 16)
    for line in sys.stdin:
        asked = RecurrentProblem(**json.loads(line))
        print(*_sizes(cudnn, ctypes.cast(blank, ctypes.c_void_p), asked), flush=True)
