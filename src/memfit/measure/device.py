"""Every call to CUDA in one place, and its stand-in: the CPU under a virtual budget.

Both count the same way, so that everything above them runs and is tested without a GPU.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from memfit.errors import StepError
from memfit.measure.history import HistoryRecorder, joined_tape
from memfit.measure.readings import Reading, Use, read_use
from memfit.measure.target import Target
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Part, Phase, Tape
from memfit.step.loop import Watcher
from memfit.torch_inside import allocator_trace, lists_on, nvml_index, start_allocator_trace
from memfit.trainer.step.devices import MemoryPeaks

__all__ = ["CpuDevice", "CudaDevice", "Device", "MeasuredScaler", "VirtualDevice", "open_device"]


class Device(ABC):
    """What a measured training step needs to know of the device under it.

    Attributes:
        device: of the tensors.
    """

    device: torch.device

    @abstractmethod
    def start(self) -> None:
        """Make the CUDA context and set the limits; nothing of the model is there yet."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Any]:
        """Inside, steps run: limits hold, choices are CUDA's."""

    @abstractmethod
    def move(self, model: nn.Module) -> None:
        """Bring a prepared model to the device."""

    @abstractmethod
    def watcher(self) -> Watcher:
        """Who is told what tensors are for, where nothing is recorded."""

    @property
    @abstractmethod
    def peaks(self) -> MemoryPeaks:
        """The most since the last :meth:`reset_peaks`."""

    @abstractmethod
    def reset_peaks(self) -> None:
        """Start the maxima anew."""

    @property
    def retries(self) -> int | None:
        """How often cached segments had to be released; None where nobody counts."""
        return None

    def use(self) -> Use | None:
        """What of the whole GPU this process takes; None where there is none."""
        return None

    @abstractmethod
    def tick(self) -> None:
        """A step ends here."""

    @abstractmethod
    def seconds(self) -> list[float]:
        """Time between the ticks."""

    @abstractmethod
    def recorder(self) -> Recorder:
        """A recorder for real tensors; the history begins here."""

    @abstractmethod
    def tape(self, recorder: Recorder) -> Tape:
        """What was allocated, in order, since the recorder was made."""

    def versions(self) -> dict[str, str | None]:
        """Of CUDA and its libraries."""
        return {"cuda": None, "cudnn": None}


def open_device(target: Target, allocator: str = "") -> Device:
    """The device of a target, in the process that measures.

    Args:
        target: what to measure.
        allocator: options as in ``PYTORCH_ALLOC_CONF``; for a GPU they are in the environment.
    """
    if target.budget_bytes is not None:
        return CpuDevice(target.budget_bytes, AllocatorSettings.parse(allocator))
    return (VirtualDevice if target.kind == "virtual" else CudaDevice)(target.fraction)


class _Nobody:
    """Is told and keeps nothing: a plain run, as a user's."""

    def adopt(self, tensor: Tensor, part: Part) -> None:
        pass

    def enter_phase(self, phase: Phase) -> None:
        pass

    def tag_gradients(self, parameters: Iterable[Tensor]) -> None:
        pass


class CudaDevice(Device):
    """The first GPU that CUDA sees.

    Args:
        fraction: share of its memory that the allocator may reserve.
        cuda: ``torch.cuda``.
        read: asks the driver, by NVML's number of the GPU.
    """

    def __init__(
        self, fraction: float = 1.0, cuda: Any = torch.cuda, read: Reading = read_use
    ) -> None:
        self.device = torch.device("cuda", 0)
        self._fraction = fraction
        self._cuda = cuda
        self._read = read
        self._ticks: list[Any] = []
        self._before: Use | None = None

    def start(self) -> None:
        """Make the context with a first, tiny tensor, give its memory back, count from here."""
        cuda = self._cuda
        self._before = self._ask(None)
        cuda.init()
        cuda.set_device(0)
        if self._fraction < 1:
            cuda.set_per_process_memory_fraction(float(self._fraction), 0)
        self._run_first_kernel()
        cuda.synchronize(0)
        cuda.empty_cache()
        self.reset_peaks()

    def _run_first_kernel(self) -> None:
        torch.zeros(1, device=self.device).add_(1)

    def running(self) -> AbstractContextManager[Any]:
        """Nothing to do: the limits are the allocator's own."""
        return nullcontext()

    def move(self, model: nn.Module) -> None:
        """As users do."""
        model.to(self.device)

    def watcher(self) -> Watcher:
        """Nobody."""
        return _Nobody()

    @property
    def peaks(self) -> MemoryPeaks:
        """As PyTorch reports them."""
        return MemoryPeaks(self._cuda.max_memory_allocated(0), self._cuda.max_memory_reserved(0))

    def reset_peaks(self) -> None:
        """Start the maxima anew from what is live."""
        self._cuda.reset_peak_memory_stats(0)

    @property
    def retries(self) -> int | None:
        """``num_alloc_retries`` of the allocator."""
        return int(self._cuda.memory_stats(0)["num_alloc_retries"])

    def use(self) -> Use | None:
        """What the driver says, now that all work is done.

        None where it does not answer: CUDA's own figure includes whoever else is on the GPU.
        """
        self._cuda.synchronize(0)
        return self._ask(self._before)

    def _ask(self, before: Use | None) -> Use | None:
        try:
            index = nvml_index(self._cuda)
        except (RuntimeError, AttributeError, IndexError, OSError):  # OSError: no NVML library
            return None
        return self._read(index, before)

    def tick(self) -> None:
        """An event on the stream; nothing waits for it."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        self._ticks.append(event)

    def seconds(self) -> list[float]:
        """Time on the GPU between the events."""
        self._cuda.synchronize(0)
        return [first.elapsed_time(second) / 1000 for first, second in pairwise(self._ticks)]

    def recorder(self) -> HistoryRecorder:
        """Start the allocator's history, without stacks: the recorder knows the modules."""
        start_allocator_trace(self._cuda)
        return HistoryRecorder(self._allocations_so_far)

    def _allocations_so_far(self) -> int:
        stats = self._cuda.memory_stats_as_nested_dict(0)
        return int(stats["allocation"]["all"]["allocated"])

    def tape(self, recorder: Recorder) -> Tape:
        """The allocator's history, joined with the recorder."""
        assert isinstance(recorder, HistoryRecorder)
        self._cuda.synchronize(0)
        return joined_tape(recorder, allocator_trace(self._cuda))

    def versions(self) -> dict[str, str | None]:
        """CUDA and cuDNN as PyTorch was built with them."""
        cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
        return {"cuda": torch.version.cuda, "cudnn": None if cudnn is None else str(cudnn)}


