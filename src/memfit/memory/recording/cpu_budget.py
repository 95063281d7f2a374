"""Real values on the CPU, accounted as on a GPU of a given size: out-of-memory for any machine.

What is counted is what operators return, rounded and cached as PyTorch's CUDA allocator would.
What the CPU's kernels allocate inside and free again is not counted, and they are not the GPU's
kernels: the budget makes a step run out of memory, a plan says what a GPU needs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

from torch import Tensor, nn
from torch.optim import Optimizer

from memfit.errors import UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.recording.budget_ledger import BudgetLedger, Injection
from memfit.memory.recording.follower import Follower, state_tensors
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Part, Phase

__all__ = ["CpuBudget"]


class CpuBudget(Follower):
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
        self._ledger = BudgetLedger(capacity_bytes, settings or AllocatorSettings())
        super().__init__(Recorder("cpu", ledger=self._ledger), adopts=False)
        self._stack = ExitStack()

    def __enter__(self) -> CpuBudget:
        with ExitStack() as stack:
            stack.enter_context(self.hooks())
            stack.enter_context(self.recorder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # -- what is counted -----------------------------------------------------------------------

    @property
    def allocated_bytes(self) -> int:
        """In live blocks now, as ``torch.cuda.memory_allocated``."""
        self._ledger.settle_frees()
        return self._ledger.allocator.allocated_bytes

    @property
    def reserved_bytes(self) -> int:
        """In segments now, as ``torch.cuda.memory_reserved``."""
        self._ledger.settle_frees()
        return self._ledger.allocator.reserved_bytes

    @property
    def max_allocated_bytes(self) -> int:
        """The most that was allocated since the last :meth:`reset_peak`."""
        return self._ledger.peak_allocated_bytes

    @property
    def max_reserved_bytes(self) -> int:
        """The most that was reserved since the last :meth:`reset_peak`."""
        return self._ledger.peak_reserved_bytes

    @property
    def peak_parts(self) -> dict[Part, int]:
        """Requested bytes by part when most was allocated since the last :meth:`reset_peak`."""
        return self._ledger.parts_at_peak()

    def reset_peak(self) -> None:
        """Start the maxima anew from what is live now."""
        self._ledger.reset_peak()

    def empty_cache(self) -> None:
        """Give unused segments back, as ``torch.cuda.empty_cache``."""
        self._ledger.settle_frees()
        self._ledger.allocator.empty_cache()

    def host(self) -> AbstractContextManager[None]:
        """Inside, what is made lies on the host: it takes no place in the budget."""
        return self.recorder.host()

    def adopt(self, owner: nn.Module | Tensor | Optimizer, part: Part = Part.BATCH) -> None:
        """Count what was made before: a model, a tensor, or an optimizer's state.

        Args:
            owner: whose tensors take their place in the budget, as ``.to(device)`` would.
            part: what a lone tensor is for; models and optimizers know.

        Raises:
            torch.OutOfMemoryError: they do not fit.
        """
        if isinstance(owner, nn.Module):
            super().adopt(owner)
            self.tag_gradients()
        elif isinstance(owner, Optimizer):
            for value in state_tensors(owner):
                if value.dim():  # a lone number, such as Adam's count of steps, stays on the host
                    self.recorder.adopt(value, Part.OPTIMIZER)
        else:
            self.recorder.adopt(owner, part)

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
        self._ledger.injection = Injection(phase, after)

    @property
    def is_failure_pending(self) -> bool:
        """Whether a failure that :meth:`fail` asked for has not happened yet."""
        return self._ledger.injection is not None
