"""What a program that uses CUDA finds on a GPU that is not there: the public names of PyTorch.

Operators reach the recorder whatever they are called by, and ``device="cuda"`` with them
(:mod:`memfit.memory.recording.meta_recorder`). What stands here is answered before any operator:
``torch.cuda``, ``torch.accelerator``, and where PyTorch asks the CUDA runtime by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from memfit.cards.catalogue import GPU
from memfit.elsewhere import moves
from memfit.memory.cuda.recurrent import flatten_weights
from memfit.memory.recording.meta_recorder import MetaRecorder
from memfit.memory.recording.statistics import Statistics
from memfit.memory.recording.values import Values
from memfit.torch_inside import TensorBase, meta_is_cuda, replaced, tree_map, without_pinning

__all__ = ["cuda_names"]

StandIn = tuple[Any, str, Any]

_CUDA = torch.device("cuda", 0)


@contextmanager
def cuda_names(card: GPU, recorder: MetaRecorder, statistics: Statistics) -> Iterator[None]:
    """Inside, this thread has one CUDA device.

    Args:
        card: what it is.
        recorder: knows its tensors.
        statistics: what its allocator counts.
    """
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    # What is moved stays the same parameter, as from CPU to CUDA: optimizers hold on to it.
    torch.__future__.set_swap_module_params_on_conversion(True)
    stand_ins = [
        *_of_devices(card), *_of_memory(card, statistics), *_of_streams(recorder.values),
        *_of_tensors(recorder), *moves("meta"), *_of_modules(recorder),
    ]  # fmt: skip
    try:
        with meta_is_cuda(), without_pinning(), replaced(stand_ins):
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _where_known(owners: tuple[Any, ...], answers: dict[str, Any]) -> list[StandIn]:
    """A stand-in for each of these names that an owner has."""
    return [
        (owner, name, stand_in)
        for owner in owners
        for name, stand_in in answers.items()
        if hasattr(owner, name)
    ]


# -- torch.cuda and torch.accelerator --------------------------------------------------------------


def _of_devices(card: GPU) -> list[StandIn]:
    major, minor = card.compute_capability
    properties = SimpleNamespace(
        name=card.name, major=major, minor=minor, total_memory=card.total_bytes,
        multi_processor_count=card.multiprocessors, warp_size=32,
        L2_cache_size=card.l2_cache_bytes or 0, is_integrated=False, is_multi_gpu_board=False,
    )  # fmt: skip
    nothing = dict.fromkeys(
        ("init", "set_device", "set_device_index", "set_device_idx", "synchronize", "manual_seed",
         "manual_seed_all", "seed", "seed_all", "set_rng_state", "set_rng_state_all",
         "ipc_collect", "set_sync_debug_mode"),
        _always(None),
    )  # fmt: skip
    answers = nothing | {
        "is_available": _always(True),
        "is_initialized": _always(True),
        "device_count": lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        "current_device": _always(0),
        "current_device_index": _always(0),
        "current_device_idx": _always(0),
        "current_accelerator": _always(torch.device("cuda")),
        "get_device_name": _always(card.name),
        "get_device_capability": _always(card.compute_capability),
        "get_device_properties": _always(properties),
        "get_arch_list": _always([f"sm_{major}{minor}"]),
        "can_device_access_peer": _always(False),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "initial_seed": torch.initial_seed,
        "utilization": _always(0),
        "device": lambda *_: nullcontext(),
        "device_of": lambda *_: nullcontext(),
        "device_index": lambda *_: nullcontext(),
    }
    names = [name for name in answers if name != "get_device_capability"]  # a dict there
    found = _where_known((torch.cuda,), answers)
    found += _where_known((torch.accelerator,), {name: answers[name] for name in names})
    found += _where_known((torch.cuda.random,), {n: answers[n] for n in answers if "rng" in n})
    marks = {"range_push": _always(0), "range_pop": _always(0), "mark": _always(None)}
    found += _where_known((torch.cuda.nvtx,), marks)
    found += [(torch.backends.cuda, "is_built", _always(True))]
    return [*found, (torch.backends.cudnn, "is_available", _always(True))]


def _of_memory(card: GPU, statistics: Statistics) -> list[StandIn]:
    def free_and_total(*_: Any) -> tuple[int, int]:
        return card.capacity_bytes - statistics.reserved_bytes, card.usable_bytes

    answers = {
        "memory_allocated": lambda *_: statistics.allocated_bytes,
        "memory_reserved": lambda *_: statistics.reserved_bytes,
        "memory_cached": lambda *_: statistics.reserved_bytes,
        "max_memory_allocated": lambda *_: statistics.peak_allocated_bytes,
        "max_memory_reserved": lambda *_: statistics.peak_reserved_bytes,
        "max_memory_cached": lambda *_: statistics.peak_reserved_bytes,
        "reset_peak_memory_stats": lambda *_: statistics.reset_peaks(),
        "reset_max_memory_allocated": lambda *_: statistics.reset_peaks(),
        "reset_max_memory_cached": lambda *_: statistics.reset_peaks(),
        "reset_accumulated_memory_stats": _always(None),
        "empty_cache": statistics.empty_cache,
        "memory_stats": lambda *_: statistics.as_dict(),
        "memory_stats_as_nested_dict": lambda *_: {
            "allocation": {"all": {"allocated": statistics.allocations}}
        },
        "memory_summary": lambda *_, **__: str(statistics.as_dict()),
        "memory_snapshot": _always([]),
        "mem_get_info": free_and_total,
        "get_memory_info": free_and_total,
        "set_per_process_memory_fraction": lambda share, *_: statistics.allow(share),
        "get_per_process_memory_fraction": lambda *_: (
            statistics.settings.per_process_memory_fraction
        ),
    }
    return _where_known((torch.cuda, torch.cuda.memory, torch.accelerator), answers)


class _Stream:
    """A queue for kernels that do nothing; also a context in which they are queued."""

    device = _CUDA
    cuda_stream = stream_id = priority = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def _done(self, *_: Any) -> None:
        return None

    synchronize = wait_stream = wait_event = _done

    def query(self) -> bool:
        """Nothing is waited for."""
        return True

    def record_event(self, event: Any = None) -> Any:
        """An event that has happened."""
        return torch.cuda.Event() if event is None else event

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Event:
    """A mark in a queue, passed at once."""

    values: ClassVar[Values]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def _done(self, *_: Any) -> None:
        return None

    record = wait = synchronize = _done

    def query(self) -> bool:
        """It has happened."""
        return True

    def elapsed_time(self, _: Any) -> float:
        """Milliseconds, made up: nothing was computed."""
        self.values.note("1.0")
        return 1.0


def _of_streams(values: Values) -> list[StandIn]:
    stream = _Stream()
    current = _always(stream)
    answers: dict[str, Any] = {
        "Stream": _Stream, "Event": type("Event", (_Event,), {"values": values}),
        "stream": lambda stream: stream or nullcontext(), "StreamContext": lambda stream: stream,
        "current_stream": current, "default_stream": current, "set_stream": _always(None),
        "is_current_stream_capturing": _always(False),
    }  # fmt: skip
    kinds = {name: answers.pop(name) for name in ("Stream", "Event")}
    own = [(torch.cuda, name, kind) for name, kind in kinds.items()]
    return own + _where_known((torch.cuda, torch.accelerator), answers)


# -- tensors ---------------------------------------------------------------------------------------


def _of_tensors(recorder: MetaRecorder) -> list[StandIn]:
    device, is_cuda = TensorBase.device, TensorBase.is_cuda
    write: Any = Tensor.__format__
    number = Tensor.get_device

    def is_shown(tensor: Tensor) -> bool:
        """Whether the user's code asks; PyTorch itself is told that it is on meta."""
        asker = sys._getframe(2).f_globals.get("__name__", "")
        if recorder.is_inside or asker == "torch" or asker.startswith(("torch.", "memfit.")):
            return False
        return tensor.is_meta

    def device_of(tensor: Tensor) -> torch.device:
        return _CUDA if is_shown(tensor) else device.__get__(tensor)

    def is_on_cuda(tensor: Tensor) -> bool:
        return is_shown(tensor) or is_cuda.__get__(tensor)

    def write_number(tensor: Tensor, text: str) -> str:
        is_number = tensor.is_meta and tensor.dim() == 0
        return format(tensor.item(), text) if is_number else str(write(tensor, text))

    return [
        (Tensor, "device", property(device_of)),
        (Tensor, "is_cuda", property(is_on_cuda)),
        (Tensor, "get_device", lambda tensor: 0 if tensor.is_meta else number(tensor)),
        (Tensor, "pin_memory", lambda tensor, *_: tensor),
        (Tensor, "record_stream", _always(None)),
        (Tensor, "__format__", write_number),
    ]


def _of_modules(recorder: MetaRecorder) -> list[StandIn]:
    make, distribute = Optimizer.__init__, DistributedDataParallel.__init__

    def make_optimizer(optimizer: Any, *args: Any, **kwargs: Any) -> None:
        recorder.has_optimizer = True
        make(optimizer, *args, **kwargs)

    def forward_alone(parallel: nn.DataParallel[Any], *inputs: Any, **kwargs: Any) -> Any:
        """On one device ``DataParallel`` moves the inputs and calls what it wraps."""
        inputs, kwargs = tree_map(
            lambda leaf: leaf.cuda() if isinstance(leaf, Tensor) else leaf, (inputs, kwargs)
        )
        return parallel.module(*inputs, **kwargs)

    def make_parallel(parallel: Any, module: Any, *_: Any, **options: Any) -> None:
        """PyTorch asks for the streams of the devices that it is told to move inputs to."""
        distribute(parallel, module, **options | {"device_ids": None, "output_device": None})

    return [
        (nn.RNNBase, "flatten_parameters", flatten_weights),
        (Optimizer, "__init__", make_optimizer),
        (nn.DataParallel, "forward", forward_alone),
        (DistributedDataParallel, "__init__", make_parallel),
    ]