class VirtualDevice(CudaDevice):
    """A GPU that is not there, behind stub libraries: memory is counted, nothing runs."""

    def use(self) -> Use | None:
        """None: the driver, if there is one, knows of other GPUs."""
        return None

    def seconds(self) -> list[float]:
        """No time at all: no kernel ran."""
        return []


class CpuDevice(Device):
    """The CPU under a virtual budget: for trying the harness, never for a GPU's figures.

    Args:
        capacity_bytes: what the allocator may reserve.
        settings: options of the caching allocator.
        clock: seconds.
    """

    def __init__(
        self,
        capacity_bytes: int,
        settings: AllocatorSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device = torch.device("cpu")
        self._budget = CpuBudget(capacity_bytes, settings)
        self._clock = clock
        self._ticks: list[float] = []

    def start(self) -> None:
        """Nothing: the CPU is there."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """The budget holds, and optimizers take the lists that are CUDA's default."""
        with lists_on("cpu"), self._budget:
            yield

    def move(self, model: nn.Module) -> None:
        """The model takes its place in the budget."""
        self._budget.adopt(model)

    def watcher(self) -> Watcher:
        """The budget counts what was made before it."""
        return _BudgetWatcher(self._budget)

    @property
    def peaks(self) -> MemoryPeaks:
        """As the virtual allocator counts them."""
        return MemoryPeaks(self._budget.max_allocated_bytes, self._budget.max_reserved_bytes)

    def reset_peaks(self) -> None:
        """Start the maxima anew from what is live."""
        self._budget.reset_peak()

    def tick(self) -> None:
        """The clock's time."""
        self._ticks.append(self._clock())

    def seconds(self) -> list[float]:
        """Time between the ticks."""
        return [b - a for a, b in pairwise(self._ticks)]

    def recorder(self) -> Recorder:
        """Tensors are all that the CPU's account knows."""
        return Recorder("cpu")

    def tape(self, recorder: Recorder) -> Tape:
        """What the recorder wrote."""
        return recorder.tape()


class _BudgetWatcher(_Nobody):
    """Counts what was made outside of the budget."""

    def __init__(self, budget: CpuBudget) -> None:
        self._budget = budget

    def adopt(self, tensor: Tensor, part: Part) -> None:
        self._budget.adopt(tensor, part)


class MeasuredScaler(torch.amp.GradScaler):
    """A scaler whose steps are those of a plan: none is left out.

    The scale is 1: the memory is the same, and no first step is skipped for infinite gradients,
    which would make the optimizer's state a step later than in a plan.

    Args:
        device_type: of the loss.
        enabled: for half precision.
    """

    def __init__(self, device_type: str, enabled: bool = True) -> None:
        super().__init__(device_type, init_scale=1.0, enabled=enabled)

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Update.

        Raises:
            StepError: the gradients are not finite, so there was no update: nothing that a plan
                could be held against. Fused optimizers skip inside their kernel, after they made
                their state.
        """
        steps: list[None] = []
        hook = optimizer.register_step_post_hook(lambda *_: steps.append(None))
        try:
            result = super().step(optimizer, *args, **kwargs)
        finally:
            hook.remove()
        if not steps:
            raise StepError("The gradients are not finite, so GradScaler left the step out.")
        return result
