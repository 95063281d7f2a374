"""Asking cuDNN for a convolution's plan and workspace on a GPU that is described, not present.

PyTorch runs a convolution with the first execution plan that cuDNN's heuristics return and that
its filter accepts, and allocates that plan's workspace for the length of the call
(``aten/src/ATen/native/cudnn/Conv_v8.cpp``, torch 2.11 to 2.15: ``get_configs_from_heuristics``,
``filterEngineConfigs``, ``run_conv_plan``). There is no public formula for the size. But since
version 9.8 cuDNN answers the same heuristic query from a device *description* ("Deviceless
ahead-of-time compilation", cuDNN documentation; ``CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR`` in
``cudnn_graph.h``), and the CUDA builds of torch bring the library along. So where it is installed
the size is asked, not modelled; about 1 ms for each distinct convolution.

Tried with cuDNN 9.19 and 9.26: the answers depend on the compute capability alone. Changing the
multiprocessor count, clocks, cache, memory size or name of the description changed 0 of 840
answers; so nothing but the compute capability is asked for here.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache

from memfit.memory.kernels.cudnn.convolution_problem import ConvolutionKind, ConvolutionProblem

__all__ = ["cudnn_version", "heuristic_workspace_bytes"]

_Pointer = ctypes.c_void_p

# Enumerators of cudnn_graph.h (cuDNN 9).
_FLOAT, _DOUBLE = 0, 1
_DATA_TYPE = {"float32": _FLOAT, "float64": _DOUBLE, "float16": 2, "bfloat16": 9}
_CONVOLUTION, _ENGINE, _ENGINE_CONFIG, _HEURISTICS, _PLAN = 1, 2, 3, 4, 5
_OPERATION_GRAPH, _TENSOR, _DEVICE = 15, 17, 38
_TYPE_DATA, _TYPE_INT64, _TYPE_FLOAT, _TYPE_MODE, _TYPE_HEURISTIC = 1, 3, 4, 7, 8
_TYPE_NOTE, _TYPE_DESCRIPTOR, _TYPE_CHAR = 11, 15, 24
_CROSS_CORRELATION = 1
_NOTE_TENSOR_CORE, _NOTE_DOWN_CONVERT = 0, 1
_MODE_INSTANT, _MODE_FALLBACK = 0, 2
_MOST_CONFIGS = 128  # the heuristics gave at most 40
_FIRST_AVAILABLE_VERSION = 90800  # CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR
# The CUDA 13 builds start here (cuDNN support matrix); below, the answer is an empty 0.
_OLDEST_COMPUTE_CAPABILITY = (7, 5)
_ALIGNMENT_BYTES = 32  # what getAlignment of Conv_v8.cpp finds for a pointer of the allocator

# kind -> (operation descriptor, attribute of alpha, attributes of x, w, y)
_OPERATION: dict[ConvolutionKind, tuple[int, int, tuple[int, int, int]]] = {
    "forward": (10, 700, (704, 703, 705)),
    "backward_data": (12, 706, (710, 709, 711)),
    "backward_filter": (11, 712, (716, 715, 717)),
}

# Largest dynamic shared memory of a block, in bytes: CUDA C++ Programming Guide, table
# "Technical Specifications per Compute Capability" ("maximum amount of shared memory per thread
# block"). It bounds which kernels fit.
_SHARED_MEMORY_BYTES = {
    (7, 0): 96 << 10,
    (7, 5): 64 << 10,
    (8, 0): 163 << 10,
    (8, 6): 99 << 10,
    (8, 7): 163 << 10,
    (8, 9): 99 << 10,
    (9, 0): 227 << 10,
    (10, 0): 227 << 10,
    (10, 3): 227 << 10,
    (12, 0): 99 << 10,
    (12, 1): 99 << 10,
}

# The rest of the description must be present but changes no answer (see the module docstring).
_ANY_DEVICE = {
    **{"maxGridSize": [2**31 - 1, 65535, 65535], "maxBlockSize": [1024, 1024, 64]},
    **{"regsPerBlock": 65536, "maxRegistersPerSM": 65536, "warpSize": 32},
    **{"multiProcessorCount": 100, "smCountOrigin": 0, "maxCtasPerSM": 16},
    **{"maxThreadsPerBlock": 1024, "maxThreadsPerSM": 1536, "supportCoopLaunch": 1},
    **{"maxSharedMemoryPerBlock": 48 << 10, "reservedSharedMemoryPerBlock": 1024},
    **{"oversizedSharedMemoryPerBlock": 0, "l2CacheSize": 4 << 20, "totalGlobalMem": 12 << 30},
    **{"smClockRateKHz": 1_700_000, "memClockRateKHz": 7_500_000, "driverVer": 13000},
    **{"pciDeviceId": 0, "cudaDeviceId": 0, "isTccDriver": 0, "deviceName": "GPU"},
}


class _RefusedError(Exception):
    """cuDNN returned a status other than success."""


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The cuDNN that torch brought along, when it can answer without a device."""
    name = "cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9"
    try:
        library = ctypes.CDLL(name)
        library.cudnnGetVersion.restype = ctypes.c_size_t
        version = int(library.cudnnGetVersion())
    except (OSError, AttributeError):
        return None
    return library if version >= _FIRST_AVAILABLE_VERSION else None


