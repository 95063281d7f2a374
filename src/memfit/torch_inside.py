"""Everything private of PyTorch that memfit relies on, in one place: no other file touches any.

PyTorch has no public name for what stands here. All of it was found in torch 2.11, 2.12, 2.13,
2.14 and 2.15, in the file named at each; a test holds that the installed torch has it and that no
other file of memfit uses a name of torch that begins with an underscore. (Operators such as
``aten._softmax`` are no such names: their schemas are stable and listed.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map, tree_map_only
from torch.utils.data.dataloader import _BaseDataLoaderIter

__all__ = [
    "AnyBatchNorm", "AnyDropout", "AnyLoaderIterator", "DispatchMode", "FakeTensor",
    "TensorBase",
    "allocator_trace", "autograd_position", "backward_task", "compiled_from", "copy_all",
    "excluding", "flat_weights", "has_kernel", "host_storage", "in_backward", "is_traced",
    "is_view", "key_set", "lists_on",
    "meta_is_cuda", "meta_plays_cuda", "node_position",
    "nvml_index", "observe_out_of_memory", "overload_name",
    "own_buffers", "own_parameters", "packet_of", "reference_counts", "replaced",
    "running_node", "scaler_tensors", "schema_of", "set_allocator_settings",
    "start_allocator_trace", "state_maker", "storage_key", "switch_key", "tree_iter", "tree_map",
    "tree_map_only", "when_cuda_starts", "without_modes", "without_pinning",
]  # fmt: skip

#: Base classes of every batch norm and every dropout (``torch/nn/modules``).
AnyBatchNorm = _BatchNorm
AnyDropout = _DropoutNd
#: Base class of what iterates over a ``DataLoader`` (``torch/utils/data/dataloader.py``).
AnyLoaderIterator: Any = _BaseDataLoaderIter
#: Where ``Tensor`` has most of its names from (``torch/_tensor.py``).
TensorBase: Any = torch._C.TensorBase

_optimizer: Any = import_module("torch.optim.optimizer")  # hidden by torch.optim


def flat_weights(layer: torch.nn.RNNBase) -> list[torch.Tensor]:
    """Weights and biases by layer and direction (``torch/nn/modules/rnn.py``)."""
    weights: Any = layer._flat_weights
    return list(weights)


class DispatchMode(TorchDispatchMode):
    """Sees every operator that runs inside ``with`` (``torch/utils/_python_dispatch.py``)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; torch's guard around each operator would cost a tenth."""
        return False

    def in_parts(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a composite operator gives, each of its parts seen; ``NotImplemented`` of others.

        Autograd takes composites apart before a mode sees them. Under ``inference_mode``, and for
        tensors made there, it does not.
        """
        if not _is_composite(func):
            return NotImplemented
        with self:
            return func.decompose(*args, **kwargs)


@cache
def _is_composite(func: Any) -> bool:
    """Whether an operator has no kernel but others, as the dispatcher chooses (a few have both)."""
    if not hasattr(func, "decompose"):
        return False
    own, composite = ("CPU", "CUDA"), "CompositeImplicitAutograd"
    name = func.name()
    return has_kernel(name, composite) and not any(has_kernel(name, key) for key in own)


def is_traced() -> bool:
    """Whether TorchScript is tracing on this thread (``torch/jit/_trace.py``)."""
    return torch._C._get_tracing_state() is not None


#: Inside ``with without_modes():`` no such mode sees anything.
without_modes: Any = _disable_current_modes


# -- autograd (torch/csrc/autograd) ----------------------------------------------------------------


def backward_task() -> int:
    """The number of the backward that runs on this thread, -1 outside of any.

    A backward within a backward, as a reentrant checkpoint makes it, has a number of its own.
    """
    return torch._C._current_graph_task_id()


def in_backward() -> bool:
    """Whether the autograd engine is running on this thread."""
    return backward_task() >= 0


def running_node() -> Any:
    """The node of the graph that the engine is running on this thread, or None."""
    return torch._C._current_autograd_node()


def node_position(node: Any) -> int:
    """When a node was made: nodes of one thread are counted."""
    return int(node._sequence_nr())


def autograd_position() -> int:
    """The :func:`node_position` that this thread's next node will have."""
    return torch._C._autograd._get_sequence_nr()


# -- tensors, modules, operators -------------------------------------------------------------------


def storage_key(tensor: Tensor) -> int:
    """What tensors that share memory have in common, as long as one of them lives."""
    return int(tensor.untyped_storage()._cdata)


def host_storage(address: int, size_bytes: int) -> torch.UntypedStorage:
    """A storage of the host over memory that somebody else keeps."""
    make: Any = torch._C
    storage: torch.UntypedStorage = make._construct_storage_from_data_pointer(
        address, torch.device("cpu"), size_bytes
    )
    return storage


def reference_counts(tensor: Tensor) -> tuple[int, int]:
    """How many in C++ refer to a tensor and to its storage, with those of this call."""
    storage = tensor.untyped_storage()
    return tensor._use_count(), torch._C._storage_Use_Count(storage._cdata)


def is_view(tensor: Tensor) -> bool:
    """Whether autograd takes it for a view of another tensor."""
    return tensor._is_view()


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own parameters, not its children's; writing to it registers and removes."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers, not its children's; writing to it registers and removes."""
    return module._buffers


def compiled_from(module: nn.Module) -> nn.Module | None:
    """What ``torch.compile`` wrapped (``OptimizedModule``, ``torch/_dynamo/eval_frame.py``)."""
    wrapped = getattr(module, "_orig_mod", None)
    return wrapped if isinstance(wrapped, nn.Module) else None


def schema_of(operator: Any) -> Any:
    """Name, arguments and returns of an overload (``torch/_ops.py``)."""
    return operator._schema


def overload_name(operator: Any) -> str:
    """Such as ``"dim_IntList"``; empty for the default."""
    return str(operator._overloadname)


def packet_of(operator: Any) -> Any:
    """What an overload is one of, such as ``torch.ops.aten.sum``."""
    return operator._overloadpacket


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target, with few kernels."""
    torch._foreach_copy_(list(targets), list(sources))


# -- the dispatcher (torch/csrc/utils/python_dispatch.cpp) -----------------------------------------

#: Inside ``with excluding(keys)`` these keys choose no kernel on this thread.
excluding: Any = torch._C._ExcludeDispatchKeyGuard


def key_set(key: str) -> Any:
    """A set with one dispatch key."""
    return torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))


