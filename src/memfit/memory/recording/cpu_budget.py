"""Real values on the CPU, accounted as on a GPU of a given size: out-of-memory for any machine.

What is counted is what operators return, rounded and cached as PyTorch's CUDA allocator would.
What the CPU's kernels allocate inside and free again is not counted, and they are not the GPU's
kernels: the budget makes a step run out of memory, a plan says what a GPU needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from memfit.errors import UsageError
from memfit.memory.allocator.allocator import (
    AllocatorSettings,
    Block,
    CachingAllocator,
    OutOfDeviceMemory,
)
from memfit.memory.recording.follower import hooked
from memfit.memory.recording.recorder import Recorder, in_backward
from memfit.memory.tape.parts import ALLOCATED_PARTS
from memfit.memory.tape.tape import Part, Phase
from memfit.units import format_bytes

__all__ = ["CpuBudget"]


class CpuBudget:
    """Let CPU tensors inside ``with`` fill a device of ``capacity_bytes``, and run out of it.

    Operators compute as always. Each new storage takes a block of a virtual caching allocator;
    when none is left, after the cache was released, ``torch.OutOfMemoryError`` is raised. It is
    raised when the operator has computed: what the operator did in place by then (BatchNorm's
    running statistics) stays done, as on a GPU it may. In-place operators allocate nothing, so
    nothing that comes after the failed allocation is touched.

    Tensors made before are free until they are adopted. Only the thread that entered counts;
    autograd runs a backward on the CPU in the thread that asked for it.

    Args:
        capacity_bytes: what the device can give to the allocator's segments.
        settings: options of the caching allocator.

    Raises:
        UsageError: the capacity is not positive.

    Example:
        >>> import torch
        >>> from memfit.memory.recording.cpu_budget import CpuBudget
        >>> with CpuBudget(64 * 1024**2):
        ...     half = torch.empty(32 * 1024**2, dtype=torch.uint8)
        ...     torch.empty(33 * 1024**2, dtype=torch.uint8)
        Traceback (most recent call last):
            ...
        torch.OutOfMemoryError: Out of memory on the CPU's virtual budget: \
aten.empty.memory_format asked for 33.0 MiB; capacity 64.0 MiB, allocated 32.0 MiB, \
reserved 32.0 MiB.
    """

    def __init__(self, capacity_bytes: int, settings: AllocatorSettings | None = None) -> None:
        if capacity_bytes <= 0:
            raise UsageError(f"A budget of {capacity_bytes} bytes is none.")
        self.capacity_bytes = capacity_bytes
        self._account = _Account(capacity_bytes, settings or AllocatorSettings())
        self._paths: dict[int, str] = {}
        self._parameters: list[Tensor] = []
        self._stack = ExitStack()

    def __enter__(self) -> CpuBudget:
        with ExitStack() as stack:
            stack.enter_context(self._hooks())
            stack.enter_context(self._account)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # -- what is counted -----------------------------------------------------------------------

    @property
    def allocated_bytes(self) -> int:
        """In live blocks now, as ``torch.cuda.memory_allocated``."""
        self._account.settle_frees()
        return self._account.allocator.allocated_bytes

    @property
    def reserved_bytes(self) -> int:
        """In segments now, as ``torch.cuda.memory_reserved``."""
        self._account.settle_frees()
        return self._account.allocator.reserved_bytes

    @property
    def max_allocated_bytes(self) -> int:
        """The most that was allocated since the last :meth:`reset_peak`."""
        return self._account.peak_allocated_bytes

    @property
    def max_reserved_bytes(self) -> int:
        """The most that was reserved since the last :meth:`reset_peak`."""
        return self._account.peak_reserved_bytes

    @property
    def peak_parts(self) -> dict[Part, int]:
        """Requested bytes by part when most was allocated since the last :meth:`reset_peak`."""
        return self._account.parts_at_peak()

    def reset_peak(self) -> None:
        """Start the maxima anew from what is live now."""
        self._account.reset_peak()

    def empty_cache(self) -> None:
        """Give unused segments back, as ``torch.cuda.empty_cache``."""
        self._account.settle_frees()
        self._account.allocator.empty_cache()

    def adopt(
        self, owner: nn.Module | Tensor | torch.optim.Optimizer, part: Part = Part.BATCH
    ) -> None:
        """Count what was made before: a model, a tensor, or an optimizer's state.

        Args:
            owner: whose tensors take their place in the budget, as ``.to(device)`` would.
            part: what a lone tensor is for; models and optimizers know.

        Raises:
            torch.OutOfMemoryError: they do not fit.
        """
        if isinstance(owner, nn.Module):
            self._adopt_module(owner)
        elif isinstance(owner, torch.optim.Optimizer):
            self._adopt_state(owner)
        else:
            self._account.adopt(owner, part)

    def fail(self, phase: Phase, after: int = 1) -> None:
        """Raise ``torch.OutOfMemoryError`` once, at the ``after``-th allocation of a phase.

        Args:
            phase: DATA is before the model is called, OPTIMIZER all that follows a backward
                (the next micro-batch's data too) until an optimizer's step is done.
            after: counted from 1 and from now; allocations of zero bytes do not count.

        Raises:
            UsageError: ``after`` is below 1.
        """
        if after < 1:
            raise UsageError(f"The first allocation is number 1; {after} was asked for.")
        self._account.injection = _Injection(phase, after)

    @property
    def is_failure_pending(self) -> bool:
        """Whether a failure that :meth:`fail` asked for has not happened yet."""
        return self._account.injection is not None

    # -- hooks: which module, which phase ------------------------------------------------------

    def _hooks(self) -> AbstractContextManager[None]:
        return hooked(
            self._before_module, self._after_module, self._before_optimizer, self._after_optimizer
        )

    def _adopt_module(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            self._paths.setdefault(id(module), name)
        self._parameters += list(model.parameters())
        self._account.adopt_module(model)
        self._account.tag_gradients(self._parameters)

    def _adopt_state(self, optimizer: torch.optim.Optimizer) -> None:
        for value in _state_tensors(optimizer):
            if value.dim():  # a lone number, such as Adam's count of steps, stays on the host
                self._account.adopt(value, Part.OPTIMIZER)

    def _before_module(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if _are_planned(inputs):
            return
        account = self._account
        if not account.modules and not in_backward():
            self._before_root(inputs)
        account.enter_module(self._paths.get(id(module), ""))

    def _before_root(self, inputs: tuple[Any, ...]) -> None:
        account = self._account
        account.tag_gradients(self._parameters)
        for value in inputs:
            if isinstance(value, Tensor) and value.is_leaf and not value.requires_grad:
                account.tag(value, Part.BATCH)
        for phase in (Phase.DATA, Phase.OPTIMIZER):  # after a backward: the next micro-batch
            account.tag_survivors(phase, Part.BATCH)
        account.fold()
        account.enter_phase(Phase.FORWARD)

    def _after_module(self, _module: nn.Module, inputs: Any, _output: Any) -> None:
        if self._account.modules and not _are_planned(inputs):
            self._account.leave_module()

    def _before_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if any(_are_planned(group["params"]) for group in optimizer.param_groups):
            return
        for group in optimizer.param_groups:
            self._account.tag_gradients(group["params"])
        self._account.enter_phase(Phase.OPTIMIZER)

    def _after_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if any(_are_planned(group["params"]) for group in optimizer.param_groups):
            return
        for value in _state_tensors(optimizer):
            self._account.tag(value, Part.OPTIMIZER)
        self._account.begin_step()
        self._account.fold()


def _are_planned(values: Iterable[Any]) -> bool:
    """Whether a plan is traced here: on tensors without memory, which are no part of the budget."""
    return any(isinstance(value, Tensor) and value.is_meta for value in values)


def _state_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


class _Injection:
    """A failure that is still to come."""

    def __init__(self, phase: Phase, after: int) -> None:
        self.phase = phase
        self.left = after

    def is_due(self, phase: Phase) -> bool:
        if phase is self.phase:
            self.left -= 1
        return self.left == 0


class _Account(Recorder):
    """A recorder whose allocations take blocks of an allocator, and which keeps no long tape."""

    def __init__(self, capacity_bytes: int, settings: AllocatorSettings) -> None:
        super().__init__("cpu")
        self.allocator = CachingAllocator(settings, capacity_bytes)
        self.capacity_bytes = capacity_bytes
        self.injection: _Injection | None = None
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = 0
        self._blocks: dict[int, Block] = {}
        # A storage can die while the allocator is at work (the collector runs at any moment): its
        # block is given back before the next request.
        self._freed: deque[int] = deque()
        self._note_free: Callable[[int], None] = self._freed.append
        self._base: list[int] = []  # what was live when the events begin
        self._peak_at: int | None = None  # the event that reached the peak; None: in _peak_parts
        self._peak_parts: dict[Part, int] = {}

    def settle_frees(self) -> None:
        """Give back the blocks of storages that died."""
        while self._freed:
            event = self._freed.popleft()
            self._events.append(event)
            self.allocator.free(self._blocks.pop(~event))

    def tag(self, tensor: Tensor, part: Part) -> None:
        """Say what a tensor is for, if it is counted at all."""
        if tensor.untyped_storage()._cdata in self._live:
            self.adopt(tensor, part)

    def _append(
        self, size: int, part: Part | None, operator: str, shape: tuple[int, ...], dtype: str
    ) -> int:
        self.settle_frees()
        allocator = self.allocator
        if size and self.injection is not None and self.injection.is_due(self.phase):
            self.injection = None
            raise self._out_of_memory(size, operator, "a failure that was asked for")
        try:
            block = allocator.allocate(size)
        except OutOfDeviceMemory:
            raise self._out_of_memory(size, operator) from None
        number = super()._append(size, part, operator, shape, dtype)
        self._blocks[number] = block
        if allocator.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = allocator.allocated_bytes
            self._peak_at = len(self._events) - 1
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, allocator.reserved_bytes)
        return number

    def _out_of_memory(self, size: int, operator: str, note: str = "") -> torch.OutOfMemoryError:
        """The error to raise; what is redone after it starts with its data."""
        module = self._module_now()
        if self.phase is Phase.FORWARD:
            self.tag_survivors(Phase.FORWARD, Part.ACTIVATIONS)
        self.enter_phase(Phase.DATA)
        return torch.OutOfMemoryError(
            f"Out of memory on the CPU's virtual budget{f' ({note})' if note else ''}: "
            f"{operator.removesuffix('.default')}{f' in {module}' if module else ''} asked for "
            f"{format_bytes(size)}; capacity {format_bytes(self.capacity_bytes)}, "
            f"allocated {format_bytes(self.allocator.allocated_bytes)}, "
            f"reserved {format_bytes(self.allocator.reserved_bytes)}."
        )

    # -- the composition of the peak -----------------------------------------------------------

    def parts_at_peak(self) -> dict[Part, int]:
        """Requested bytes by part at the peak."""
        if self._peak_at is None:
            return dict(self._peak_parts)
        live = dict.fromkeys(self._base)
        for event in self._events[: self._peak_at + 1]:
            if event >= 0:
                live[event] = None
            else:
                del live[~event]
        parts = dict.fromkeys(ALLOCATED_PARTS, 0)
        for number in live:
            record = self._records[number]
            parts[record.part or Part.TEMPORARIES] += record.size_bytes
        return parts

    def fold(self) -> None:
        """Forget the dead, once the composition of the peak is known."""
        self.settle_frees()
        if self._peak_at is not None:
            self._peak_parts = self.parts_at_peak()
            self._peak_at = None
        self._events.clear()
        self._marks.clear()
        self._records = {number: self._records[number] for number in self._blocks}
        self._base = list(self._blocks)

    def reset_peak(self) -> None:
        """The peak is what is live now."""
        self.fold()
        self.peak_allocated_bytes = self.allocator.allocated_bytes
        self.peak_reserved_bytes = self.allocator.reserved_bytes
        self._peak_at = -1  # before the first event
