"""The tape of a script: the allocator's history, joined with modules, parts and places."""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from memfit.measure.history import HistoryRecorder, joined_tape
from memfit.memory.kernels.facts import DeviceFacts
from memfit.memory.kernels.transients import KernelMemory, Transients, installed_torch_version
from memfit.memory.recording.follower import Follower
from memfit.memory.tape.tape import Tape
from memfit.places import place_of
from memfit.scripts.child.asked_again import Call, with_rules
from memfit.torch_inside import (
    FakeTensor,
    allocator_trace,
    in_backward,
    is_traced,
    start_allocator_trace,
    when_cuda_starts,
)

__all__ = ["PlacedRecorder", "ScriptFollower", "allocations_so_far", "recorded", "recorded_tape"]


def allocations_so_far() -> int:
    """How many allocations the first GPU's allocator has made; 0 before CUDA is used."""
    if not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats_as_nested_dict(0)["allocation"]["all"]["allocated"])


_Kernel = tuple[KernelMemory, tuple[int | None, ...]]


class PlacedRecorder(HistoryRecorder):
    """A recorder that notes the user's line of every operator that allocates.

    Attributes:
        backward_place: the line that began the last backward pass; its operators run in a thread
            that knows no line.
    """

    def __init__(self) -> None:
        super().__init__(allocations_so_far)
        self.backward_place = ""
        self._untils: list[int] = []
        self._places: list[str] = []
        self._calls: list[_Kernel | None] = []
        self._rules: Transients | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator; one that allocates nothing leaves no span."""
        if any(issubclass(kind, FakeTensor) for kind in types):  # of no memory at all
            return func(*args, **kwargs or {})
        if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # of several tensors, such as shards, which come here in turn
        result = super().__torch_dispatch__(func, types, args, kwargs)
        until = self.spans[-1].until
        if until == (self._untils[-1] if self._untils else self.base):
            self.spans.pop()
        else:
            self._untils.append(until)
            place = self.backward_place if in_backward() else place_of(inspect.currentframe())
            self._places.append(place)
            self._calls.append(self._kernel(func, args, result))
        return result

    def _kernel(self, func: Any, args: tuple[Any, ...], result: Any) -> _Kernel | None:
        """What the rules say that the operator takes, and the bytes of its results."""
        if self._rules is None:
            self._rules = Transients(_device_facts())
        kernel = self._rules(func, args, result, self.phase)
        if kernel is None:
            return None
        results = result if isinstance(result, (tuple, list)) else (result,)
        return kernel, tuple(_bytes_of(value) for value in results)

    def calls(self) -> Iterator[Call]:
        """The operators of which rules know what their kernels take."""
        first = self.base
        for until, kernel in zip(self._untils, self._calls, strict=True):
            if kernel is not None:
                yield Call(first - self.base, until - self.base, *kernel)
            first = until

    def place_at(self, index: int) -> str:
        """The user's line that made an allocation.

        Args:
            index: its place in the allocator's history.
        """
        at = bisect_right(self._untils, self.base + index)
        return self._places[at] if at < len(self._places) else ""


def _bytes_of(value: Any) -> int | None:
    return value.untyped_storage().nbytes() if isinstance(value, Tensor) else None


def _device_facts() -> DeviceFacts:
    """Of the GPU that PyTorch sees."""
    card = torch.cuda.get_device_properties(0)
    return DeviceFacts(
        compute_capability=(card.major, card.minor),
        multiprocessors=card.multi_processor_count,
        torch_version=installed_torch_version(),
    )


class ScriptFollower(Follower):
    """Follows what runs on the GPU; modules that prepare images on the CPU are no forward pass."""

    _aside = 0  # how deep in modules that are left out

    def _before_module(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        is_root = not self.recorder.trail.running and not in_backward()
        is_aside = is_traced() or (is_root and not self._is_on_gpu(module, inputs))
        if self._aside or is_aside:  # a traced shape is no number
            self._aside += 1
            return
        super()._before_module(module, inputs)

    def _after_module(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._aside:
            self._aside -= 1
            return
        super()._after_module(module, inputs, output)

    def _is_on_gpu(self, module: nn.Module, inputs: tuple[Any, ...]) -> bool:
        gpu = self.recorder.device_type
        parameter = next(module.parameters(), None)
        if parameter is not None:
            return parameter.device.type == gpu
        return any(isinstance(value, Tensor) and value.device.type == gpu for value in inputs)


@contextmanager
def recorded(recorder: PlacedRecorder) -> Iterator[ScriptFollower]:
    """Inside, everything on the GPU is on the tape, from the first allocation on."""
    follower = ScriptFollower(recorder)
    # The script may still set the allocator's options: its history begins when CUDA does.
    when_cuda_starts(start_allocator_trace)
    with follower.hooks(), recorder:
        yield follower
    follower.tag_gradients()


def recorded_tape(recorder: PlacedRecorder) -> Tape | None:
    """What was recorded; None where CUDA was never used."""
    if not torch.cuda.is_initialized():
        return None
    tape = joined_tape(recorder, allocator_trace())
    placed = tuple(
        replace(allocation, place=recorder.place_at(index))
        for index, allocation in enumerate(tape.allocations)
    )
    return with_rules(replace(tape, allocations=placed), recorder.calls())