def switch_key(key: str, *, on: bool) -> None:
    """Let a dispatch key choose kernels on this thread, or not."""
    torch._C._dispatch_tls_set_dispatch_key_excluded(key, not on)
    torch._C._dispatch_tls_set_dispatch_key_included(key, on)


def has_kernel(operator: str, key: str) -> bool:
    """Whether an operator such as ``"aten::sum"`` has a kernel for a dispatch key."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)


# -- optimizers (torch/optim/optimizer.py, torch/amp/grad_scaler.py) -------------------------------


def state_maker(optimizer: torch.optim.Optimizer) -> Callable[..., Any] | None:
    """Makes the state of one group's parameters; None where the optimizer is not PyTorch's own."""
    init: Callable[..., Any] | None = getattr(optimizer, "_init_group", None)
    return init if init is not None and init.__module__.startswith("torch.optim.") else None


def scaler_tensors(scaler: torch.amp.GradScaler) -> list[Tensor]:
    """The scale and its growth tracker; none before the first loss was scaled."""
    tensors = cast("list[Tensor | None]", [scaler._scale, scaler._growth_tracker])
    return [tensor for tensor in tensors if tensor is not None]


@contextmanager
def lists_on(device_type: str) -> Iterator[None]:
    """Inside, optimizers update lists of tensors at once there, as is their default on CUDA."""
    foreach = _optimizer._get_foreach_kernels_supported_devices()
    name = "_get_foreach_kernels_supported_devices"
    with replaced([(_optimizer, name, lambda: [*foreach, device_type])]):
        yield


@contextmanager
def meta_plays_cuda(clear_casts: Callable[[], None]) -> Iterator[None]:
    """Inside, where PyTorch's Python asks whether a tensor is on CUDA, meta is.

    Args:
        clear_casts: called whenever autocast would empty its cache.
    """
    from torch.amp import autocast_mode
    from torch.cuda.amp import common
    from torch.utils import checkpoint

    infer: Any = checkpoint._infer_device_type
    init: Any = autocast_mode.autocast.__init__
    fused = _optimizer._get_fused_kernels_supported_devices()
    clear = torch.clear_autocast_cache

    def init_autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        init(self, "cuda" if device_type == "meta" else device_type, *args, **kwargs)

    def infer_device_type(*args: Any) -> str:
        return "cuda" if (device := infer(*args)) == "meta" else device

    def clear_cache() -> None:
        clear_casts()
        clear()

    stand_ins: list[tuple[Any, str, Any]] = [
        (common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (autocast_mode.autocast, "__init__", init_autocast),
        (checkpoint, "_infer_device_type", infer_device_type),
        (torch, "clear_autocast_cache", clear_cache),
        (_optimizer, "_get_fused_kernels_supported_devices", lambda: [*fused, "meta"]),
        # Asks a real GPU whether a graph is captured, which would put a CUDA context on it.
        (torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda _: None),
    ]
    with replaced(stand_ins), lists_on("meta"):
        yield


@contextmanager
def replaced(stand_ins: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Inside, these functions are called in place of others, on this thread alone.

    Args:
        stand_ins: whose name, the name, and what stands in for it; classes and properties do so
            for every thread.
    """
    originals = [(owner, name, vars(owner).get(name, _NOT_ITS_OWN)) for owner, name, _ in stand_ins]
    for owner, name, stand_in in stand_ins:
        is_call = isinstance(stand_in, FunctionType | MethodType)
        here = _on_this_thread(stand_in, getattr(owner, name)) if is_call else stand_in
        setattr(owner, name, here)
    try:
        yield
    finally:
        for owner, name, original in reversed(originals):
            if original is _NOT_ITS_OWN:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


