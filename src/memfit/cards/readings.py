"""What the GPUs of this machine hold right now, and which process holds it, from the driver.

NVML is asked; no CUDA context is made, so looking takes no GPU memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import psutil

from memfit.errors import NoGPU

__all__ = ["GPUReading", "ProcessReading", "read_gpus"]


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One process on a GPU.

    Args:
        pid: as the driver sees it; another number than inside a container.
        command: its command line, shortened by nobody; empty where it cannot be read.
        used_bytes: CUDA context and everything else; None where the driver does not say (Windows'
            display driver model).
    """

    pid: int
    command: str
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GPUReading:
    """One GPU at one moment.

    Args:
        index: as ``nvidia-smi`` counts.
        name: the driver's.
        total_bytes: that processes can use: nvidia-smi's total less what the driver keeps.
        used_bytes: by all processes.
        processes: those with a CUDA context or a display, the largest first.
    """

    index: int
    name: str
    total_bytes: int
    used_bytes: int
    processes: tuple[ProcessReading, ...]

    @property
    def unattributed_bytes(self) -> int:
        """Used, but by no process that the driver names (a container's, or a display's)."""
        return max(0, self.used_bytes - sum(p.used_bytes or 0 for p in self.processes))


def read_gpus(index: int | None = None) -> list[GPUReading]:
    """What every GPU holds now, or one of them.

    Args:
        index: as ``nvidia-smi`` counts; all when omitted.

    Raises:
        NoGPU: no driver, no GPU, or none of that number.
    """
    with _driver() as nvml:
        count = nvml.nvmlDeviceGetCount()
        if count == 0:
            raise NoGPU("The NVIDIA driver sees no GPU.", hint=_HINT)
        if index is not None and not 0 <= index < count:
            raise NoGPU(
                f"There is no GPU {index}.",
                hint=f"nvidia-smi counts {count}, from 0 to {count - 1}.",
            )
        return [_read(nvml, number) for number in range(count) if index in (None, number)]


_HINT = (
    "This needs an NVIDIA GPU and its driver. `memfit plan` tells without one where memory will go."
)


@contextmanager
def _driver() -> Iterator[ModuleType]:
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NoGPU(f"There is no GPU to look at: {error}.", hint=_HINT) from None
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise NoGPU(f"The NVIDIA driver does not answer: {error}.", hint=_HINT) from None
    finally:
        nvml.nvmlShutdown()


def _read(nvml: ModuleType, index: int) -> GPUReading:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
    if memory.total <= memory.reserved:
        raise NoGPU(f"The NVIDIA driver does not tell the memory of GPU {index}.", hint=_HINT)
    return GPUReading(
        index=index,
        name=nvml.nvmlDeviceGetName(device),
        total_bytes=memory.total - memory.reserved,
        used_bytes=memory.used,
        processes=tuple(_processes(nvml, device)),
    )


def _processes(nvml: ModuleType, device: Any) -> list[ProcessReading]:
    """A process that computes and draws is in both lists of the driver."""
    used: dict[int, int | None] = {}
    for ask in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for process in _asked(nvml, ask, device):
            used[process.pid] = max(used.get(process.pid) or 0, process.usedGpuMemory or 0) or None
    readings = [ProcessReading(pid, _command(pid), size) for pid, size in used.items()]
    return sorted(readings, key=lambda reading: -(reading.used_bytes or 0))


def _asked(nvml: ModuleType, ask: Callable[[Any], list[Any]], device: Any) -> list[Any]:
    """An answer of the driver; empty where this card or system gives none (WSL, vGPU)."""
    try:
        return ask(device)
    except nvml.NVMLError_NotSupported:
        return []


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