def cudnn_version() -> str | None:
    """The version of the cuDNN that answers, such as "9.19.0", or None without one.

    torch must have been imported: its import is what puts the library within reach.
    """
    library = _library()
    if library is None:
        return None
    version = int(library.cudnnGetVersion())
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def _check(status: int) -> None:
    if status:
        raise _RefusedError(status)


class _Session:
    """The descriptors of one query, all destroyed at the end of the ``with`` block."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self._stack = ExitStack()

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def create(self, descriptor_type: int) -> _Pointer:
        descriptor = ctypes.c_void_p()
        _check(self.library.cudnnBackendCreateDescriptor(descriptor_type, ctypes.byref(descriptor)))
        self._stack.callback(self.library.cudnnBackendDestroyDescriptor, descriptor)
        return descriptor

    def finalize(self, descriptor: _Pointer) -> _Pointer:
        _check(self.library.cudnnBackendFinalize(descriptor))
        return descriptor

    def _set(self, descriptor: _Pointer, name: int, kind: int, count: int, values: object) -> None:
        status = self.library.cudnnBackendSetAttribute(
            descriptor, name, kind, ctypes.c_int64(count), values
        )
        _check(status)

    def set_ints(self, descriptor: _Pointer, name: int, values: Sequence[int]) -> None:
        array = (ctypes.c_int64 * len(values))(*values)
        self._set(descriptor, name, _TYPE_INT64, len(values), array)

    def set_enum(self, descriptor: _Pointer, name: int, kind: int, value: int) -> None:
        self._set(descriptor, name, kind, 1, (ctypes.c_int32 * 1)(value))

    def set_float(self, descriptor: _Pointer, name: int, value: float) -> None:
        self._set(descriptor, name, _TYPE_FLOAT, 1, (ctypes.c_float * 1)(value))

    def set_text(self, descriptor: _Pointer, name: int, text: bytes) -> None:
        self._set(descriptor, name, _TYPE_CHAR, len(text), text)

    def set_descriptor(self, descriptor: _Pointer, name: int, value: _Pointer) -> None:
        self._set(descriptor, name, _TYPE_DESCRIPTOR, 1, (ctypes.c_void_p * 1)(value.value))

    def get(self, descriptor: _Pointer, name: int, kind: int, count: int, into: object) -> int:
        """Read an attribute into a buffer; the number of elements there are."""
        found = ctypes.c_int64()
        status = self.library.cudnnBackendGetAttribute(
            descriptor, name, kind, ctypes.c_int64(count), ctypes.byref(found), into
        )
        _check(status)
        return found.value


def _strides(shape: Sequence[int], channels_last: bool) -> list[int]:
    order = [0, *range(2, len(shape)), 1] if channels_last else list(range(len(shape)))
    strides, step = [0] * len(shape), 1
    for dimension in reversed(order):
        strides[dimension] = step
        step *= shape[dimension]
    return strides


def _tensor(session: _Session, problem: ConvolutionProblem, name: str) -> _Pointer:
    shapes = {"x": problem.input_shape, "w": problem.weight_shape, "y": problem.output_shape}
    tensor = session.create(_TENSOR)
    session.set_enum(tensor, 901, _TYPE_DATA, _DATA_TYPE[problem.dtype])
    session.set_ints(tensor, 902, shapes[name])
    session.set_ints(tensor, 903, _strides(shapes[name], problem.channels_last))
    session.set_ints(tensor, 906, [ord(name)])
    session.set_ints(tensor, 900, [_ALIGNMENT_BYTES])
    return session.finalize(tensor)


def _convolution(session: _Session, problem: ConvolutionProblem) -> _Pointer:
    compute_type = _DOUBLE if problem.dtype == "float64" else _FLOAT  # getConvDescriptor
    convolution = session.create(_CONVOLUTION)
    session.set_enum(convolution, 100, _TYPE_DATA, compute_type)
    session.set_enum(convolution, 101, _TYPE_MODE, _CROSS_CORRELATION)
    session.set_ints(convolution, 102, problem.dilation)
    session.set_ints(convolution, 103, problem.stride)
    session.set_ints(convolution, 104, problem.padding)
    session.set_ints(convolution, 105, problem.padding)
    session.set_ints(convolution, 106, [len(problem.stride)])
    return session.finalize(convolution)


def _graph(session: _Session, problem: ConvolutionProblem) -> _Pointer:
    descriptor_type, alpha, tensors = _OPERATION[problem.kind]
    operation = session.create(descriptor_type)
    session.set_float(operation, alpha, 1.0)
    session.set_float(operation, alpha + 1, 0.0)
    session.set_descriptor(operation, alpha + 2, _convolution(session, problem))
    for name, attribute in zip("xwy", tensors, strict=True):
        session.set_descriptor(operation, attribute, _tensor(session, problem, name))
    graph = session.create(_OPERATION_GRAPH)
    session.set_descriptor(graph, 801, session.finalize(operation))
    return session.finalize(graph)


@lru_cache
def _device(library: ctypes.CDLL, compute_capability: tuple[int, int]) -> _Pointer:
    """The description of a GPU, which is never destroyed: every question needs it."""
    session = _Session(library)
    major, minor = compute_capability
    description = _ANY_DEVICE | {
        "deviceVer": major * 100 + minor * 10,
        "maxSharedMemoryPerBlockOptin": _SHARED_MEMORY_BYTES.get(compute_capability, 99 << 10),
    }
    device = session.create(_DEVICE)
    session.set_text(device, 2702, json.dumps(description).encode())
    return session.finalize(device)


def _engine_configs(
    session: _Session, graph: _Pointer, device: _Pointer, mode: int
) -> Iterator[_Pointer]:
    """The configurations of the heuristics, best first.

    The best one alone costs half of all together, and most often it is the one that runs.
    """
    given = 0
    for count in (1, _MOST_CONFIGS):
        heuristics = session.create(_HEURISTICS)
        session.set_descriptor(heuristics, 201, graph)
        session.set_enum(heuristics, 200, _TYPE_HEURISTIC, mode)
        session.set_descriptor(heuristics, 204, device)
        session.finalize(heuristics)
        configs = [session.create(_ENGINE_CONFIG) for _ in range(count)]
        array = (ctypes.c_void_p * count)(*(config.value for config in configs))
        found = session.get(heuristics, 202, _TYPE_DESCRIPTOR, count, array)
        yield from configs[given:found]
        given = found


def _notes(session: _Session, config: _Pointer) -> list[int]:
    """The numerical notes of a configuration's engine."""
    engine = session.create(_ENGINE)
    session.get(config, 300, _TYPE_DESCRIPTOR, 1, ctypes.byref(engine))
    notes = (ctypes.c_int32 * 16)()
    count = session.get(engine, 1303, _TYPE_NOTE, 16, notes)
    return list(notes[:count])