#: In place of the original where a class has a name from its base.
_NOT_ITS_OWN = object()


def _on_this_thread(stand_in: Callable[..., Any], original: Callable[..., Any]) -> Any:
    thread = threading.get_ident()

    @wraps(stand_in)
    def either(*args: Any, **kwargs: Any) -> Any:
        call = stand_in if threading.get_ident() == thread else original
        return call(*args, **kwargs)

    return either


@contextmanager
def meta_is_cuda() -> Iterator[None]:
    """Inside, PyTorch does not initialize CUDA when it is named (``torch/cuda/__init__.py``)."""
    with replaced([(torch.cuda, "_lazy_init", lambda: None)]):
        yield


@contextmanager
def without_pinning() -> Iterator[None]:
    """Inside, a loader pins no memory (``torch/utils/data/dataloader.py``)."""
    make = _BaseDataLoaderIter.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self._pin_memory = False

    with replaced([(_BaseDataLoaderIter, "__init__", init)]):
        yield


# -- CUDA and its allocator (torch/cuda/__init__.py, torch/cuda/memory.py) -------------------------


def when_cuda_starts(call: Callable[[], object]) -> None:
    """Have this called once PyTorch has initialized CUDA; at once where it has already."""
    torch.cuda._lazy_call(call)


def observe_out_of_memory(observer: Callable[[int, int, int, int], object]) -> None:
    """Have this called whenever the allocator has nothing to give, before it raises.

    Args:
        observer: is given the number of the GPU, the bytes asked for, the GPU's bytes and its free
            bytes (``torch/csrc/cuda/Module.cpp``). CUDA must be initialized.
    """
    attach: Any = torch._C
    attach._cuda_attach_out_of_memory_observer(observer)


def set_allocator_settings(options: str) -> None:
    """Options as in ``PYTORCH_ALLOC_CONF``, for an allocator that runs already."""
    torch.cuda.memory._set_allocator_settings(options)


def start_allocator_trace(cuda: Any = torch.cuda) -> None:
    """From here on the allocator notes what it does, without stacks."""
    cuda.memory._record_memory_history("all", context=None, stacks="python")


def allocator_trace(cuda: Any = torch.cuda) -> Sequence[Mapping[str, Any]]:
    """What the allocator of the first GPU noted since the start; it notes no more."""
    traces: Sequence[Sequence[Mapping[str, Any]]] = cuda.memory._snapshot()["device_traces"]
    cuda.memory._record_memory_history(None)
    return traces[0] if traces else ()


def nvml_index(cuda: Any = torch.cuda) -> int:
    """NVML's number of the first GPU that CUDA sees (``torch/cuda/__init__.py``).

    Raises:
        RuntimeError, AttributeError, IndexError, OSError: NVML or its library does not answer.
    """
    return int(cuda._get_nvml_device_index(0))