def _plan_workspace_bytes(session: _Session, config: _Pointer, device: _Pointer) -> int | None:
    plan = session.create(_PLAN)
    size = ctypes.c_int64()
    try:
        session.set_descriptor(plan, 401, config)
        session.set_descriptor(plan, 407, device)
        session.finalize(plan)
        session.get(plan, 402, _TYPE_INT64, 1, ctypes.byref(size))
    except _RefusedError:  # PyTorch goes on to the next configuration as well
        return None
    return size.value


def _accepted(problem: ConvolutionProblem, notes: list[int], allow_tf32: bool) -> bool:
    """``filterEngineConfigs`` of Conv_v8.cpp, without deterministic mode."""
    if _NOTE_DOWN_CONVERT in notes:
        return False
    return allow_tf32 or problem.dtype != "float32" or _NOTE_TENSOR_CORE not in notes


def _workspaces(
    session: _Session,
    problem: ConvolutionProblem,
    compute_capability: tuple[int, int],
    allow_tf32: bool,
    mode: int,
) -> Iterator[int]:
    """Workspace sizes of the plans PyTorch would try, in its order."""
    device = _device(session.library, compute_capability)
    for config in _engine_configs(session, _graph(session, problem), device, mode):
        if _accepted(problem, _notes(session, config), allow_tf32):
            size = _plan_workspace_bytes(session, config, device)
            if size is not None:
                yield size


@lru_cache(maxsize=8192)
def heuristic_workspace_bytes(
    problem: ConvolutionProblem, compute_capability: tuple[int, int], *, allow_tf32: bool
) -> int | None:
    """Workspace of the plan that PyTorch runs when ``cudnn.benchmark`` is off.

    Args:
        problem: the call.
        compute_capability: of the GPU that is planned for.
        allow_tf32: ``torch.backends.cudnn.allow_tf32``, True by default.

    Returns:
        Bytes, or None when no cuDNN that can answer is installed or it has no plan for this GPU
        (a compute capability it no longer or does not yet support, a dtype the GPU lacks).
    """
    is_known = problem.dtype in _DATA_TYPE and compute_capability >= _OLDEST_COMPUTE_CAPABILITY
    library = _library() if is_known else None
    if library is None:
        return None
    for mode in (_MODE_INSTANT, _MODE_FALLBACK):
        try:
            with _Session(library) as session:
                sizes = _workspaces(session, problem, compute_capability, allow_tf32, mode)
                size = next(sizes, None)
        except _RefusedError:
            size = None
        if size is not None:
            return size
    return None
